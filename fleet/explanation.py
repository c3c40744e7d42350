"""Why a rule says what it says of a device at one moment: the parts of its conditions, its state, what it waits for.

Pure: an engine that stands at the moment in, data and sentences out. Nothing of the engine is changed. Exact for times
not before the device's clock: windows and values are kept for those only.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from fleet import reason
from fleet.alert_state import CLEARING, FIRING, INACTIVE, LONG_AGO, NEVER, PENDING, Alert, Machine
from fleet.device_state import DeviceState
from fleet.evaluation import Value, compile_condition, compile_value, parts
from fleet.expression import parse_expression, text_of
from fleet.reason import EPOCH
from fleet.rule import Condition
from fleet.ruleset import SEVERITIES, UNLIMITED, CompiledRule
from fleet.witness import Event

STATES = {INACTIVE: "inactive", PENDING: "pending", FIRING: "firing", CLEARING: "clearing"}


def moment(us: int) -> datetime | None:
    """None: never."""
    return None if us <= LONG_AGO or us >= NEVER else EPOCH + timedelta(microseconds=us)


@dataclass(frozen=True)
class Present:
    """The value of a metric that the rule uses."""

    metric: str
    value: float | None
    """None: unknown, stale or as it came."""
    last: float | None
    """As it came, stale or not."""
    set_at: datetime | None
    age: timedelta | None
    is_stale: bool


@dataclass(frozen=True)
class Part:
    text: str
    value: float | bool | None
    """None: unknown."""


@dataclass(frozen=True)
class Side:
    """A condition: `when` or `clear`."""

    name: str
    parts: tuple[Part, ...]
    """The whole first, then what it is made of."""
    at_evaluation: bool | None
    """The whole as the rule's last evaluation found it: until the next one, that decides."""


@dataclass(frozen=True)
class Level:
    severity: str
    """Empty where the rule has no levels."""
    sides: tuple[Side, ...]
    state: str
    since: datetime | None
    """Of the breach, or in clearing of the clear condition."""
    due: datetime | None
    """Of the timer of `for` or `keep_firing_for`."""
    last_known: datetime | None
    """The last known outcome of `when`, where something is remembered."""
    outcomes: str
    """Of `count`, the oldest first: `0` and `1`."""
    why: str


@dataclass(frozen=True)
class Explanation:
    type: str
    device: str
    site: str
    rule: str
    title: str
    spec_version: int
    at: datetime
    state: str
    severity: str | None
    """Of an alert that is active."""
    alert_id: str | None
    starts_at: datetime | None
    marks: tuple[str, ...]
    """quiet, capped, flapping."""
    last_reading: datetime | None
    """In order."""
    evaluated: datetime | None
    """The rule, with the last reading that it looks at."""
    watermark: datetime | None
    lag: timedelta
    stale_after: timedelta | None
    """None: never."""
    values: tuple[Present, ...]
    levels: tuple[Level, ...]
    due: datetime | None
    """Of `no_data`."""
    why: str
    """Of `no_data`; else each level says it."""
    events: tuple[Event, ...]


def explain(
    device: DeviceState, rule: CompiledRule, time_us: int, events: Iterable[Event] = (), by_site_us: int = LONG_AGO
) -> Explanation:
    """`events`: what a witness has of it, the latest last. `by_site_us`: the last evaluation that a site function of
    the rule had, if any."""
    alert, spec, events = device.alerts[rule.place], device.type.rules.spec, tuple(events)
    stale_us = device.type.rules.stale_us
    evaluated_us = max([by_site_us, *(device.times[place] for _, place in rule.metrics)])
    levels = _levels(device, rule, alert, time_us, evaluated_us, events)
    is_active = alert is not None and alert.rank >= 0
    states = {level.state for level in levels} or {STATES[FIRING if is_active else INACTIVE]}
    marks = () if alert is None else ("quiet",) * alert.quiet + ("flapping",) * alert.flapping
    if alert is not None and is_active and alert.capped:
        marks += ("capped",)
    return Explanation(
        spec.type, device.id, device.site.name, rule.id,
        title=rule.id if rule.has_templates else rule.title, spec_version=spec.version,
        at=EPOCH + timedelta(microseconds=time_us),
        state=next(state for state in ("firing", "clearing", "pending", "inactive") if state in states),
        severity=(rule.severity or SEVERITIES[alert.rank]) if alert is not None and is_active else None,
        alert_id=alert.alert_id if alert is not None and is_active else None,
        starts_at=moment(alert.starts_at) if alert is not None and is_active else None,
        marks=marks,
        last_reading=moment(device.heard),
        evaluated=moment(evaluated_us),
        watermark=moment(device.type.watermark),
        lag=timedelta(microseconds=device.lag),
        stale_after=timedelta(microseconds=stale_us) if stale_us < UNLIMITED else None,
        values=tuple(_present(device, name, place, time_us) for name, place in rule.metrics),
        levels=levels,
        due=moment(device.silence_due(rule)) if rule.no_data_us is not None and alert is None else None,
        why=reason.of_silence(device, rule, alert) if rule.no_data_us is not None else "",
        events=events,
    )  # fmt: skip


def _present(device: DeviceState, name: str, place: int, time_us: int) -> Present:
    set_us = device.times[place]
    age = None if set_us == LONG_AGO else timedelta(microseconds=time_us - set_us)
    is_stale = age is not None and time_us - set_us > device.type.rules.stale_us
    return Present(name, device.fresh(place, time_us), device.values[place], moment(set_us), age, is_stale)


def _levels(
    device: DeviceState, rule: CompiledRule, alert: Alert | None, time_us: int, evaluated_us: int,
    events: tuple[Event, ...],
) -> tuple[Level, ...]:  # fmt: skip
    conditions: dict[str, Condition] = {path.rpartition(".")[2]: c for path, c in rule.spec.conditions()}
    found = []
    for place, level in enumerate(rule.levels):
        machine = Machine() if alert is None else alert.machines[place]
        sides = _sides(device, rule, conditions[level.severity], time_us, evaluated_us)
        by_now = sides[0].parts[0].value
        last = next((event for event in reversed(events) if event.level == level.severity), None)
        is_quiet = alert is not None and alert.quiet
        last_known = moment(machine.known_at) if alert is not None else None
        since = {PENDING: machine.since, FIRING: machine.since, CLEARING: machine.clear_since}.get(machine.state, NEVER)
        outcomes = f"{machine.outcomes:0{level.mask.bit_length()}b}" if level.needed else ""
        found.append(
            Level(
                level.severity, sides, STATES[machine.state], moment(since), moment(machine.due), last_known, outcomes,
                reason.of_level(device, rule, level, machine, [side.at_evaluation for side in sides],
                                None if by_now is None else by_now != 0, is_quiet, last),
            )
        )  # fmt: skip
    return tuple(found)


def _sides(
    device: DeviceState, rule: CompiledRule, condition: Condition, time_us: int, evaluated_us: int
) -> tuple[Side, ...]:
    found = []
    for name in ("when", "clear"):
        text = getattr(condition, name)
        if text is not None:
            root = parse_expression(text)
            shown = tuple(
                Part(text_of(node), _ask(compile_value(node, rule.places), device, time_us)) for node in parts(root)
            )
            decided = None
            if evaluated_us != LONG_AGO:
                decided = _ask(compile_condition(root, rule.places), device, evaluated_us)
            found.append(Side(name, shown, decided))
    return tuple(found)


def _ask(function: Value, device: DeviceState, time_us: int) -> Any:
    """As Journal.ask, without counting what raises."""
    try:
        return function(device.values, device.times, time_us - device.type.rules.stale_us, time_us, device)
    except Exception:
        return None
