"""The simulated room behaves like the recorded one: people drive what the nodes sense."""

from collections import defaultdict
from statistics import mean, pstdev

import pytest

from fleet.catalog import load_catalog
from fleet.errors import ConfigurationError
from fleet.settings import CHECKOUT
from simulators.room import MESSAGES_A_ROUND
from simulators.simulation import plan_parts, simulated_readings, simulated_types

CATALOG = load_catalog(CHECKOUT / "fleet" / "types")
DAYS = 5
ROUND = 30_000_000


@pytest.fixture(scope="module")
def rounds():
    """A dict (device, metric) → value for each 30 s of five days."""
    parts = plan_parts(simulated_types(CATALOG, "occupancy"))
    found = defaultdict(dict)
    for r in simulated_readings(parts, first_us=0, end_us=DAYS * 86_400_000_000, seed=7):
        ((metric, value),) = r.values.items()
        assert (r.device_id, metric) not in found[r.event_time_us]
        found[r.event_time_us][r.device_id, metric] = value
    return found


def test_every_node_speaks_every_30_s(rounds):
    assert list(rounds) == [n * ROUND for n in range(DAYS * 2880)]
    for senses in rounds.values():
        assert len(senses) == MESSAGES_A_ROUND
    assert set(rounds[0]) == {
        *((f"s{n}", m) for n in (1, 2, 3, 4) for m in ("temperature", "light", "sound")),
        ("s5", "co2"), ("s5", "co2_slope"), ("s6", "pir"), ("s7", "pir"), ("edge", "occupancy"),
    }  # fmt: skip


def by_people(rounds, key):
    found = defaultdict(list)
    for senses in rounds.values():
        found[senses["edge", "occupancy"]].append(senses[key])
    return found


def test_people_come_and_go(rounds):
    people = [s["edge", "occupancy"] for s in rounds.values()]
    assert set(people) == {0, 1, 2, 3}
    assert 0.45 < people.count(0) / len(people) < 0.9  # 0.81 in the recording
    assert people[0] == 1


@pytest.mark.parametrize(
    "key", [("s5", "co2"), ("s2", "sound"), ("s3", "sound"), ("s2", "temperature"), ("s7", "pir"), ("s1", "light")]
)
def test_three_people_are_felt(rounds, key):
    found = by_people(rounds, key)
    assert mean(found[3]) > mean(found[0]) + pstdev(found[0])


def test_co2_as_recorded(rounds):
    """Recorded: 345 to 1,270 ppm, in steps of 5; slope -6.3 to 9.0 ppm a sample."""
    ppm = [s["s5", "co2"] for s in rounds.values()]
    assert 340 < min(ppm) < 420 and 800 < max(ppm) < 1350
    assert {p % 5 for p in ppm} == {0}
    slopes = [s["s5", "co2_slope"] for s in rounds.values()]
    assert -10 < min(slopes) < -1 and 2 < max(slopes) < 10


def test_the_slope_is_that_of_the_last_25_samples(rounds):
    times = list(rounds)[1000:1025]
    ppm = [rounds[t]["s5", "co2"] for t in times]
    slope = sum((x - 12) * y for x, y in enumerate(ppm)) / sum((x - 12) ** 2 for x in range(25))
    assert rounds[times[-1]]["s5", "co2_slope"] == pytest.approx(slope)


def test_an_empty_room_is_quiet(rounds):
    assert mean(by_people(rounds, ("s1", "sound"))[0]) < 0.1
    assert mean(by_people(rounds, ("s6", "pir"))[0]) < 0.01


def test_the_room_has_seven_nodes():
    parts = plan_parts(simulated_types(CATALOG, "occupancy"), devices=8)
    with pytest.raises(ConfigurationError, match="7 devices"):
        next(iter(simulated_readings(parts, first_us=0, end_us=None, seed=1)))
