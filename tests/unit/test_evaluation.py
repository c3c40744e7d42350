"""Compiled conditions against a second, naive reading of the same trees."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.evaluation import Places, compared, compile_condition, compile_value
from fleet.expression import Arithmetic, Comparison, Logic, Name, Number, parse_expression, text_of

METRICS = {"a": 0, "b": 1, "c": 2}
PLACES = Places(METRICS)
STALE = 30


def evaluate(text: str, t: int = 0, times: tuple[int, ...] = (0, 0, 0), **values: float | None) -> bool | None:
    condition = compile_condition(parse_expression(text), PLACES)
    return condition([values.get(m) for m in METRICS], list(times), t - STALE, t, None)


TRUTHS = [
    ("a > 1", {"a": 2.0}, True), ("a > 1", {"a": 1.0}, False), ("a > 1", {}, None),
    ("18 < a < 25", {"a": 20.0}, True), ("18 < a < 25", {"a": 25.0}, False),
    ("1 < a < b", {"a": 0.0}, False), ("1 < a < b", {"a": 2.0}, None),
    ("a and b", {"a": 0.0}, False), ("a and b", {"a": 5.0}, None), ("a and b", {"a": 5.0, "b": -1.0}, True),
    ("a or b", {"a": 5.0}, True), ("a or b", {"a": 0.0}, None), ("a or b", {"a": 0.0, "b": 0.0}, False),
    ("not a", {"a": 0.0}, True), ("not a", {}, None), ("not not a", {"a": 3.0}, True),
    ("(a or b) == 1", {"a": 5.0, "b": 0.0}, True), ("(a > 1) + (b > 1) == 2", {"a": 2.0, "b": 2.0}, True),
    ("a / b > 0", {"a": 1.0, "b": 0.0}, None), ("a / b > 0 or a", {"a": 1.0, "b": 0.0}, True),
    ("a * a > 0", {"a": 1e200}, None), ("a - b == 0", {"a": 1e308, "b": -1e308}, None),
    ("a * 0 == 0", {"a": 1e308}, True), ("-a == 0", {"a": 0.0}, True),
    ("min(a, b) == 1", {"a": 1.0}, None), ("max(a, b, 3) == 3", {"a": 1.0, "b": 2.0}, True),
    ("min(a) == 1", {"a": 1.0}, True), ("(not not a) == 1", {"a": 5.0}, True),
    ("abs(a) == 2", {"a": -2.0}, True), ("abs(a) == 2", {}, None), ("true", {}, True), ("a == true", {"a": 1.0}, True),
    ("2", {}, True), ("a > 1 and a > 1", {"a": 2.0}, True), ("1 / 0 > 1 and a", {"a": 0.0}, False),
]  # fmt: skip


@pytest.mark.parametrize(("text", "values", "truth"), TRUTHS, ids=[f"{t[0]} {t[1]}" for t in TRUTHS])
def test_truth(text: str, values: dict[str, float | None], truth: bool | None) -> None:
    assert evaluate(text, **values) is truth


@pytest.mark.parametrize(("t", "truth"), [(0, True), (30, True), (31, None), (-5, True)])
def test_a_value_is_known_up_to_and_including_stale_after(t: int, truth: bool | None) -> None:
    assert evaluate("a > 0", t, a=1.0) is truth


def test_names_and_texts_never_reach_the_source() -> None:
    for text in ("a if 1 else 2", "a; b", "__import__", "a.__class__ > 1", "lambda"):
        with pytest.raises((ValueError, KeyError)):
            compile_condition(parse_expression(text), PLACES)


VALUE = [
    ("a > 35", "a"), ("35 < a", "a"), ("18 < a < 25", "a"), ("not a > 1", "a"), ("a - b > 3", "a - b"),
    ("1 > 0 and b > 0", "b"), ("avg(a, 5m) > 3", "avg(a, 5m)"), ("site_max(x.y) > 3", "site_max(x.y)"), ("a", "a"),
    ("local_hour() < 6 and a > 3", "a"), ("1 > 0", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), VALUE, ids=[v[0] for v in VALUE])
def test_the_value_of_a_title_is_what_the_condition_compares(text: str, value: str | None) -> None:
    found = compared(parse_expression(text), METRICS)
    assert (found and text_of(found)) == value


numbers = st.one_of(st.integers(-3, 3).map(float), st.sampled_from([1e200, 1e308, 0.5]))
leaves = st.one_of(numbers.map(abs).map(Number), st.sampled_from(list(METRICS)).map(Name))
trees = st.recursive(
    leaves,
    lambda below: st.one_of(
        st.builds(Arithmetic, st.sampled_from("+-*/"), below, below),
        st.builds(
            lambda pairs, last: Comparison((*(p[0] for p in pairs), last), tuple(p[1] for p in pairs)),
            st.lists(st.tuples(below, st.sampled_from(["<", "<=", ">", ">=", "==", "!="])), min_size=1, max_size=3),
            below,
        ),
        st.builds(lambda operands: Logic("and", tuple(operands)), st.lists(below, min_size=2, max_size=3)),
        st.builds(lambda operands: Logic("or", tuple(operands)), st.lists(below, min_size=2, max_size=3)),
        st.builds(lambda operand: Logic("not", (operand,)), below),
    ),
    max_leaves=8,
)


def naive(node, values):  # type: ignore[no-untyped-def]
    """The same by the book: unknown is None, each operator looks at its operands once."""
    if isinstance(node, Number):
        return node.value
    if isinstance(node, Name):
        return values[node.name]
    if isinstance(node, Arithmetic):
        left, right = naive(node.left, values), naive(node.right, values)
        if left is None or right is None:
            return None
        try:
            result = {"+": lambda: left + right, "-": lambda: left - right, "*": lambda: left * right,
                      "/": lambda: left / right}[node.operator]()  # fmt: skip
        except ZeroDivisionError:
            return None
        return result if math.isfinite(result) else None
    if isinstance(node, Comparison):
        terms = [naive(o, values) for o in node.operands]
        links = []
        for left, operator, right in zip(terms, node.operators, terms[1:], strict=False):
            if left is None or right is None:
                links.append(None)
            else:
                links.append({"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right,
                              "==": left == right, "!=": left != right}[operator])  # fmt: skip
        return False if False in links else None if None in links else True
    truths = [None if (v := naive(o, values)) is None else v != 0 for o in node.operands]
    if node.operator == "not":
        return None if truths[0] is None else not truths[0]
    decisive = node.operator == "or"
    return decisive if decisive in truths else None if None in truths else not decisive


@given(trees, st.tuples(*[st.one_of(st.none(), numbers)] * 3))
def test_compiled_trees_agree_with_the_naive_reading(tree: object, values: tuple[float | None, ...]) -> None:
    named = dict(zip(METRICS, values, strict=True))
    compiled = compile_value(tree, PLACES)  # type: ignore[arg-type]
    assert compiled(list(values), [0, 0, 0], -STALE, 0, None) == naive(tree, named)


@given(trees)
def test_text_of_a_tree_parses_to_the_same_tree(tree: object) -> None:
    text = text_of(tree)  # type: ignore[arg-type]
    values = {"a": 1.0, "b": -2.0, "c": 0.5}
    assert naive(parse_expression(text), values) == naive(tree, values)
