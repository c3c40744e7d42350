"""What became of one rule of one device, noted while the rules run: its transitions, and what leaves none."""

from collections import deque
from collections.abc import Callable, Iterable
from copy import copy
from datetime import timedelta
from typing import NamedTuple

from fleet.alert_state import CLEARING, FIRING, INACTIVE, LONG_AGO, PENDING, Alert, Machine
from fleet.device_state import DeviceState
from fleet.duration import format_duration
from fleet.evaluator import Evaluator
from fleet.journal import Journal
from fleet.ruleset import CompiledRule

KEPT = 8
"""Of the latest."""


class Subject(NamedTuple):
    """Whom it is about."""

    type: str
    device: str
    rule: str


class Event(NamedTuple):
    at_us: int
    what: str
    """A transition's `to`; else what changed without one: a word of CHANGES, `gap` or `lapsed`."""
    level: str = ""
    """Of a rule with levels."""
    detail: str = ""
    transition_id: str = ""
    offset: int = -1
    """Of the record that caused it."""


CHANGES = {
    (INACTIVE, PENDING): "breach", (PENDING, INACTIVE): "breach over", (PENDING, FIRING): "level fires",
    (INACTIVE, FIRING): "level fires", (FIRING, CLEARING): "clear holds", (CLEARING, FIRING): "clear over",
    (FIRING, INACTIVE): "level ends", (CLEARING, INACTIVE): "level ends",
}  # fmt: skip
OF_LEVELS = ("level fires", "level ends")
"""Where there are no levels, a transition says it."""


class Witness(Evaluator):
    """An evaluator that does the same as any, and remembers what it did about its subject."""

    def __init__(self, journal: Journal, subject: Subject, events: Iterable[Event] = ()):
        super().__init__(journal)
        self.subject = subject
        self.events = deque(events, KEPT)
        self.evaluated_us = LONG_AGO
        """Of a rule with a site function: its last evaluation."""
        self._machines: list[Machine] = []
        self._told = 0

    def evaluate(self, device: DeviceState, rule: CompiledRule, time_us: int) -> None:
        do = super().evaluate
        if self._is_subject(device, rule):
            self._watch(device, rule, lambda: do(device, rule, time_us), time_us)
        else:
            do(device, rule, time_us)

    def site_time(self, device: DeviceState, rule: CompiledRule, time_us: int) -> int:
        """Of an evaluation that the engine passes over too: it leaves nothing but this."""
        at_us = super().site_time(device, rule, time_us)
        if self._is_subject(device, rule):
            self.evaluated_us = at_us
        return at_us

    def act(self, device: DeviceState, rule: CompiledRule, due_us: int) -> None:
        do = super().act
        if self._is_subject(device, rule):
            self._watch(device, rule, lambda: do(device, rule, due_us), due_us, by="timer")
        else:
            do(device, rule, due_us)

    def end(
        self, device: DeviceState, rule: CompiledRule, alert: Alert, at_us: int, reason: str, version: int | None = None
    ) -> None:
        do = super().end
        if self._is_subject(device, rule):
            clock_us = max(at_us, device.clock)
            self._watch(device, rule, lambda: do(device, rule, alert, at_us, reason, version), clock_us, by=reason)
        else:
            do(device, rule, alert, at_us, reason, version)

    def _is_subject(self, device: DeviceState, rule: CompiledRule) -> bool:
        wanted = self.subject
        return device.id == wanted.device and rule.id == wanted.rule and device.type.name == wanted.type

    def _watch(self, device: DeviceState, rule: CompiledRule, do: Callable[[], None], at_us: int, by: str = "") -> None:
        """`by`: `timer`, or the reason of a control record; empty: a reading."""
        self._machines, self._told = _machines(device, rule), len(self.journal.told)
        do()  # an evaluation may run timers first, which are watched for themselves
        before, after = self._machines, _machines(device, rule)
        if rule.looked_at and not by:  # a site's reading evaluates it no earlier than this
            at_us = max(at_us, device.clock, (device.evaluated or {}).get(rule.place, LONG_AGO))
        for level, old, new in zip(rule.levels, before, after, strict=True):
            self._compare(level.severity, old, new, at_us, rule.max_gap_us, by)
        for told in self.journal.told[self._told :]:
            if (told.type, told.device, told.rule) == self.subject:
                self.events.append(
                    Event(told.event_time_us, told.to, "", told.reason or "", told.transition_id, told.offset)
                )
        self._machines, self._told = after, len(self.journal.told)

    def _compare(self, level: str, old: Machine, new: Machine, at_us: int, max_gap_us: int, by: str) -> None:
        silence, state = at_us - old.known_at, old.state
        if by == "timer" and ((state == PENDING and new.state == INACTIVE) or new.lapsed > old.lapsed):
            self._add(at_us, "lapsed", level, f"no known outcome for {span(silence)}, max_gap {span(max_gap_us)}")
            return
        if not by and state == PENDING and silence > max_gap_us and (new.state == INACTIVE or new.since != old.since):
            self._add(at_us, "gap", level, f"{span(silence)} between known outcomes, max_gap {span(max_gap_us)}")
            state = INACTIVE
        what = CHANGES.get((state, new.state), "")
        if what and (level or what not in OF_LEVELS):
            self._add(at_us, what, level, "" if by == "timer" else by)

    def _add(self, at_us: int, what: str, level: str, detail: str) -> None:
        self.events.append(Event(at_us, what, level, detail, "", self.journal.offset))


def _machines(device: DeviceState, rule: CompiledRule) -> list[Machine]:
    alert = device.alerts[rule.place] if rule.place < len(device.alerts) else None
    if alert is None or not alert.machines:
        return [Machine() for _ in rule.levels]
    return [copy(machine) for machine in alert.machines]


def span(us: int) -> str:
    return format_duration(timedelta(microseconds=us))
