"""What keeps an alert from being told, as things are now. No I/O."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from fleet.alert_labels import labels_of
from fleet.maintenance import Maintenance
from fleet.notification import Kind, TellingAlert
from fleet.reading import to_datetime
from fleet.receivers import ReceiversFile
from fleet.silence import Silence
from fleet.standing import AlertSoFar, Cause
from fleet.transition import Transition


@dataclass(frozen=True)
class Circumstances:
    now: datetime
    policy: ReceiversFile
    silences: Sequence[Silence] = ()
    switched_off: frozenset[str] = frozenset()
    inhibiting: Callable[[str, str], str] = lambda type_name, device: ""
    """The rule of a firing `quality` alert of that device; empty: none fires."""
    began_at: datetime | None = None
    """When Weir first told anybody of anything: what is much older was for nobody."""

    @cached_property
    def windows(self) -> list[Maintenance]:
        """Of maintenance, that are open now."""
        return [window for window in self.policy.maintenance if window.ends(self.now)]

    @cached_property
    def _quiet(self) -> dict[str, tuple[Cause, str] | None]:
        """By transition, as silences and windows look at nothing else: with many of them, receivers and alerts it
        takes seconds to go through them for each receiver."""
        return {}

    def quiet(self, alert: TellingAlert) -> tuple[Cause, str] | None:
        """The silence or window of maintenance, open now, that the alert is in."""
        if alert.transition_id not in self._quiet:
            self._quiet[alert.transition_id] = self._found_quiet(alert)
        return self._quiet[alert.transition_id]

    def _found_quiet(self, alert: TellingAlert) -> tuple[Cause, str] | None:
        labels = labels_of(alert)
        for silence in self.silences:
            if silence.covers(labels, self.now):
                return "silenced", silence.silence_id
        for window in self.windows:
            if window.match.takes(alert):
                return "maintenance", window.name or window.cron
        return None


def is_stale(t: Transition, inhibitable: bool, given: Circumstances) -> bool:
    """News for nobody. A rule that is not inhibitable is told however late its reading came, yet not of the time before
    Weir told anybody."""
    max_age_us = given.policy.max_age // timedelta(microseconds=1)
    if inhibitable and t.detected_at_us - t.event_time_us > max_age_us:
        return True
    return is_before(to_datetime(t.detected_at_us), given)


def is_before(time: datetime, given: Circumstances) -> bool:
    """More than `max_age` before anybody was told of anything."""
    return given.began_at is not None and time < given.began_at - given.policy.max_age


def hindrance(so_far: AlertSoFar, kind: Kind, receiver: str, given: Circumstances) -> tuple[Cause, str] | None:
    """What keeps an alert, as it is now, from being told to a receiver, and a word on which. Of a rule that is not
    inhibitable that is an explicit silence alone, and what nobody can help: a receiver that takes nothing any more."""
    alert, quiet = so_far.alert, given.quiet(so_far.alert)
    off: tuple[Cause, str] | None = ("switched_off", "") if receiver in given.switched_off else None
    if not so_far.inhibitable:
        return quiet if quiet and quiet[0] == "silenced" else off
    if quiet:
        return quiet
    if not so_far.quality and (rule := given.inhibiting(alert.type, alert.device)):
        return "inhibited", rule
    if off:
        return off  # after what is for all: escalation counts from here, and nothing is escalated in a silence
    if so_far.acknowledged is not None and kind != "acknowledged" and not _is_unseen(so_far, receiver, given):
        return "acknowledged", alert.acknowledged_by or ""
    if alert.flapping and kind != "flapping":
        return "flapping", ""
    return None


def _is_unseen(so_far: AlertSoFar, receiver: str, given: Circumstances) -> bool:
    """By a receiver that shows how things are: it shows this too, and who has taken it on."""
    shows = getattr(given.policy.receivers.get(receiver), "shows", "")
    return shows == "state" and so_far.standing(receiver).told is None
