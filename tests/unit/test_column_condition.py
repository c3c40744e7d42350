"""Where a condition can be true, over columns whose values are known only between two bounds."""

from typing import Any

import numpy as np
import pytest

from fleet.column_condition import ColumnCompiler, Term, exact
from fleet.evaluation import Places
from fleet.expression import parse_expression

PLACES = Places(metrics={"x": 0, "y": 1}, windows={"x": 0})
NAN = float("nan")


class One:
    """A reading with x = 5, y unknown, and an average of x between 2.9 and 3.1."""

    memo: list[Any]

    def present(self, metric: int) -> Any:
        return np.array([[5.0], [NAN]][metric])

    def window(self, function: str, place: int, reach_us: int) -> Term:
        return Term(np.array([2.9]), np.array([3.1])) if function == "avg" else exact(np.array([4.0]))


@pytest.mark.parametrize(
    ("text", "can_be"),
    [
        ("avg(x, 5s) > 3", True), ("not (avg(x, 5s) > 3)", True), ("avg(x, 5s) < 3", True), ("3 <= avg(x, 5s)", True),
        ("avg(x, 5s) > 3.1", False), ("avg(x, 5s) >= 3.1", True), ("avg(x, 5s) < 2.9", False),
        ("avg(x, 5s) == 3", True), ("avg(x, 5s) != 3", True), ("avg(x, 5s) == 4", False),
        ("abs(avg(x, 5s) - 3) > 0.05", True), ("abs(avg(x, 5s) - 3) > 0.2", False), ("0 - avg(x, 5s) > -3", True),
        ("10 / avg(x, 5s) > 3.4", True), ("10 / avg(x, 5s) > 3.5", False), ("1 / (avg(x, 5s) - 3) > 1e9", True),
        ("avg(x, 5s) * -1 > -2.95", True), ("max(avg(x, 5s), 3.05) > 3.06", True), ("min(avg(x, 5s), 2) > 2", False),
        ("sum(x, 5s) == 4", True), ("not (sum(x, 5s) == 4)", False), ("x > 4", True), ("x > 5", False),
        ("y > 0", False), ("not (y > 0)", False), ("y > 0 or x > 4", True), ("y > 0 and avg(x, 5s) > 3", False),
        ("x / 0 > 0", False), ("(avg(x, 5s) > 3) + 1 > 1.5", True), ("(x > 5) + 1 > 1.5", False),
    ],
)  # fmt: skip
def test_can_be_true(text: str, can_be: bool) -> None:
    compiler, reading = ColumnCompiler(), One()
    condition = compiler.condition(parse_expression(text), PLACES)
    reading.memo = [None] * compiler.size
    with np.errstate(all="ignore"):
        assert bool(np.broadcast_to(condition(reading), 1)[0]) is can_be  # type: ignore[arg-type]
