"""Energy is attributed to hours or to none, and nothing of it is lost, made up, or counted twice."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.kernel_energy import energy_tables
from fleet.energy import HOUR_US, Intervals, Meter, attribute, in_order, increases, intervals
from fleet.local_time import LocalTime
from fleet.meter import meter_of, phase_us
from fleet.spec_file import load_spec

SECOND, MINUTE = 1_000_000, 60_000_000
PLUG = Meter("energy", 1.0, 15 * MINUTE, 5 * SECOND, 4000.0)
"""4000 W: 66.7 Wh in the minute of slack."""
KWH = Meter("energy", 1000.0, 15 * MINUTE, 5 * SECOND, 50_000.0)
Told = tuple[dict[int, float], list[tuple[int, int, float, str]]]


def told(values: Sequence[tuple[float, float]], meter: Meter = PLUG, phase: int = 0) -> Told:
    """Of (second, counter): second at which an hour begins → Wh, and (from, to, Wh, reason) of what no hour has."""
    at = np.array([round(second * SECOND) for second, _ in values], np.int64)
    counter = np.array([value for _, value in values], float)
    zeros = np.zeros(len(at), np.int64)
    found, _ = intervals(in_order(zeros, at, counter, zeros + phase))
    shares, out = attribute(found, meter)
    hours: dict[int, float] = defaultdict(float)
    for hour, watt_hours in zip(shares.hour_us.tolist(), shares.watt_hours.tolist(), strict=True):
        hours[hour // SECOND] += watt_hours
    rows = zip(out.interval, out.watt_hours, out.reason, strict=True)
    return dict(hours), [
        (found.begin_us[i] // SECOND, found.end_us[i] // SECOND, watt_hours, reason) for i, watt_hours, reason in rows
    ]


CASES: dict[str, tuple[list[tuple[float, float]], dict[int, float], list[tuple[int, int, float, str]]]] = {
    "one value says nothing": ([(0, 100)], {}, []),
    "increases are summed": ([(0, 100), (5, 101), (10, 103)], {0: 3}, []),
    "nothing used is measured": ([(0, 100), (5, 100)], {0: 0}, []),
    "a reset counts from zero": ([(0, 100), (5, 103), (10, 2), (15, 3)], {0: 6}, []),
    "what ends with the hour is the hour's": ([(3595, 0), (3600, 5), (3605, 6)], {0: 5, 3600: 1}, []),
    "an hour is crossed in proportion": ([(3598, 0), (3603, 10)], {0: 4, 3600: 6}, []),
    "three cadences are still the pace": ([(3595, 0), (3610, 9)], {0: 3, 3600: 6}, []),
    "a silence over the end of an hour": ([(3590, 0), (3630, 8)], {}, [(3590, 3630, 8, "crossing")]),
    "the same within an hour": ([(90, 0), (130, 8)], {0: 8}, []),
    "a slow meter's pace": ([(2400, 0), (3000, 50), (3540, 100), (4140, 160)], {0: 106, 3600: 54}, []),
    "a quarter of an hour is no gap": ([(0, 0), (900, 90)], {0: 90}, []),
    "a gap is one row": ([(0, 0), (5, 1), (905.5, 90), (910, 91)], {0: 2}, [(5, 905, 89, "gap")]),
    "a gap of days": ([(0, 10), (200_000, 40), (200_005, 41)], {198_000: 1}, [(0, 200_000, 30, "gap")]),
    "a reset in a gap": ([(0, 500), (7200, 40)], {}, [(0, 7200, 40, "gap")]),
    "a gap without energy is no row": ([(0, 10), (7200, 10), (7205, 11)], {7200: 1}, []),
    "more than the appliance can": (
        [(0, 10), (5, 5010), (10, 5011)], {0: 1}, [(0, 5, 5000, "implausible")]
    ),
    "a jump back is a reset it cannot have": (
        [(0, 9000), (5, 8999), (10, 9000)], {0: 1}, [(0, 5, 8999, "implausible")]
    ),
    "more than it can in a gap": ([(0, 0), (3600, 9000)], {}, [(0, 3600, 9000, "implausible")]),
    "two values of one moment": ([(5, 12), (5, 11), (0, 10)], {0: 2}, []),
}  # fmt: skip


@pytest.mark.parametrize(("values", "hours", "unattributed"), CASES.values(), ids=CASES)
def test_attribution(values, hours, unattributed):
    found, out = told(values)
    assert found == pytest.approx(hours)
    assert out == [(begin, end, pytest.approx(watt_hours), reason) for begin, end, watt_hours, reason in unattributed]


def test_the_unit_is_the_counters():
    assert told([(0, 15230.412), (5, 15230.437)], KWH) == ({0: pytest.approx(25.0)}, [])


PHASES = [
    ("UTC", 0), ("Europe/Berlin", 0), ("Asia/Kolkata", 30), ("Asia/Kathmandu", 15), ("America/St_Johns", 30),
    ("Pacific/Chatham", 15), ("Australia/Eucla", 15),
]  # fmt: skip


@pytest.mark.parametrize(("zone", "minutes"), PHASES, ids=[zone for zone, _ in PHASES])
def test_local_hours_begin_at_this_minute_of_utc(zone, minutes):
    at_us, phase = 1_790_000_000 * SECOND, minutes * MINUTE
    local = LocalTime(zone)
    assert phase_us(local, at_us) == phase
    (hour,) = told([(1_790_000_000, 0), (1_790_000_001, 1)], phase=phase)[0]
    assert local.at(hour * SECOND).minute == 0


DST = [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)]


@pytest.mark.parametrize(("day", "hours"), DST, ids=["spring", "autumn", "summer"])
def test_a_local_day_has_as_many_hours_as_its_clocks_say(day, hours):
    """1 Wh a minute, all of it attributed."""
    berlin = LocalTime("Europe/Berlin")
    begin = np.datetime64(day, "s").astype(int) - 12 * 3600
    found, out = told([(begin + 60 * n, n) for n in range(48 * 60)], Meter("energy", 1.0, 15 * MINUTE, MINUTE))
    of_day = [wh for hour, wh in found.items() if f"{berlin.at(hour * SECOND):%Y-%m-%d}" == day]
    assert (len(of_day), sum(of_day), out) == (hours, pytest.approx(60.0 * hours), [])


counters = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 4 * 3600), st.integers(3590, 3610)),
        st.one_of(st.integers(0, 50), st.floats(0, 1e6, allow_nan=False)),
    ),
    max_size=40,
)


@given(counters)
def test_nothing_is_lost_and_nothing_is_negative(values):
    hours, out = told(values)
    ordered = [value for _, value in sorted(values)]
    total = sum(b - a if b >= a else b for a, b in pairwise(ordered))
    assert sum(hours.values()) + sum(row[2] for row in out) == pytest.approx(total, rel=1e-9, abs=1e-9)
    assert all(wh >= 0 for wh in hours.values())
    assert all(row[2] > 0 for row in out)


@given(counters)
def test_no_hour_has_more_than_the_appliance_can_use(values):
    hours, _ = told(values)
    intervals_of = 40  # each with its minute of slack
    assert all(wh <= 4000.0 * (1 + intervals_of / 60) for wh in hours.values())


@given(counters, st.randoms(use_true_random=False), st.data())
def test_order_and_duplicates_do_not_matter(values, random, data):
    again = [*values, *data.draw(st.lists(st.sampled_from(values), max_size=10) if values else st.just([]))]
    random.shuffle(again)
    assert told(again) == told(values)


@given(counters)
def test_folders_and_links_give_what_the_whole_gives(values):
    """Hour by hour through the kernel's function, and from last to first values between: the same as all at once."""
    values = sorted(values)
    by_hour: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for second, counter in values:
        by_hour[int(second // 3600)].append((second, counter))
    hours: dict[int, float] = defaultdict(float)
    out, before = [], None
    for _, of_hour in sorted(by_hour.items()):
        tables = of_folder(of_hour)
        for row in tables["energy"]:
            hours[row["hour"] // SECOND] += row["watt_hours"]
        out += [(r["begins"], r["ends"], r["watt_hours"], r["reason"]) for r in tables["unattributed"]]
        (ends,) = tables["ends"]
        if before:
            link = (before["last_at"], ends["first_at"], before["last"], ends["first"], before["pace_us"], 0)
            found = Intervals(*(np.array([one]) for one in link))
            shares, none = attribute(found, PLUG)
            for hour, watt_hours in zip(shares.hour_us, shares.watt_hours, strict=True):
                hours[hour // SECOND] += watt_hours
            rows = zip(none.watt_hours, none.reason, strict=True)
            out += [(before["last_at"], ends["first_at"], wh, reason) for wh, reason in rows]
        before = ends
    whole, whole_out = told(values)
    assert dict(hours) == pytest.approx(whole)
    assert sorted((a // SECOND, b // SECOND, wh, reason) for a, b, wh, reason in out) == sorted(whole_out)


def of_folder(values: Sequence[tuple[float, float]]) -> dict[str, list[dict[str, Any]]]:
    """Times in µs."""
    count = len(values)
    table = pa.table({
        "starts_at": pa.array([0] * count, pa.timestamp("us", tz="UTC")), "device_id": ["p"] * count,
        "site": ["s"] * count,
    })  # fmt: skip
    at = np.array([round(second * SECOND) for second, _ in values], np.int64)
    counter = np.array([value for _, value in values], float)
    found = energy_tables(
        PLUG, np.zeros(count, np.int64), at, counter, np.arange(count),
        lambda places, names: table.select(names).take(places), {},
    )  # fmt: skip
    return {name: _integers(table).to_pylist() for name, table in found.items()}


def _integers(table: pa.Table) -> pa.Table:
    for place, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(place, field.name, table[place].cast(pa.int64()))
    return table


def test_a_device_that_moves_has_its_energy_where_it_was_then():
    sites = ["a", "a", "b", "a"]
    table = pa.table({
        "starts_at": pa.array([0] * 4, pa.timestamp("us", tz="UTC")), "device_id": ["p"] * 4, "site": sites,
    })  # fmt: skip
    found = energy_tables(
        PLUG, np.zeros(4, np.int64), np.arange(4) * 5 * SECOND, np.array([0.0, 1, 3, 7]), np.arange(4),
        lambda places, names: table.select(names).take(places), {},
    )["energy"]  # fmt: skip
    assert sorted(zip(found["site"].to_pylist(), found["watt_hours"].to_pylist(), strict=True)) == [("a", 5), ("b", 2)]


def test_increases_are_vectors():
    assert increases(np.array([1.0, 5, 3]), np.array([4.0, 2, 3])).tolist() == [3, 2, 0]


SPEC = """\
type: meter
version: 1
system: demo
cadence: {cadence}
metrics:
  {metrics}
examples:
  good: [{{payload: {{device_id: b1, event_time: 1732985789000, values: {{x: 1}}}}, values: {{x: 1}}}}]
  bad: [{{payload: {{}}, reason: bad_id}}]
"""
WATT = "power: {unit: watt, range: [0, 2000]}"
METERS = {
    "watt-hours": ("5s", "energy: {unit: watt_hour, kind: counter}", Meter("energy", 1.0, 900 * SECOND, 5 * SECOND)),
    "kilowatt-hours and power": (
        "1m", f"{WATT}\n  used: {{unit: kilowatt_hour, kind: counter}}",
        Meter("used", 1000.0, 900 * SECOND, MINUTE, 2000.0),
    ),
    "a slow one": ("1h", "e: {unit: watt_hour, kind: counter}", Meter("e", 1.0, 3 * HOUR_US, HOUR_US)),
    "only changes": ("event", "e: {unit: watt_hour, kind: counter}", Meter("e", 1.0, 900 * SECOND, 0)),
    "a gauge of energy": ("5s", "e: {unit: watt_hour}", None),
    "a counter of something else": ("5s", "e: {unit: count, kind: counter}", None),
}  # fmt: skip


@pytest.mark.parametrize(("cadence", "metrics", "meter"), METERS.values(), ids=METERS)
def test_the_meter_is_in_the_spec(cadence, metrics, meter):
    text = SPEC.format(cadence=cadence, metrics=f"{metrics}\n  x: {{unit: count}}")
    assert meter_of(load_spec(text, "meter.yaml")) == meter
