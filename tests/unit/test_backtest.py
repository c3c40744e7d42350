"""Rules on history: the live engine over arrivals, and what is said of what came of it."""

import pytest
import yaml

from fleet.backtest import Arrival, Coverage, Episode, Score, Truth, difference, episodes, score, transitions
from fleet.reading import Reading
from fleet.rule_test import inline_spec
from fleet.spec import RuledType

S = 1_000_000
T0 = 1_764_000_000 * S
RULES = """
type: probe
version: 1
system: lab
cadence: 10s
lateness: 0s
metrics:
  temperature: {unit: degC}
alerts:
  - {id: hot, when: "temperature > 30", severity: warning}
  - {id: silent, no_data: 1m, severity: info}
"""


def spec() -> RuledType:
    return inline_spec(yaml.safe_load(RULES))


def arrival(second: float, temperature: float, device: str = "d1", offset: int = 0) -> Arrival:
    at = T0 + round(second * S)
    return Arrival(Reading(device, "probe", "roof", at, {"temperature": temperature}), offset, at + S // 10)


def run(*arrivals: Arrival, until: float | None = None) -> list[Episode]:
    numbered = [a._replace(offset=n) for n, a in enumerate(arrivals)]
    return episodes(transitions(0, [spec()], [], numbered, None if until is None else T0 + round(until * S)))


def test_an_alert_from_its_start_to_its_end() -> None:
    (found,) = run(arrival(0, 20), arrival(10, 31), arrival(20, 32), arrival(30, 20))
    assert found == Episode("hot", "d1", "roof", "warning", T0 + 10 * S, T0 + 10 * S, T0 + 30 * S)


def test_one_that_is_active_at_the_end_has_none() -> None:
    (found,) = run(arrival(0, 31))
    assert found.ends_us is None


def test_silence_is_told_though_nothing_comes() -> None:
    assert [e.rule for e in run(arrival(0, 20), until=30)] == []
    (found,) = run(arrival(0, 20), until=90)
    assert (found.rule, found.fired_us) == ("silent", T0 + 60 * S)
    assert [e.rule for e in run(arrival(0, 20), arrival(200, 20))] == ["silent"], "before the reading that ends it"


def episode(begin: float, end: float | None, device: str = "d1", rule: str = "hot") -> Episode:
    at = T0 + round(begin * S)
    return Episode(rule, device, "roof", "warning", at, at, None if end is None else T0 + round(end * S))


def truth(begin: float, end: float, device: str = "d1", rule: str | None = None) -> Truth:
    return Truth(device, T0 + round(begin * S), T0 + round(end * S), rule and frozenset({rule}))


def test_scores() -> None:
    found = [episode(12, 20), episode(100, 101), episode(5, 6, "d2")]
    assert score(found, [truth(10, 20), truth(200, 300), truth(0, 50, "d2", "cold")]) == Score(1 / 3, 1 / 3, 2.0, 2.0)
    assert score([episode(0, None)], [truth(10, 20)]) == Score(1.0, 1.0, 0.0, 0.0)
    assert score([], [truth(10, 20)]) == Score(None, 0.0, None, None)
    assert score(found, []).recall is None


def test_the_first_to_tell_counts() -> None:
    assert score([episode(12, 13), episode(18, 19)], [truth(10, 20)]).median_latency == 2.0


def test_differences() -> None:
    first = [episode(0, 10), episode(50, 60), episode(0, None, "d2")]
    second = [episode(5, 20), episode(30, 40), episode(500, 600, "d2")]
    found = difference(first, second)
    assert (found.both, found.only_first, found.only_second) == (2, (first[1],), (second[1],))
    assert difference(first, first).both == 3


def test_coverage() -> None:
    found = Coverage(T0, T0 + 100 * S, allowed_us=20 * S)
    for second in (0, 10, 20, 15, 60, 90, 200):
        found.take("d1", T0 + second * S)
    assert found.shares() == {"d1": pytest.approx((10 + 10 + 20 + 20 + 10) / 100)}
