"""The condition language: what parses, into what tree, and where an error points."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.expression import (
    Arithmetic,
    Call,
    Comparison,
    ExpressionError,
    Logic,
    Name,
    Number,
    parse_expression,
    walk,
)

T, U = Name("t"), Name("u")


def above(operand, limit: float) -> Comparison:
    return Comparison((operand, Number(limit)), (">",))


PARSED = [
    ("t > 35", above(T, 35)),
    ("18 < t < 25", Comparison((Number(18), T, Number(25)), ("<", "<"))),
    ("t > 1 and u > 2 or not t", Logic("or", (Logic("and", (above(T, 1), above(U, 2))), Logic("not", (T,))))),
    ("not not t", Logic("not", (Logic("not", (T,)),))),
    ("not not not t", Logic("not", (T,))),
    ("not t > 1", Logic("not", (above(T, 1),))),
    ("t - 1 - u", Arithmetic("-", Arithmetic("-", T, Number(1)), U)),
    ("t + u * 2", Arithmetic("+", T, Arithmetic("*", U, Number(2)))),
    ("(t + u) * 2", Arithmetic("*", Arithmetic("+", T, U), Number(2))),
    ("-t", Arithmetic("-", Number(0), T)),
    ("--t", T),
    ("t == true", Comparison((T, Number(1)), ("==",))),
    ("1e3", Number(1000)),
    (".5", Number(0.5)),
    ("local_hour() < 6", Comparison((Call("local_hour", ()), Number(6)), ("<",))),
    ("site_last(room_node.co2)", Call("site_last", (Name("room_node.co2"),))),
]


@pytest.mark.parametrize(("text", "tree"), PARSED, ids=[p[0] for p in PARSED])
def test_parses(text: str, tree: object) -> None:
    assert parse_expression(text) == tree


REFUSED = [
    ("", 0), ("t >", 3), ("t > > 1", 4), ("(t", 2), ("t)", 1), ("t ! 1", 2), ("t; u", 1), ("f(t,)", 4), ("and t", 0),
    ("t.u.v > 1", 3), ("t = 1", 2), ("__import__('os')", 11), ("t[0]", 1), ("(" * 5000, 30),
    ("avg(t, 99999999999999d)", 7),
]  # fmt: skip


@pytest.mark.parametrize(("text", "column"), REFUSED, ids=[r[0][:12] or "empty" for r in REFUSED])
def test_refuses_and_points_at_the_place(text: str, column: int) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse_expression(text)
    assert caught.value.column == pytest.approx(column, abs=2)


@given(st.text(alphabet="tu01.<>=!()+-*/, andornotmsh", max_size=60))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        tree = parse_expression(text)
    except ExpressionError as error:
        assert 0 <= error.column <= len(text)
    else:
        assert next(walk(tree)) == tree
