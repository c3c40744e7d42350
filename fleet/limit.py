"""Which values of a metric breach a rule, as far as its conditions say so plainly: `temperature > 35` does, and so does
`avg(temperature, 5m) > limit`; of `temperature > previous(temperature)` no value can be told. For people to look at:
what a rule does is settled by `fleet.evaluation` alone."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

from fleet.expression import Arithmetic, Call, Comparison, Logic, Name, Node, Number, parse_expression
from fleet.rule import Rule, Severity

ON_THE_SCALE = ("avg", "min_over", "max_over", "previous")
"""Functions whose values can be read off the metric's own axis."""
MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True)
class Interval:
    """Values between the two, which are infinite where there is no bound."""

    low: float = -math.inf
    high: float = math.inf

    def __and__(self, other: "Interval") -> "Interval":
        return Interval(max(self.low, other.low), min(self.high, other.high))


@dataclass(frozen=True)
class Limit:
    """Values of `interval` breach, with this severity, as the condition `when` has it."""

    interval: Interval
    severity: Severity
    when: str


def limits_of(rule: Rule, metric: str, is_whole: bool = False) -> list[Limit]:
    """By the rule's own params; a device's may differ. Empty where the rule says nothing of the metric's values.

    An interval has its lower bound and not its upper one, as colours on an axis have; of a metric that is whole
    (`is_whole`) that is exact: `> 0` begins at 1."""
    found = []
    for path, condition in rule.conditions():
        severity = path.removeprefix("levels.") or rule.severity or "warning"
        if condition.when is None:
            continue
        for interval in _breaches(parse_expression(condition.when), _Axis(metric, rule.params, is_whole)):
            if interval.low < interval.high:
                found.append(Limit(interval, severity, condition.when))  # type: ignore[arg-type]
    return found


class _Axis(NamedTuple):
    metric: str
    params: Mapping[str, float]
    is_whole: bool


def _breaches(node: Node, axis: _Axis) -> list[Interval]:
    """Empty where the condition says nothing of the metric, and under `not`."""
    if isinstance(node, Comparison):
        links = zip(node.operands, node.operators, node.operands[1:], strict=False)
        told = [interval for link in links if (interval := _link(*link, axis))]
        return [reduce(Interval.__and__, told)] if told else []
    if not isinstance(node, Logic) or node.operator == "not":
        return []
    parts = [found for operand in node.operands if (found := _breaches(operand, axis))]
    if node.operator == "or" or not parts:
        return [interval for part in parts for interval in part]
    return reduce(lambda some, others: [one & other for one in some for other in others], parts)


def _link(left: Node, operator: str, right: Node, axis: _Axis) -> Interval | None:
    if operator not in MIRRORED:
        return None
    if _is_on_the_scale(right, axis.metric):
        left, operator, right = right, MIRRORED[operator], left
    value = _constant(right, axis.params)
    if value is None or not _is_on_the_scale(left, axis.metric):
        return None
    if axis.is_whole and operator in (">", "<="):
        value = math.floor(value) + 1
    return Interval(low=value) if operator in (">", ">=") else Interval(high=value)


def _is_on_the_scale(node: Node, metric: str) -> bool:
    if isinstance(node, Call) and node.function in ON_THE_SCALE:
        node = node.arguments[0]
    return isinstance(node, Name) and node.name == metric


def _constant(node: Node, params: Mapping[str, float]) -> float | None:
    if isinstance(node, Number):
        return node.value
    if isinstance(node, Name):
        return params.get(node.name)
    if isinstance(node, Arithmetic):
        left, right = _constant(node.left, params), _constant(node.right, params)
        if left is None or right is None or (node.operator == "/" and not right):
            return None
        return {"+": left + right, "-": left - right, "*": left * right, "/": left / (right or 1)}[node.operator]
    return None
