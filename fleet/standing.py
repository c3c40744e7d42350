"""How an alert under way stands with each receiver: what it was told, what is held back from it, what comes next."""

from datetime import datetime
from typing import Literal

import msgspec

from fleet.notification import TellingAlert
from fleet.reading import to_datetime
from fleet.transition import Transition

Cause = Literal[
    "silenced", "maintenance", "inhibited", "acknowledged", "flapping", "stale", "capped", "storm", "no_resolved",
    "never_told", "no_route", "switched_off", "no_receiver",
]  # fmt: skip
CAUSES: dict[Cause, str] = {
    "silenced": "a silence fits: `weir alerts silences`",
    "maintenance": "within a maintenance window of the receivers' file",
    "inhibited": "an alert on the quality of the same device's readings fires",
    "acknowledged": "somebody has taken it on, and it has not got worse",
    "flapping": "it goes to and fro; told when it has settled",
    "stale": "no news: detected over max_age late, as in a backfill, or so long before anybody was told of anything",
    "capped": "the rule has max_active_alerts under way; one alert of Weir's own tells of it",
    "storm": "told in a digest, with others of its rule and site",
    "no_resolved": "the receiver wants no ends (send_resolved: false)",
    "never_told": "an end, of what the receiver was not told of",
    "no_route": "nobody is to hear of such alerts",
    "switched_off": "the receiver said 410; `weir alerts test-receiver` or `resend --receiver` switches it on",
    "no_receiver": "the receiver left the file before its digest came, or before what it was told of ended",
}
"""Why something was not told."""
PASSING: frozenset[str] = frozenset(("silenced", "maintenance", "inhibited", "flapping", "switched_off"))
"""What still fires when these end is told then."""
SEVERITIES = ("info", "warning", "critical")


class Standing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """With one receiver."""

    told: str | None = None
    """The severity it knows of; None: it was told nothing."""
    held: Cause | None = None
    """Of PASSING: what keeps it from being told how the alert is now."""
    digest: str | None = None
    """The kind of the digest in which it will be told."""
    digest_site: str = ""
    """Of that digest: the device may have moved since. Empty in rows that are older than this."""
    knows_flapping: bool = False
    send_resolved: bool = True
    repeat_seconds: float | None = None
    repeat_at: datetime | None = None
    reminders: int = 0
    left: int = 0
    """How often it has left the file since it heard of this: what was sent then may never have reached it."""
    away: bool = False
    """It has left, and has heard nothing since."""


Step = tuple[float, tuple[str, ...]]
"""After how many seconds which receivers: what makes a step of escalation the same when routes change."""


Identity = tuple[str, str, str, str]


def identity_of(alert: TellingAlert) -> Identity:
    """Of its rule and device: one alert of them is active at a time."""
    return (alert.system, alert.type, alert.rule, alert.device)


class AlertSoFar(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    alert: TellingAlert
    quality: bool = False
    inhibitable: bool = True
    capped: bool = False
    stale: bool = False
    """All that is known of it was old when it was detected: it is news for nobody. Older rows do not say so."""
    acknowledged: str | None = None
    """The severity at which somebody took it on."""
    acknowledgements: int = 0
    first_told_at: datetime | None = None
    """At this severity, or then held back from a receiver that is switched off: from then escalation counts."""
    steps_taken: tuple[Step, ...] = ()
    """Of escalation, at this severity."""
    standings: dict[str, Standing] = {}

    @property
    def identity(self) -> Identity:
        return identity_of(self.alert)

    @property
    def in_digest(self) -> bool:
        return any(standing.digest for standing in self.standings.values())

    def is_over(self, latest: bool) -> bool:
        """Nothing will be told of it again. Notices of flapping belong to the latest alert, even a resolved one."""
        return not (self.alert.active or (self.alert.flapping and latest) or self.in_digest)

    def standing(self, receiver: str) -> Standing:
        return self.standings.get(receiver) or Standing()


def taken(
    before: AlertSoFar | None, t: Transition, quality: bool, inhibitable: bool, stale: bool = False
) -> AlertSoFar:
    """The alert after a transition, nobody told of it yet."""
    severities = before.alert.severities if before else ()
    event_time = to_datetime(t.event_time_us)
    resolved_at, reason = (before.alert.resolved_at, before.alert.reason) if before else (None, None)
    if t.to == "resolved" or (before is None and t.to in ("flapping", "settled")):
        # Active alerts are all known: notices of flapping about one that is not are about one that is over.
        resolved_at, reason = event_time, t.reason
    acknowledged = before.acknowledged if before else None
    risen = acknowledged is not None and rank(t.severity) > rank(acknowledged)
    alert = TellingAlert(
        alert_id=t.alert_id, transition_id=t.transition_id, system=t.system, type=t.type, rule=t.rule, device=t.device,
        site=t.site, severity=t.severity,
        severities=severities if t.severity in severities else (*severities, t.severity),
        title=t.title, annotations=t.annotations, labels=t.labels, values=t.values,
        since=to_datetime(t.since_us), starts_at=to_datetime(t.starts_at_us), event_time=event_time,
        resolved_at=resolved_at, reason=reason, flapping=t.flapping,
        acknowledged_by=before.alert.acknowledged_by if before and not risen else None,
        acknowledged_comment=before.alert.acknowledged_comment if before and not risen else "",
    )  # fmt: skip
    if before is None:
        return AlertSoFar(alert=alert, quality=quality, inhibitable=inhibitable, capped=t.capped, stale=stale)
    changed = msgspec.structs.replace(
        before, alert=alert, quality=quality, inhibitable=inhibitable, capped=before.capped or t.capped,
        stale=before.stale and stale,
    )  # fmt: skip
    if before.alert.active and rank(t.severity) > rank(before.alert.severity):
        changed = msgspec.structs.replace(changed, steps_taken=())
    return anew(changed) if risen else changed


def departed(standing: Standing) -> Standing:
    """Of a receiver that the file no longer has; first a digest that is to come has to be noted as not told."""
    if standing.away or standing.digest or not (standing.told or standing.held or standing.left):
        return standing
    return Standing(
        send_resolved=standing.send_resolved, reminders=standing.reminders, left=standing.left + 1, away=True
    )


def anew(so_far: AlertSoFar) -> AlertSoFar:
    """Its severity rose above what was acknowledged: nobody has taken that on, and escalation counts from here."""
    return msgspec.structs.replace(so_far, acknowledged=None, first_told_at=None, steps_taken=())


def rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)
