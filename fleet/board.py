"""All alerts under way and how they stand with each receiver: transitions, time and operators in; messages to be sent,
and a note of each that is not, out. No I/O: who keeps the board writes what `changes` says, or makes it anew."""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from fleet.acknowledgement import acknowledged_by, in_one_line, unfit
from fleet.dispatch import (
    Decision,
    Hold,
    Tell,
    acknowledged,
    after,
    decide,
    due,
    forgotten,
    newly_planned,
    next_due,
    overdue,
    reconsider,
    replanned,
)  # fmt: skip
from fleet.hindrance import Circumstances, is_stale
from fleet.notification import Kind, Notification, TellingAlert
from fleet.receivers import Escalation, ReceiversFile
from fleet.standing import AlertSoFar, departed, identity_of, taken
from fleet.storm import Group, GroupKey, admitted, anchored, awaited, certain, flushed, is_forgotten, key_of
from fleet.summary import active_summary, digest_summary, summary_of, worst_first
from fleet.transition import Transition
from fleet.under_way import UnderWay
from fleet.webhook_body import MOST_ALERTS


@dataclass(frozen=True)
class Held:
    """A note of what was not told, and why."""

    alert: TellingAlert
    hold: Hold


@dataclass
class Changes:
    """What is to be written, all of it or nothing."""

    messages: list[Notification] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    alerts: set[str] = field(default_factory=set)
    """Whose row is to be as the board has it, or gone."""
    groups: set[GroupKey] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.messages or self.held or self.alerts or self.groups)


class Board:
    def __init__(self, alerts: Iterable[AlertSoFar] = (), groups: dict[GroupKey, Group] | None = None):
        self._under_way = UnderWay()
        self.alerts = self._under_way.by_id
        self.inhibiting = self._under_way.inhibiting
        self.groups = dict(groups or {})
        self.changes = Changes()
        self._changed: dict[str, None] = {}
        """Since the last tick: when something is due next is not known of these."""
        self._next: dict[str, datetime] = {}
        self._calendar: list[tuple[datetime, str]] = []
        """A heap of `_next`, and of what was there before it changed."""
        self._policy: ReceiversFile | None = None
        self._news: dict[str, dict[str, Tell]] | None = None
        """While a changed file is looked at: who hears of which alerts for the first time, by whatever the file says;
        that is one message a receiver."""
        for so_far in sorted(alerts, key=lambda known: (known.alert.starts_at, known.alert.active)):
            self._put(so_far := anchored(so_far))
            for key in awaited(so_far):
                self.groups[key] = certain(self.groups.get(key, Group()), so_far, key.receiver)
        self.changes = Changes()

    def take(self, t: Transition, quality: bool, inhibitable: bool, given: Circumstances) -> None:
        """One transition, which was not taken before."""
        before = self.alerts.get(t.alert_id)
        stale = is_stale(t, inhibitable, given)
        so_far = taken(before, t, quality, inhibitable, stale)
        if before is None:
            so_far = self._inherited(so_far)
        self._put(so_far)
        kind: Kind = t.to  # type: ignore[assignment]
        self._act(so_far, decide(so_far, kind, stale, given), given)

    def _inherited(self, so_far: AlertSoFar) -> AlertSoFar:
        """While a rule flaps, each of its alerts takes over from the one before who knows of that."""
        of_old = self._under_way.latest(so_far.identity)
        if of_old is None or of_old.alert.active:
            return so_far
        knowing = {name: s for name, s in of_old.standings.items() if s.knows_flapping}
        if not of_old.in_digest:
            self._drop(of_old)
        standings = {name: type(s)(knows_flapping=True, send_resolved=s.send_resolved) for name, s in knowing.items()}
        return msgspec.structs.replace(so_far, standings=standings)

    def tick(self, given: Circumstances) -> None:
        """All that time, silences, windows and the policy have changed since."""
        if given.policy is not self._policy:
            self._policy = given.policy
            self._changed = dict.fromkeys(self.alerts)
            self._news = {}
            for so_far in list(self.alerts.values()):
                self._replan(so_far, given)
        for alert_id in list(self._under_way.held):
            self._reconsider(self.alerts[alert_id], given)
        for alert_id in self._due(given):
            so_far = self.alerts[alert_id]
            steps = overdue(so_far, given)
            if (decisions := due(so_far, given)) or steps:
                self._act(so_far, decisions, given, steps)
        for receiver, tells in (self._news or {}).items():
            if tells:
                self._catch_up(receiver, tells, given)
        self._news = None
        for key, group in list(self.groups.items()):
            if is_forgotten(group, given.policy.storm, given.now):
                del self.groups[key]
                self.changes.groups.add(key)

    def _replan(self, so_far: AlertSoFar, given: Circumstances) -> None:
        if (planned := replanned(so_far, given)) is not so_far:
            self._put(planned)
        if decisions := newly_planned(planned, given):
            self._act(planned, decisions, given)

    def _catch_up(self, receiver: str, tells: dict[str, Tell], given: Circumstances) -> None:
        """One alert as it is told to others, several in one message."""
        if len(tells) == 1:
            ((alert_id, tell),) = tells.items()
            self._put(self._tell(self.alerts[alert_id], tell, given))
            return
        every = worst_first(self.alerts[alert_id].alert for alert_id in tells)
        for begin in range(0, len(every), MOST_ALERTS):
            listed = tuple(every[begin : begin + MOST_ALERTS])
            first = tells[listed[0].alert_id].notification_id
            self._send(
                Notification(
                    notification_id=f"active-{first}", receiver=receiver, kind="digest", alerts=listed,
                    summary=active_summary(listed), created_at=given.now,
                )
            )  # fmt: skip

    def _reconsider(self, so_far: AlertSoFar, given: Circumstances) -> None:
        if decisions := reconsider(so_far, given):
            so_far = self._act(so_far, decisions, given)
        if names := forgotten(so_far, given):
            cleared = {n: msgspec.structs.replace(so_far.standings[n], held=None) for n in names}
            self._put(msgspec.structs.replace(so_far, standings={**so_far.standings, **cleared}))

    def _due(self, given: Circumstances) -> list[str]:
        """Alerts whose time has come, which are looked at anew after that."""
        for alert_id in self._changed:
            if (at := next_due(self.alerts[alert_id], given.policy)) is None:
                self._next.pop(alert_id, None)
            elif self._next.get(alert_id) != at:
                self._next[alert_id] = at
                heapq.heappush(self._calendar, (at, alert_id))
        self._changed = {}
        found = []
        while self._calendar and self._calendar[0][0] <= given.now:
            at, alert_id = heapq.heappop(self._calendar)
            if self._next.get(alert_id) == at:
                del self._next[alert_id]
                found.append(alert_id)
        self._changed = dict.fromkeys(found)
        return found

    def digests_due(self, now: datetime) -> list[GroupKey]:
        return [key for key, group in self.groups.items() if group.due_at is not None and group.due_at <= now]

    def send_digest(self, key: GroupKey, known_devices: int | None, given: Circumstances) -> None:
        group = self.groups[key]
        members = self._under_way.waiting(key)
        before = [self.alerts[alert_id] for alert_id in group.before if alert_id in self.alerts]
        listed = list({s.alert.alert_id: s.alert for s in (*before, *members)}.values())
        if getattr(given.policy.receivers.get(key.receiver), "shows", "") == "state":
            listed = [alert for alert in listed if not self._is_outdated(alert, key)]
        for so_far in members:
            standing = msgspec.structs.replace(so_far.standing(key.receiver), digest=None, digest_site="")
            standing = standing if key.receiver in given.policy.receivers else departed(standing)
            self._put(msgspec.structs.replace(so_far, standings={**so_far.standings, key.receiver: standing}))
        self.groups[key] = flushed(group)
        self.changes.groups.add(key)
        if key.receiver not in given.policy.receivers:
            self.changes.held += [Held(s.alert, Hold(key.receiver, key.kind, "no_receiver")) for s in members]  # type: ignore[arg-type]
        elif listed:
            firing = {s.alert.alert_id for s in self._under_way.at_site(key) if s.alert.active}
            firing |= {alert.alert_id for alert in listed if alert.active}
            self._send(
                Notification(
                    notification_id=group.digest_id, receiver=key.receiver, kind="digest",
                    alerts=tuple(worst_first(listed)),
                    summary=digest_summary(key.kind, key.rule, key.site, len(listed), len(firing), known_devices),
                    created_at=given.now,
                )
            )  # fmt: skip

    def _is_outdated(self, alert: TellingAlert, key: GroupKey) -> bool:
        """The receiver knows a newer alert of that rule and device already, or will by this digest."""
        latest = self._under_way.latest(identity_of(alert))
        if latest is None or latest.alert.alert_id == alert.alert_id:
            return False
        standing = latest.standing(key.receiver)
        return standing.told is not None and (standing.digest is None or key in awaited(latest))

    def acknowledge(self, alert_id: str, by: str, comment: str, given: Circumstances) -> str:
        """What is wrong with that; empty when it is done."""
        so_far = self.alerts.get(alert_id)
        if so_far is None or not so_far.alert.active:
            return "it is not active"
        by, comment = in_one_line(by), in_one_line(comment)
        if problem := unfit(by, comment):
            return problem
        so_far = acknowledged_by(so_far, by, comment)
        self._put(so_far)
        self._act(so_far, acknowledged(so_far, given), given)
        return ""

    def _act(
        self, so_far: AlertSoFar, decisions: Sequence[Decision], given: Circumstances, steps: Sequence[Escalation] = ()
    ) -> AlertSoFar:  # fmt: skip
        before, so_far = so_far, after(so_far, decisions, given, steps)
        for decision in decisions:
            if isinstance(decision, Hold):
                self.changes.held.append(Held(so_far.alert, decision))
            elif not self._is_caught_up(before, decision):
                so_far = self._tell(so_far, decision, given)
        self._put(so_far)
        return so_far

    def _is_caught_up(self, before: AlertSoFar, tell: Tell) -> bool:
        """Whether the receiver hears of the alert by `_news`, from now on or already."""
        if self._news is None:
            return False
        alert_id, tells = before.alert.alert_id, self._news.setdefault(tell.receiver, {})
        if before.standing(tell.receiver).told is None:
            tells.setdefault(alert_id, tell)
        return alert_id in tells

    def _tell(self, so_far: AlertSoFar, tell: Tell, given: Circumstances) -> AlertSoFar:
        """Now, or in a digest: in one that is under way already, what has come of the alert since is told there too.
        What nothing but a silence holds back waits for no digest."""
        standing, alert = so_far.standing(tell.receiver), so_far.alert
        if not so_far.inhibitable or (standing.digest is None and self._is_alone(alert, tell, given)):
            self._send(
                Notification(
                    notification_id=tell.notification_id, receiver=tell.receiver, kind=tell.kind, alerts=(alert,),
                    summary=summary_of(tell.kind, alert), created_at=given.now,
                )
            )  # fmt: skip
            return so_far
        if standing.digest is None:
            standing = msgspec.structs.replace(standing, digest=tell.kind, digest_site=alert.site)
        self.changes.held.append(Held(alert, Hold(tell.receiver, tell.kind, "storm")))
        return msgspec.structs.replace(so_far, standings={**so_far.standings, tell.receiver: standing})

    def _is_alone(self, alert: TellingAlert, tell: Tell, given: Circumstances) -> bool:
        """Whether it is no storm."""
        key = key_of(tell.receiver, tell.kind, alert)
        group, alone = admitted(
            self.groups.get(key, Group()), alert.alert_id, tell.notification_id, given.policy.storm, given.now
        )
        self.groups[key] = group
        self.changes.groups.add(key)
        return alone

    def _send(self, message: Notification) -> None:
        self.changes.messages.append(message)

    def _put(self, so_far: AlertSoFar) -> None:
        self.changes.alerts.add(so_far.alert.alert_id)
        self._changed[so_far.alert.alert_id] = None
        self._under_way.put(so_far)

    def _drop(self, so_far: AlertSoFar) -> None:
        alert_id = so_far.alert.alert_id
        self.changes.alerts.add(alert_id)
        self._changed.pop(alert_id, None)
        self._next.pop(alert_id, None)
        self._under_way.drop(so_far)

    def taken_down(self) -> Changes:
        """What is to be written since the last time; alerts that are over leave the board."""
        for alert_id in self.changes.alerts:
            if (so_far := self.alerts.get(alert_id)) is not None:
                latest = self._under_way.latest(so_far.identity)
                if so_far.is_over(latest is so_far):
                    self._drop(so_far)
        changes, self.changes = self.changes, Changes()
        return changes
