"""RULES §2, Conditions: the value of an expression at an evaluation time. True is 1.0, false 0.0, unknown None.

Nothing is kept between evaluations: each value is worked out anew from the list of all readings of a device.
"""

import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

from fleet.expression import Arithmetic, Call, Comparison, Logic, Name, Node, Number, Window, walk
from fleet.expression import parse_expression as parse
from fleet.reading import EPOCH
from fleet.rule import SITE_FUNCTIONS, Rule
from fleet.spec import DeviceType

parse_expression = cache(parse)
Value = float | None
Micros = int
"""A moment or a length in microseconds; moments count from the input's origin."""


def micros(length: timedelta) -> Micros:
    return length // timedelta(microseconds=1)


@dataclass
class Taken:
    """One reading that was not a duplicate. Values are None where unknown (null, NaN, infinite, outside the range)."""

    at: Micros
    values: dict[str, Value]
    seq: object
    in_order: bool
    in_windows: bool
    local_date: date | None = None
    """By its site's time zone when it was taken."""


@dataclass
class Device:
    """What is remembered of a device: every reading taken, its clock, its site."""

    id: str
    type: str
    site: str
    registered: Micros | None = None
    params: dict[str, float] = field(default_factory=dict)
    clock: Micros | None = None
    lag: Micros = 0
    taken: list[Taken] = field(default_factory=list)

    def in_order(self) -> list[Taken]:
        return [reading for reading in self.taken if reading.in_order]


@dataclass
class Moment:
    """Where an expression is evaluated: the rule of a device, the time, and the devices it may look at."""

    device: Device
    rule: Rule
    spec: DeviceType
    at: Micros
    devices: list[Device]
    specs: dict[str, DeviceType]
    zone: ZoneInfo


def used_metrics(rule: Rule, spec: DeviceType) -> set[str]:
    """The type's metrics that the rule names. §7: one named only inside a site function is not among them."""
    found = set()
    for _, condition in rule.conditions():
        for text in (condition.when, condition.clear):
            for node in walk(parse_expression(text)) if text else ():
                if isinstance(node, Name) and node.name in spec.metrics:
                    found.add(node.name)
    return found


def site_metrics(rule: Rule) -> set[str]:
    """`type.metric` of each site function of the rule."""
    found = set()
    for _, condition in rule.conditions():
        for text in (condition.when, condition.clear):
            for node in walk(parse_expression(text)) if text else ():
                if isinstance(node, Call) and node.function in SITE_FUNCTIONS:
                    found.add(node.arguments[0].name)
    return found


def read(value: object, metric: str, spec: DeviceType) -> Value:
    """§2 Present values: null, NaN and infinities are unknown; so is a value outside a range that is not `warn`."""
    if value is None:
        return None
    number = float(value)
    if not math.isfinite(number):
        return None
    known = spec.metrics[metric]
    if known.range and known.outside != "warn" and not known.range.low <= number <= known.range.high:
        return None
    return number


def carried(device: Device, metric: str) -> Taken | None:
    """The last in-order reading that carries the metric."""
    last = None
    for reading in device.in_order():
        if metric in reading.values:
            last = reading
    return last


def present(device: Device, metric: str, at: Micros, spec: DeviceType) -> Value:
    """§2 Present values: the last value carried, up to and including stale_after. §7: it may be later than `at`."""
    last = carried(device, metric)
    if last is None:
        return None
    stale_after = spec.stale_after
    if stale_after is None and spec.cadence != "event":
        stale_after = 3 * spec.cadence
    if stale_after is not None and at - last.at > micros(stale_after):
        return None
    return last.values[metric]


def window(device: Device, metric: str, at: Micros, length: Micros) -> list[tuple[Micros, float]]:
    """(event time, known value) in (at - length, at]. §7: equal event times stand in order of arrival."""
    found = [
        (reading.at, reading.values[metric])
        for reading in device.taken
        if reading.in_windows and at - length < reading.at <= at and reading.values.get(metric) is not None
    ]
    return sorted(found, key=lambda one: one[0])


def increases(values: list[float]) -> float:
    """§2 rate: the sum of increases, where a fall is a reset and counts from zero."""
    return math.fsum(b - a if b >= a else b for a, b in pairwise(values))


def over_window(function: str, metric: str, length: Micros, m: Moment) -> Value:
    """§2, first three rows of the table."""
    found = window(m.device, metric, m.at, length)
    values = [value for _, value in found]
    if function == "count":
        return float(len(values))
    if function in ("stddev", "delta", "rate") and len(values) < 2:
        return None
    if not values:
        return None
    if function == "sum":
        return math.fsum(values)
    if function == "avg":
        return math.fsum(values) / len(values)
    if function == "min_over":
        return min(values)
    if function == "max_over":
        return max(values)
    if function == "stddev":
        mean = math.fsum(values) / len(values)
        return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    if function == "delta":
        return values[-1] - values[0]
    seconds = (found[-1][0] - found[0][0]) / 1e6
    gained = increases(values) if m.spec.metrics[metric].kind == "counter" else values[-1] - values[0]
    return gained / seconds  # at zero distance a division by zero: unknown


def previous(metric: str, m: Moment) -> Value:
    """§2: the known value before the present one; unknown while that is. §7: it does not go stale by itself."""
    if present(m.device, metric, m.at, m.spec) is None:
        return None
    known = [r.values[metric] for r in m.device.in_order() if r.values.get(metric) is not None]
    return known[-2] if len(known) > 1 else None


def over_site(function: str, name: str, m: Moment) -> Value:
    """§2: over the known present values of the devices of that type at the same site. §7: those seen or registered."""
    type_name, metric = name.split(".")
    found = []
    for other in m.devices:
        if other.type == type_name and other.site == m.device.site:
            value = present(other, metric, m.at, m.specs[type_name])
            if value is not None:
                found.append((carried(other, metric).at, other.id, value))
    if not found:
        return None
    values = [value for _, _, value in found]
    if function == "site_last":
        return max(found)[2]
    if function == "site_min":
        return min(values)
    if function == "site_max":
        return max(values)
    total = math.fsum(values)
    return total if function == "site_sum" else total / len(values)


def local(at: Micros, zone: ZoneInfo) -> datetime:
    return (EPOCH + timedelta(microseconds=at)).astimezone(zone)


def running_total(metric: str, m: Moment, period: Callable[[date], object]) -> float:
    """§7 `today` and `this_month`: over in-order readings, from the last known value before the period began; 0 while
    there is none. A value belongs to the day that it had when it was taken, also where the zone changed since."""
    now = period(local(m.at, m.zone).date())
    known = [reading for reading in m.device.in_order() if reading.values.get(metric) is not None]
    since: list[float] = []
    for reading in reversed(known):
        same = period(reading.local_date) == now
        if same or since:
            since.insert(0, reading.values[metric])
        if not same:
            break
    return increases(since)


LINKS = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
SIGNS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def kleene_and(values: Iterable[bool | None]) -> bool | None:
    values = list(values)
    return False if False in values else None if None in values else True


def truth(value: Value) -> bool | None:
    """§2: a number is true if it is not 0."""
    return None if value is None else value != 0


def as_number(value: bool | None) -> Value:
    return None if value is None else float(value)


def evaluate(node: Node, m: Moment) -> Value:
    """§2: any arithmetic that fails (division by zero, overflow) is unknown."""
    try:
        value = _evaluate(node, m)
    except (ZeroDivisionError, OverflowError):
        return None
    return value if value is not None and math.isfinite(value) else None


def _evaluate(node: Node, m: Moment) -> Value:
    match node:
        case Number():
            return node.value
        case Name():
            if node.name in m.spec.metrics:
                return present(m.device, node.name, m.at, m.spec)
            return m.device.params.get(node.name, m.rule.params[node.name])  # §1 params
        case Arithmetic():
            left, right = evaluate(node.left, m), evaluate(node.right, m)
            return None if left is None or right is None else SIGNS[node.operator](left, right)
        case Comparison():
            values = [evaluate(operand, m) for operand in node.operands]
            links = zip(node.operators, values, values[1:], strict=False)
            return as_number(kleene_and(None if a is None or b is None else LINKS[op](a, b) for op, a, b in links))
        case Logic():
            truths = [truth(evaluate(operand, m)) for operand in node.operands]
            if node.operator == "and":
                return as_number(kleene_and(truths))
            negated = [None if one is None else not one for one in truths]
            if node.operator == "not":
                return as_number(negated[0])
            neither = kleene_and(negated)  # a or b = not (not a and not b)
            return as_number(None if neither is None else not neither)
        case Call():
            return _call(node, m)
    raise TypeError(node)


def _call(node: Call, m: Moment) -> Value:
    if node.function in ("abs", "min", "max"):
        values = [evaluate(argument, m) for argument in node.arguments]
        if None in values:  # §7: min and max with an unknown are unknown
            return None
        return abs(values[0]) if node.function == "abs" else {"min": min, "max": max}[node.function](values)
    if node.function == "local_hour":
        return float(local(m.at, m.zone).hour)
    if node.function == "local_weekday":
        return float(local(m.at, m.zone).weekday())
    metric = node.arguments[0].name
    if node.function in SITE_FUNCTIONS:
        return over_site(node.function, metric, m)
    if node.function == "previous":
        return previous(metric, m)
    if node.function == "today":
        return running_total(metric, m, lambda day: day)
    if node.function == "this_month":
        return running_total(metric, m, lambda day: (day.year, day.month))
    length = node.arguments[1]
    assert isinstance(length, Window)
    return over_window(node.function, metric, micros(length.length), m)


def condition(text: str, m: Moment) -> bool | None:
    return truth(evaluate(parse_expression(text), m))
