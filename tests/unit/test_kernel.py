"""The batch's kernel against the same definitions computed row by row in plain Python."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connections.lake import arrow_schema
from etl import kernel
from etl.kernel import Metric
from fleet.lake_layout import Grain, floor

METRICS = [
    Metric("a", gauge=True, low=-10.0, high=10.0, quarantines=True, change=6.0, within=30.0),
    Metric("b", gauge=True, low=-5.0, high=5.0, quarantines=False, change=5.0, within=1.0, stuck_after=3.0),
    Metric("c", gauge=False, low=-math.inf, high=math.inf, quarantines=False, silent_after=2.0),
]
SEEN = {("b", "d"): (-2.0, 1.5), ("a", "e"): (0.0, 5.0)}
"""Of some devices and metrics, on all days."""
T0 = datetime(2026, 11, 22, 23, 58, tzinfo=UTC)
SCHEMA = arrow_schema(
    {
        "device_id": "string", "site": "string", "event_time": "timestamp_us", "seq": "int64", "carried": "strings",
        **dict.fromkeys((m.name for m in METRICS), "double"), "kafka_topic": "string", "kafka_partition": "int32",
        "kafka_offset": "int64", "kafka_timestamp": "timestamp_ms", "spec_version": "int32",
    }
)  # fmt: skip
Row = dict[str, Any]


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def reading(offset: int, seconds: float = 0, **changes: Any) -> Row:
    row = {
        "device_id": "d", "site": "s", "event_time": at(seconds), "seq": None, "a": None, "b": None, "c": None,
        "kafka_topic": "t", "kafka_partition": 0, "kafka_offset": offset, "kafka_timestamp": T0, "spec_version": 1,
    } | changes  # fmt: skip
    return row | {"carried": row.get("carried", [m.name for m in METRICS if m.name in changes])}


def past_of(rows: list[Row], grain: Grain) -> kernel.Past:
    days = {floor(floor(row["event_time"], grain), "day") for row in rows}
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return {(*who, (day - epoch) // timedelta(microseconds=1)): seen for who, seen in SEEN.items() for day in days}


# In plain Python


def known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def position(row: Row) -> tuple:
    return row["event_time"], row["kafka_partition"], row["kafka_offset"]


def same_reading(row: Row) -> tuple:
    values = tuple(row[m.name] if known(row[m.name]) else None for m in METRICS) if row["seq"] is None else ()
    return row["device_id"], row["event_time"], row["seq"], frozenset(row["carried"]), values


def slowly(rows: list[Row], grain: Grain) -> dict[str, Any]:
    first: dict[tuple, Row] = {}
    for row in sorted(rows, key=lambda r: (r["kafka_timestamp"], r["kafka_partition"], r["kafka_offset"])):
        first.setdefault(same_reading(row), row)
    fresh = sorted(first.values(), key=position)
    counts: dict[datetime, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        count = counts[floor(row["event_time"], grain)]
        count["landed"] += 1
        count["spec_version"] = max(count["spec_version"], row["spec_version"])
    bad_values, bad_readings = [], []
    series: dict[tuple, list[tuple[Row, Metric, float]]] = defaultdict(list)
    for row in fresh:
        start = floor(row["event_time"], grain)
        values = {m: row[m.name] for m in METRICS if known(row[m.name])}
        bad = [m for m, value in values.items() if m.quarantines and not m.low <= value <= m.high]
        for m, value in values.items():
            counts[start][f"known:{m.name}"] += 1
            if m in bad:
                counts[start][f"bad:{m.name}"] += 1
                bad_values.append((row["kafka_partition"], row["kafka_offset"], m.name, value, m.low, m.high))
        if values and len(bad) == len(values):
            counts[start]["quarantined"] += 1
            bad_readings.append((row["kafka_partition"], row["kafka_offset"]))
        else:
            counts[start]["valid"] += 1
        for m, value in values.items():
            series[start, row["device_id"], m].append((row, m, value))
    for start, count in counts.items():
        count["duplicate"] = count["landed"] - count["valid"] - count["quarantined"]
        assert start == floor(start, grain)
    anomalies, buckets = [], defaultdict(list)
    for found in series.values():
        good = [(row, v) for row, m, v in found if m.gauge and not (m.quarantines and not m.low <= v <= m.high)]
        limits = limits_of([v for _, v in good])
        of_runs = {id(row): said for row, *said in changed_and_stuck(found[0][1], good)}
        seen_low, seen_high = SEEN.get((found[0][1].name, found[0][0]["device_id"]), (-math.inf, math.inf))
        before, was_seen = None, True
        for row, m, value in found:
            outside, kinds = not m.low <= value <= m.high, []
            if outside:
                kinds.append(("range", m.low - value if value < m.low else value - m.high, m.low, m.high))
            if m.gauge and not (outside and m.quarantines) and limits:
                median, sigma = limits
                z = (value - median) / sigma
                if abs(z) > kernel.Z_LIMIT:
                    edge = kernel.Z_LIMIT * sigma
                    kinds.append(("zscore", z, median - edge, median + edge))
            kinds += of_runs.get(id(row), [[]])[0]
            silence = 0 if before is None else (row["event_time"] - before).total_seconds()
            before = row["event_time"]
            if silence > m.silent_after:
                kinds.append(("missing", silence, 0, m.silent_after))
            if m.gauge and not (outside and m.quarantines):
                is_seen = seen_low <= value <= seen_high
                if was_seen and not is_seen:
                    distance = seen_low - value if value < seen_low else value - seen_high
                    kinds.append(("unseen", distance, seen_low, seen_high))
                was_seen = is_seen
            anomalies += [(row["kafka_partition"], row["kafka_offset"], m.name, value, *kind) for kind in kinds]
            if not (outside and m.quarantines):
                minute = row["event_time"].replace(second=0, microsecond=0)
                for name, bucket in (("1m", minute), ("1h", minute.replace(minute=0))):
                    key = (name, m.name, row["device_id"], row["site"], bucket)
                    buckets[key].append((value, bool(kinds)))
    rollups = {
        key: (
            len(found), statistics.fmean(v := [value for value, _ in found]), min(v), max(v),
            statistics.stdev(v) if len(v) > 1 else None, v[-1], sum(anomalous for _, anomalous in found),
        )
        for key, found in buckets.items()
    }  # fmt: skip
    return {
        "counts": {start: dict(count) for start, count in counts.items()}, "rollups": rollups,
        "anomalies": sorted(anomalies), "bad_values": sorted(bad_values), "bad_readings": sorted(bad_readings),
    }  # fmt: skip


def changed_and_stuck(m: Metric, good: list[tuple[Row, float]]) -> Iterator[tuple[Row, list[tuple]]]:
    run: list[tuple[Row, float]] = []
    before = None
    lengths = {}
    for row, value in good:
        run = [*run, (row, value)] if run and run[-1][1] == value else [(row, value)]
        for one, _ in run:
            lengths[id(one)] = run
    told = set()
    for row, value in good:
        kinds = []
        if before is not None:
            times = max(1.0, (row["event_time"] - before[0]["event_time"]).total_seconds() / m.within)
            if abs(value - before[1]) / times > m.change:
                edge = m.change * times
                kinds.append(("rate", abs(value - before[1]) / times, before[1] - edge, before[1] + edge))
        run = lengths[id(row)]
        lasted = (row["event_time"] - run[0][0]["event_time"]).total_seconds()
        if lasted > m.stuck_after and len(run) >= kernel.STUCK_VALUES and id(run[0][0]) not in told:
            told.add(id(run[0][0]))
            lasts = (run[-1][0]["event_time"] - run[0][0]["event_time"]).total_seconds()
            kinds.append(("stuck", lasts, value, value))
        yield row, kinds
        before = row, value


def limits_of(sample: list[float]) -> tuple[float, float] | None:
    """Median and sigma."""
    if len(sample) < kernel.MIN_VALUES:
        return None
    tail = max(1, math.floor(len(sample) * 0.02))
    most = sorted(sample)[tail:-tail]
    sigma = (most[-1] - most[0]) / (2 * statistics.NormalDist().inv_cdf(0.98))
    median = statistics.median(sample)
    sigma = sigma or statistics.fmean(abs(v - median) for v in sample) * kernel.MEAN_DEVIATION_TO_SIGMA
    return (median, sigma) if sigma > 0 else None


# Compared


def table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, SCHEMA)


def told(derived: Mapping[str, pa.Table]) -> dict[str, Any]:
    def rows(name: str, *columns: str) -> list[tuple]:
        return [tuple(row[c] for c in columns) for row in derived[name].to_pylist()]

    def place_and(*columns: str) -> tuple[str, ...]:
        return ("kafka_partition", "kafka_offset", *columns)

    counts = {row.pop("starts_at"): {k: v for k, v in row.items() if v} for row in derived["counts"].to_pylist()}
    key = ("grain", "metric", "device_id", "site", "bucket")
    figures = ("count", "mean", "min", "max", "stddev", "last", "anomalies")
    return {
        "counts": counts, "rollups": dict(zip(rows("rollups", *key), rows("rollups", *figures), strict=True)),
        "anomalies": sorted(rows("anomalies", *place_and("metric", "value", "kind", "score", "low", "high"))),
        "bad_values": sorted(rows("bad_values", *place_and("metric", "value", "low", "high"))),
        "bad_readings": sorted(rows("bad_readings", *place_and())),
    }  # fmt: skip


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    expected["counts"] = {s: {k: v for k, v in c.items() if v} for s, c in expected["counts"].items()}
    for name in ("counts", "bad_values", "bad_readings"):
        assert found[name] == expected[name]
    assert len(found["anomalies"]) == len(expected["anomalies"])
    for one, other in zip(found["anomalies"], expected["anomalies"], strict=True):
        assert one[:5] == other[:5]
        # A limit is a difference of larger numbers: near 0 it has their precision, not its own.
        assert one[5:] == pytest.approx(other[5:], abs=1e-6 * max(map(abs, other[5:])))
    assert found["rollups"].keys() == expected["rollups"].keys()
    for key, one in found["rollups"].items():
        count, mean, low, high, stddev, last, anomalies = expected["rollups"][key]
        assert (one[0], one[2], one[3], one[5], one[6]) == (count, low, high, last, anomalies), key
        assert one[1] == pytest.approx(mean, abs=1e-12)
        assert one[4] == (None if stddev is None else pytest.approx(stddev, rel=1e-6, abs=1e-9)), key


VALUES = st.one_of(
    st.none(),
    st.sampled_from([0.0, -0.0, 1.0, 4.0, 5.0, 10.0, 12.0, -12.0, math.nan, math.inf, -math.inf]),
    st.floats(-11, 11).map(lambda v: round(v, 2)),
)


@st.composite
def readings(draw: st.DrawFn) -> list[Row]:
    """Few devices, sites and times, so that rows meet in all of them; sometimes many of one device, for scores."""
    one = st.fixed_dictionaries(
        {
            "device_id": st.sampled_from("de"), "site": st.sampled_from(["s", "s", "t"]),
            "event_time": st.sampled_from([0, 0, 1, 59.5, 61, 119.999999, 120, 86_520]).map(at),
            "seq": st.sampled_from([None, None, 0, 1]), "a": VALUES, "b": VALUES, "c": VALUES,
            "carried": st.sampled_from([["a", "b"], ["b", "a"], ["a", "a", "b"], ["a"], []]),
            "kafka_partition": st.sampled_from([0, 1]), "kafka_timestamp": st.sampled_from([0, 1]).map(at),
            "spec_version": st.sampled_from([1, 2]),
        }
    )  # fmt: skip
    made = draw(st.lists(one, min_size=1, max_size=20))
    # Some alike, some all equal: with a deviation and without.
    steady = st.sampled_from([[5.0, 5.0, 5.5], [1.0, 1.1, 0.9, 1.2, 0.8], [2.0]])
    for device in draw(st.lists(st.sampled_from("de"), max_size=2, unique=True)):
        levels = draw(steady)
        n = draw(st.integers(18, 30))
        made += [
            reading(0, i / 4, device_id=device, a=levels[i % len(levels)], b=levels[-1], c=levels[i % len(levels)])
            for i in range(n)
        ]
    order = draw(st.permutations(range(len(made))))
    return [reading(0) | made[i] | {"kafka_offset": offset} for offset, i in enumerate(order)]


@given(readings(), st.sampled_from(["hour", "day", "month"]))
@settings(max_examples=100)
def test_as_computed_row_by_row(rows: list[Row], grain: Grain) -> None:
    assert_equal(told(kernel.derive(table(rows), METRICS, grain, past_of(rows, grain))), slowly(rows, grain))


def test_the_order_in_which_rows_come_changes_no_bit() -> None:
    rows = [
        reading(i, i % 900 / 7, device_id=f"d{i % 3}", site=f"s{i % 7 % 2}", a=math.sin(i) * 9.9, b=1 / (i + 1))
        for i in range(3000)
    ]
    one = kernel.derive(table(rows), METRICS, "hour")
    other = kernel.derive(table(rows[1::2] + rows[::2]), METRICS, "hour")
    apart = [kernel.derive(table([r for r in rows if r["device_id"] == f"d{d}"]), METRICS, "hour") for d in range(3)]
    for name in ("rollups", "anomalies", "bad_values", "bad_readings"):
        key = [
            (n, "ascending") for n in ("metric", "device_id", "site", "grain", "bucket") if n in one[name].column_names
        ]
        key = key if name == "rollups" else [("kafka_offset", "ascending")]
        assert one[name].sort_by(key).equals(other[name].sort_by(key))
        assert one[name].sort_by(key).equals(pa.concat_tables(t[name] for t in apart).sort_by(key))
    assert one["counts"].equals(other["counts"])


@pytest.mark.parametrize(
    ("one", "other", "copies"),
    [
        ({"a": 1.0}, {"a": 1.0}, 1),
        ({"a": 1.0}, {"a": 2.0}, 0),
        ({"a": 1.0, "seq": 7}, {"a": 2.0, "seq": 7}, 1),
        ({"a": 1.0, "seq": 7}, {"a": 1.0, "seq": 8}, 0),
        ({"a": 1.0, "seq": 0}, {"a": 1.0}, 0),
        ({"a": 1.0, "seq": 7}, {"b": 1.0, "seq": 7}, 0),
        ({"a": 1.0}, {"a": 1.0, "b": None}, 0),
        ({"a": 1.0, "carried": ["a", "b"]}, {"a": 1.0, "carried": ["b", "a"]}, 1),
        ({"a": 1.0, "b": None}, {"a": 1.0, "b": math.nan}, 1),
        ({"a": 0.0}, {"a": -0.0}, 1),
        ({"a": 1.0, "site": "s"}, {"a": 1.0, "site": "t"}, 1),
        ({"a": 1.0, "device_id": "d"}, {"a": 1.0, "device_id": "e"}, 0),
        ({"a": 1.0, "event_time": at(0)}, {"a": 1.0, "event_time": at(1e-6)}, 0),
    ],
)
def test_duplicates(one: Row, other: Row, copies: int) -> None:
    counts = kernel.derive(table([reading(0, **one), reading(1, **other)]), METRICS, "hour")["counts"].to_pylist()
    assert sum(row["duplicate"] for row in counts) == copies


@pytest.mark.parametrize(
    ("places", "stays"),
    [
        ([{"kafka_timestamp": at(1)}, {"kafka_timestamp": at(0)}], 1),
        ([{"kafka_partition": 1}, {"kafka_partition": 0}], 1),
        ([{"kafka_offset": 6}, {"kafka_offset": 5}, {"kafka_offset": 7}], 1),
        ([{"kafka_topic": "u"}, {"kafka_topic": "t"}], 1),
    ],
    ids=["append time", "partition", "offset", "topic"],
)
def test_the_first_copy_stays(places: list[Row], stays: int) -> None:
    rows = [reading(0, seq=1, a=float(i), **place) for i, place in enumerate(places)]
    rollups = kernel.derive(table(rows), METRICS, "hour")["rollups"].to_pylist()
    assert {row["last"] for row in rollups} == {float(stays)}


@pytest.mark.parametrize("value", [0.1, 1e16, -3.3e-300])
def test_equal_values_have_their_mean_and_deviate_by_nothing(value: float) -> None:
    rows = [reading(i, i, c=value) for i in range(7)]
    for row in kernel.derive(table(rows), METRICS, "day")["rollups"].to_pylist():
        assert (row["count"], row["mean"], row["stddev"]) == (7, value, 0.0)


def anomalies_of(rows: list[Row], kind: str) -> list[tuple[int, float]]:
    """(Kafka offset, score)"""
    found = told(kernel.derive(table(rows), METRICS, "day", past_of(rows, "day")))["anomalies"]
    return [(offset, score) for _, offset, _, _, name, score, _, _ in found if name == kind]


def test_a_gauge_may_change_more_over_a_longer_time() -> None:
    """`a` by 6 within 30 s: by 6 at once, by 12 in a minute."""
    rows = [reading(n, s, a=a) for n, (s, a) in enumerate([(0, 0.0), (1, 6.0), (2, -0.5), (62, 11.4 - 2), (63, 0.0)])]
    assert anomalies_of(rows, "rate") == [(2, 6.5), (4, pytest.approx(9.4))]


def test_what_stays_too_long_is_stuck_once_a_run() -> None:
    """`b` for more than 3 s, in three values or more."""
    steady = [(0, 1.0), (1, 1.0), (3, 1.0), (3.5, 1.0), (5, 1.0), (6, 2.0), (7, 1.0), (7.5, 1.0), (11, 1.0)]
    rows = [reading(n, seconds, b=b) for n, (seconds, b) in enumerate(steady)]
    assert anomalies_of(rows, "stuck") == [(3, 5.0), (8, 4.0)]
    assert anomalies_of([reading(0, 0, b=1.0), reading(1, 60, b=1.0)], "stuck") == []


def test_a_silence_is_told_at_its_end_and_of_each_metric() -> None:
    """`c` for more than 2 s, in one partition; a bad value of `a` is heard too."""
    seconds = [(0, 1.0), (2, 1.0), (4.5, None), (4.6, 1.0), (10, 1.0), (86_520, 1.0)]
    rows = [reading(n, s, c=c) for n, (s, c) in enumerate(seconds)]
    assert anomalies_of(rows, "missing") == [(3, 2.6), (4, pytest.approx(5.4))]


def test_a_run_of_values_that_the_days_before_did_not_have_is_told_once() -> None:
    """`b` of device d, from -2 to 1.5; of another device nothing is known."""
    rows = [reading(n, n, b=b) for n, b in enumerate([0.0, 2.0, 3.0, 1.5, -2.5, 2.5])]
    assert anomalies_of(rows, "unseen") == [(1, 0.5), (4, 0.5)]
    assert anomalies_of([row | {"device_id": "other"} for row in rows], "unseen") == []
