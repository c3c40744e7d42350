"""Conditions over columns: for many readings at once, where a condition can be true.

The answer may say "can" too often, never too seldom: what can be true is evaluated by fleet.evaluation, exactly. So a
window's sum need not be correctly rounded here, but only lie between two bounds. A term is a pair of columns, the
lowest and the highest that its value can be: the same column where the value is exact, NaN where it is unknown. A truth
is a pair too: where it can be true, where it can be false; neither is Kleene's unknown, both is "not decided here".
Rounding is monotone, so that an operation on bounds bounds the rounded operation.
"""

from collections.abc import Callable
from datetime import timedelta
from functools import reduce
from typing import Any, NamedTuple, Protocol

import numpy as np

from fleet.evaluation import Places
from fleet.expression import Arithmetic, Call, Comparison, Logic, Name, Node, Number, Window
from fleet.rule import WINDOW_FUNCTIONS
from fleet.text import Bools, Doubles


class Term(NamedTuple):
    low: Doubles
    high: Doubles

    @property
    def exact(self) -> bool:
        return self.low is self.high


class Truth(NamedTuple):
    true: Bools
    false: Bools


class Readings(Protocol):
    """What conditions look at, a row a reading; at its event time, after it was taken. NaN: unknown."""

    memo: list[Any]

    def present(self, metric: int) -> Doubles: ...
    def previous(self, place: int) -> Doubles: ...
    def param(self, place: int) -> Doubles: ...
    def local(self, function: str) -> Doubles: ...
    def window(self, function: str, place: int, reach_us: int) -> Term: ...


Look = Callable[[Readings], Any]
"""Of one node: its Term, or its Truth."""


def exact(values: Any) -> Term:
    return Term(values, values)


class ColumnCompiler:
    """Of one type's rules: equal sub-expressions are computed once a batch, over all its conditions."""

    def __init__(self) -> None:
        self._known: dict[Any, Look] = {}
        self.size = 0
        """Of a batch's memo."""

    def condition(self, root: Node, places: Places) -> Callable[[Readings], Bools]:
        """Where it can be true. The tree has passed fleet.rule's checks, and looks at one device alone."""
        look = self._truth(root, places)
        return lambda readings: look(readings).true

    def _look(self, node: Node, places: Places) -> Look:
        key = (node, tuple(places.params.items()))
        if key not in self._known:
            place, found = self.size, self._write(node, places)
            place, self.size = self.size, self.size + 1

            def look(readings: Readings) -> Any:
                if readings.memo[place] is None:
                    readings.memo[place] = found(readings)
                return readings.memo[place]

            self._known[key] = look
        return self._known[key]

    def _term(self, node: Node, places: Places) -> Look:
        look = self._look(node, places)
        return (lambda readings: _number(look(readings))) if _is_truth(node) else look

    def _truth(self, node: Node, places: Places) -> Look:
        look = self._look(node, places)
        return look if _is_truth(node) else lambda readings: _compare(look(readings), "!=", exact(np.float64(0.0)))

    def _write(self, node: Node, places: Places) -> Look:
        match node:
            case Number():
                number = exact(np.float64(node.value))
                return lambda readings: number
            case Name():
                return self._name(node.name, places)
            case Arithmetic():
                operator, left, right = node.operator, self._term(node.left, places), self._term(node.right, places)
                return lambda readings: _arithmetic(left(readings), operator, right(readings))
            case Comparison():
                looks = [self._term(operand, places) for operand in node.operands]
                links = list(zip(looks, node.operators, looks[1:], strict=False))
                return lambda readings: _all([_compare(a(readings), o, b(readings)) for a, o, b in links])
            case Logic():
                operands = [self._truth(operand, places) for operand in node.operands]
                if node.operator == "not":
                    return lambda readings: Truth(*reversed(operands[0](readings)))
                join = _all if node.operator == "and" else _any
                return lambda readings: join([operand(readings) for operand in operands])
            case Call():
                return self._call(node, places)
        raise TypeError(f"{node} stands where no value can")

    def _name(self, name: str, places: Places) -> Look:
        if name in places.params:
            param = places.params[name]
            return lambda readings: exact(readings.param(param))
        metric = places.metrics[name]
        return lambda readings: exact(readings.present(metric))

    def _call(self, node: Call, places: Places) -> Look:
        function = node.function
        if function in ("min", "max", "abs"):
            terms = [self._term(argument, places) for argument in node.arguments]
            if function == "abs":
                return lambda readings: _absolute(terms[0](readings))
            pick = np.minimum if function == "min" else np.maximum
            return lambda readings: _extreme(pick, [term(readings) for term in terms])
        if function in ("local_hour", "local_weekday"):
            return lambda readings: exact(readings.local(function.removeprefix("local_")))
        first = node.arguments[0]
        assert isinstance(first, Name)  # fleet.rule checked it
        if function == "previous":
            present, place = self._look(first, places), places.previous[first.name]
            return lambda readings: exact(np.where(np.isnan(present(readings).low), np.nan, readings.previous(place)))
        length = node.arguments[1]
        assert function in WINDOW_FUNCTIONS and isinstance(length, Window)
        if function == "rate" and first.name in places.counters:
            function = "counter_rate"
        window, reach = places.windows[first.name], length.length // timedelta(microseconds=1)
        return lambda readings: readings.window(function, window, reach)


def _is_truth(node: Node) -> bool:
    return isinstance(node, Comparison | Logic)


def _number(truth: Truth) -> Term:
    """1 and 0."""
    unknown = ~(truth.true | truth.false)
    low = np.where(unknown, np.nan, np.where(truth.false, 0.0, 1.0))
    return Term(low, np.where(unknown, np.nan, np.where(truth.true, 1.0, 0.0)))


def _compare(a: Term, operator: str, b: Term) -> Truth:
    if operator in (">", ">="):
        a, b, operator = b, a, operator.replace(">", "<")
    if operator == "<":
        return Truth(a.low < b.high, a.high >= b.low)
    if operator == "<=":
        return Truth(a.low <= b.high, a.high > b.low)
    equal = (a.low <= b.high) & (b.low <= a.high)
    other = (a.low < b.high) | (a.high > b.low)
    return Truth(equal, other) if operator == "==" else Truth(other, equal)


def _all(truths: list[Truth]) -> Truth:
    return reduce(lambda a, b: Truth(a.true & b.true, a.false | b.false), truths)


def _any(truths: list[Truth]) -> Truth:
    return reduce(lambda a, b: Truth(a.true | b.true, a.false & b.false), truths)


OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide,
}  # fmt: skip


def _arithmetic(a: Term, operator: str, b: Term) -> Term:
    operation = OPERATIONS[operator]
    if a.exact and b.exact:
        result = operation(a.low, b.low)
        return exact(np.where(np.isfinite(result), result, np.nan))  # what overflowed is unknown; so is x / 0
    results = [operation(x, y) for x in a for y in b]
    unknown = np.isnan(a.low) | np.isnan(b.low)
    open_ = ~np.isfinite(reduce(np.add, results))  # an end that overflowed, or was open: anything can be
    if operator == "/":
        open_ = open_ | ((b.low <= 0.0) & (b.high >= 0.0))
    low, high = reduce(np.minimum, results), reduce(np.maximum, results)
    return _bounds(np.where(open_, -np.inf, low), np.where(open_, np.inf, high), unknown)


def _bounds(low: Doubles, high: Doubles, unknown: Bools) -> Term:
    return Term(np.where(unknown, np.nan, low), np.where(unknown, np.nan, high))


def _absolute(a: Term) -> Term:
    if a.exact:
        return exact(np.abs(a.low))
    low = np.where((a.low <= 0.0) & (a.high >= 0.0), 0.0, np.minimum(np.abs(a.low), np.abs(a.high)))
    return _bounds(low, np.maximum(np.abs(a.low), np.abs(a.high)), np.isnan(a.low))


def _extreme(pick: Any, terms: list[Term]) -> Term:
    if all(term.exact for term in terms):
        return exact(reduce(pick, [term.low for term in terms]))
    return Term(reduce(pick, [term.low for term in terms]), reduce(pick, [term.high for term in terms]))
