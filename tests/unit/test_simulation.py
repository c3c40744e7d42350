"""Simulated readings: the same for a seed, as many as asked, inside what the sensors can say."""

from collections import Counter
from datetime import timedelta
from itertools import islice, pairwise

import pytest

from fleet.catalog import build_catalog, load_catalog
from fleet.errors import ConfigurationError
from fleet.reading import Reading
from fleet.settings import CHECKOUT
from fleet.spec_file import load_spec
from simulators.independent import independent_readings
from simulators.simulation import plan_parts, simulated_readings, simulated_types
from weir.types import TEMPLATE

CATALOG = load_catalog(CHECKOUT / "fleet" / "types")
SECOND = 1_000_000
START = 1_732_985_789_000_000
SHAPES = """\
type: meter
version: 1
system: lab
cadence: event
metrics:
  power: {unit: watt, range: [-5, 5], simulate: {shape: walk, range: [-1, 1], step: 0.4}}
  energy: {unit: watt_hour, kind: counter, range: [0, 1000], simulate: {shape: counter, range: [0, 20], step: 3}}
  door: {unit: bool, kind: state}
  motion: {unit: bool, kind: state, simulate: {shape: binary, p: 0.25}}
  level: {unit: percent}
simulation: {devices: 2}
examples:
  good: [{payload: {device_id: d1, event_time: 1732985789000, values: {power: 1}}, values: {power: 1}}]
  bad: [{payload: {}, reason: missing_field}]
"""


def readings(name: str, seconds: int = 60, seed: int = 7, first_us: int = START, **plan: object) -> list[Reading]:
    parts = plan_parts(simulated_types(CATALOG, name), **plan)
    return list(simulated_readings(parts, first_us=first_us, end_us=first_us + seconds * SECOND, seed=seed))


SIMULATED = [t for t in CATALOG if t.simulation]


@pytest.mark.parametrize("name", [t.type for t in SIMULATED] + sorted({t.system for t in SIMULATED}))
def test_a_seed_gives_the_same_readings_whenever_it_is(name):
    def said(first_us: int, seed: int) -> list[tuple[object, ...]]:
        return [
            (r.device_id, r.event_time_us - first_us, r.values) for r in readings(name, 300, seed, first_us)
        ]  # fmt: skip

    assert said(START, 7) == said(START + 86_400 * SECOND + 1000, 7)
    assert said(START, 7) != said(START, 8)


def test_weather_as_ordered():
    """`--devices 100 --rate 50 --duration 60`"""
    found = readings("weather", devices=100, rate=50)
    assert len(found) == 3000
    assert Counter(r.device_id for r in found) == {str(n): 30 for n in range(1, 101)}
    assert {b.event_time_us - a.event_time_us for a, b in pairwise(found)} == {20_000}
    assert {r.site for r in found} == {"field"}
    one = [r.event_time_us for r in found if r.device_id == "42"]
    assert {b - a for a, b in pairwise(one)} == {2 * SECOND}


@pytest.mark.parametrize("spec", SIMULATED, ids=lambda spec: spec.type)
def test_values_are_what_the_sensor_can_say(spec):
    for reading in readings(spec.type, 7200 if spec.cadence > timedelta(seconds=10) else 60):
        for metric, value in reading.values.items():
            span = (spec.metrics[metric].simulate and spec.metrics[metric].simulate.range) or spec.metrics[metric].range
            assert span.low <= value <= span.high


@pytest.mark.parametrize("rate", [0.5, 7, 5000])
def test_the_rate_is_the_rate(rate):
    assert len(readings("weather", seconds=10, rate=rate)) == pytest.approx(10 * rate, abs=1)


def test_times_of_one_device_are_never_the_same():
    found = readings("weather", seconds=1, devices=3, rate=2900)
    assert len({(r.device_id, r.event_time_us) for r in found}) == len(found)
    with pytest.raises(ConfigurationError, match="once a millisecond"):
        readings("weather", devices=3, rate=3100)


def test_seq_counts_per_device():
    parts = plan_parts(simulated_types(CATALOG, "weather"), devices=3)
    found = list(islice(simulated_readings(parts, first_us=0, end_us=None, seed=1, with_seq=True), 9))
    assert [(r.device_id, r.seq) for r in found] == [(str(d), n) for n in (1, 2, 3) for d in (1, 2, 3)]


def test_shapes():
    spec = load_spec(SHAPES, "meter.yaml")
    stream = independent_readings(
        spec, site="s", devices=2, cadence=timedelta(seconds=5), first_us=0, seed=3
    )  # fmt: skip
    last: dict[str, dict[str, float]] = {}
    seen: dict[str, list[float]] = {metric: [] for metric in spec.metrics}
    for reading in islice(stream, 4000):
        before = last.setdefault(reading.device_id, {})
        for metric, value in reading.values.items():
            assert before.get(metric) != value, "a device that reports changes repeats itself"
            if metric == "power" and metric in before:
                assert abs(value - before[metric]) <= 0.4 + 0.005
            if metric == "energy" and metric in before:
                assert 0 < value - before[metric] <= 3.005 or value == 0
            seen[metric].append(value)
        before.update(reading.values)
    assert -1 <= min(seen["power"]) < -0.9 < 0.9 < max(seen["power"]) <= 1
    assert max(seen["energy"]) <= 20 and 0 in seen["energy"]
    assert set(seen["door"]) == set(seen["motion"]) == {0.0, 1.0}
    assert min(seen["level"]) >= 0 and max(seen["level"]) <= 1


REFUSED = [
    ({"devices": 0}, "--devices 0"),
    ({"rate": 0}, "--rate 0"),
    ({"site": "no/slash"}, "--site"),
]


@pytest.mark.parametrize(("plan", "match"), REFUSED, ids=[r[1] for r in REFUSED])
def test_refused(plan, match):
    with pytest.raises(ConfigurationError, match=match):
        readings("weather", **plan)


def test_names():
    with pytest.raises(ConfigurationError, match="did you mean 'weather'"):
        simulated_types(CATALOG, "wether")
    still = load_spec(SHAPES.replace("simulation: {devices: 2}\n", ""), "meter.yaml")
    with pytest.raises(ConfigurationError, match="simulation:"):
        simulated_types(build_catalog([still]), "lab")


def test_several_types_come_by_time():
    other = load_spec(TEMPLATE.format(name="roof_sensor", system="lab", title="Roof"), "roof_sensor.yaml")
    meter = load_spec(SHAPES, "meter.yaml")
    types = simulated_types(build_catalog([other, meter]), "lab")
    found = list(islice(simulated_readings(plan_parts(types), first_us=0, end_us=None, seed=1), 200))
    assert [r.event_time_us for r in found] == sorted(r.event_time_us for r in found)
    assert {r.device_type for r in found} == {"meter", "roof_sensor"}
    with pytest.raises(ConfigurationError, match="one type"):
        plan_parts(types, devices=3)
