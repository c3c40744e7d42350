"""Where a rule's limits lie on a metric's axis, and which colours they give it."""

from math import inf

import pytest

from fleet.limit import limits_of
from fleet.metric_panel import axis, thresholds
from fleet.rule import Rule
from fleet.spec import Metric

CASES = {
    "above": ("t > 35", [(35, inf)]),
    "below": ("t < 20", [(-inf, 20)]),
    "the other way round": ("35 < t", [(35, inf)]),
    "param": ("t > limit", [(7, inf)]),
    "arithmetic of params": ("t > 2 * limit + 1", [(15, inf)]),
    "a negative number": ("t < -5", [(-inf, -5)]),
    "in a band": ("18 < t < 25", [(18, 25)]),
    "out of a band": ("t < 18 or t > 25", [(-inf, 18), (25, inf)]),
    "and narrows": ("t > 18 and t < 25", [(18, 25)]),
    "and of another metric": ("t > 35 and h < 20", [(35, inf)]),
    "never": ("t > 25 and t < 18", []),
    "a window on the same scale": ("avg(t, 5m) > 30", [(30, inf)]),
    "a window on another scale": ("sum(t, 5m) > 30", []),
    "a difference": ("t - previous(t) > 3", []),
    "another metric": ("h > 3", []),
    "not": ("not t > 3", []),
    "equality": ("t == 3", []),
    "another metric's value": ("t > h", []),
}


@pytest.mark.parametrize(("when", "expected"), CASES.values(), ids=list(CASES))
def test_limits(when: str, expected: list[tuple[float, float]]) -> None:
    found = limits_of(Rule(id="r", when=when, params={"limit": 7}), "t")
    assert [(limit.interval.low, limit.interval.high) for limit in found] == expected
    assert {limit.severity for limit in found} <= {"warning"}


def test_levels_have_their_own_and_silence_has_none() -> None:
    rule = Rule.model_validate({"id": "r", "levels": {"warning": {"when": "t > 5"}, "critical": {"when": "t > 9"}}})
    assert [(limit.severity, limit.interval.low) for limit in limits_of(rule, "t")] == [("warning", 5), ("critical", 9)]
    assert limits_of(Rule.model_validate({"id": "r", "no_data": "1m"}), "t") == []


@pytest.mark.parametrize(
    ("when", "low", "high"),
    [("n > 0", 1, inf), ("n >= 3", 3, inf), ("n < 3", -inf, 3), ("n <= 3", -inf, 4), ("n > 2.5", 3, inf)],
)
def test_of_whole_numbers_a_limit_is_exact(when: str, low: float, high: float) -> None:
    (limit,) = limits_of(Rule(id="r", when=when), "n", is_whole=True)
    assert (limit.interval.low, limit.interval.high) == (low, high)


def steps(rules: list[Rule], metric: Metric) -> list[tuple[float | None, str]]:
    limits = [limit for rule in rules for limit in limits_of(rule, "t")]
    return [(step["value"], step["color"]) for step in thresholds(limits, metric)["steps"]]


@pytest.mark.parametrize(
    ("rules", "metric", "expected"),
    [
        ([], {"unit": "degC"}, [(None, "transparent")]),
        ([("t > 35", "warning")], {"unit": "degC"}, [(None, "transparent"), (35, "orange")]),
        (
            [("t < 20", "critical")],
            {"unit": "percent", "range": [0, 100]},
            [(None, "purple"), (0, "red"), (20, "transparent"), (100, "purple")],
        ),
        (
            [("t > 5", "info"), ("t > 9", "critical"), ("t > 7", "warning")],
            {"unit": "count"},
            [(None, "transparent"), (5, "blue"), (7, "orange"), (9, "red")],
        ),
        ([("t > 9", "warning"), ("t > 5", "critical")], {"unit": "count"}, [(None, "transparent"), (5, "red")]),
    ],
    ids=["none", "one", "within a range", "each worse", "the worst wins"],
)
def test_colours(rules: list[tuple[str, str]], metric: dict[str, object], expected: list[object]) -> None:
    made = [Rule.model_validate({"id": "r", "when": when, "severity": severity}) for when, severity in rules]
    assert steps(made, Metric.model_validate(metric)) == expected


def test_an_axis_shows_the_limits_of_what_has_a_range() -> None:
    limits = limits_of(Rule(id="r", when="t > 35"), "t")
    assert axis(limits, Metric.model_validate({"unit": "degC", "range": [-40, 60]}))["axisSoftMax"] == 38.5
    assert axis(limits, Metric.model_validate({"unit": "percent", "range": [0, 100]}))["axisSoftMin"] == 0
    assert axis(limits, Metric.model_validate({"unit": "count"})) == {"axisSoftMin": 0}
