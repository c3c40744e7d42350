"""Columns say of every record what the contract says of it, or leave it to the contract."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleet.catalog import Catalog, build_catalog
from fleet.columns import NO_SEQ, ColumnReader, Columns
from fleet.contract import Intake
from fleet.reading import Reading, decode_reading, encode_reading
from fleet.spec_file import load_spec

TOPIC = "readings.plant"
NOW_MS = 1_700_000_000_000


def spec(name: str, metrics: str, system: str = "plant", version: int = 3) -> Any:
    return load_spec(
        f"{{type: {name}, version: {version}, system: {system}, cadence: 2s, metrics: {{{metrics}}},"
        " examples: {good: [{payload: {}, values: {}}], bad: [{payload: 1, reason: wrong_type}]}}",
        f"{name}.yaml",
    )


PUMP = spec("pump", "pressure: {unit: hectopascal}, flow: {unit: metre_per_second}, class: {unit: count}")
VALVE = spec("valve", "open: {unit: bool}")
OTHER = spec("other", "open: {unit: bool}", "elsewhere")
ONE, TWO = build_catalog([PUMP, OTHER]), build_catalog([PUMP, VALVE, OTHER])


def compare(catalog: Catalog, values: list[bytes | None], append_ms: list[int]) -> tuple[list[Columns], list[int]]:
    found, left = ColumnReader(catalog, TOPIC).read(values, np.array(append_ms, np.int64))
    intake = Intake(catalog)
    places = sorted([*left.tolist(), *(int(row) for columns in found for row in columns.rows)])
    assert places == list(range(len(values))), "each record is in one place"
    for columns in found:
        assert len(columns) and columns.rows.tolist() == sorted(columns.rows.tolist())
        for at, row in enumerate(columns.rows.tolist()):
            reading = columns.reading(at)
            assert reading == decode_reading(values[row] or b"")
            assert reading == intake.read_record(TOPIC, values[row] or b"", append_ms[row])
            for metric, carried in columns.carried.items():
                assert bool(carried[at]) == (metric in reading.values)
                value = columns.values[metric][at]
                assert np.isnan(value) if reading.values.get(metric) is None else value == reading.values[metric]
    return found, left.tolist()


def reading(device: str = "p1", kind: str = "pump", **changes: Any) -> bytes:
    given = {"site": "s", "event_time_us": NOW_MS * 1000, "values": {"pressure": 1.5}, "seq": 1, "version": 3} | changes
    return encode_reading(Reading(device, kind, **given))


_metrics = st.dictionaries(
    st.sampled_from(["pressure", "flow", "class", "open"]),
    st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**20), 10**20).map(float),
)
_readings = st.builds(
    Reading,
    st.sampled_from(["p1", "p2", "Z:9.-_"]) | st.text(max_size=3),
    st.sampled_from(["pump", "valve", "other", "", "nonesuch"]),
    st.sampled_from(["s", "hall-2", ""]),
    st.integers(NOW_MS * 1000 - 10**12, NOW_MS * 1000 + 10**9) | st.integers(0, 10**18),
    _metrics,
    st.none() | st.integers(-(2**64), 2**64),
    st.integers(0, 4),
).map(encode_reading)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(["pump", "valve"]),
    lambda inner: st.dictionaries(
        st.sampled_from(
            ["device_id", "device_type", "site", "event_time", "values", "version", "seq", "pressure", "nothing", "x"]
        ),
        inner,
    ),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode())
_damaged = st.builds(
    lambda value, at, byte: value[: at % len(value)] + byte + value[at % len(value) + 1 :],
    _readings, st.integers(0, 300), st.sampled_from([b"", b"\n", b'"', b"}", b"9", b"\xff", b"{", b" ", b"e9"]),
)  # fmt: skip
_values = st.lists(_readings | _readings | _damaged | _json | st.none() | st.binary(max_size=20), max_size=30)


@given(st.sampled_from([ONE, TWO]), _values, st.integers(NOW_MS - 600_000, NOW_MS + 600_000))
@example(TWO, [b'{"device_type":"","nothing":1}', reading()], NOW_MS)
def test_any_records(catalog: Catalog, values: list[bytes | None], append_ms: int) -> None:
    compare(catalog, values, [append_ms] * len(values))


def test_good_readings_are_all_columns() -> None:
    chance = np.random.default_rng(5)
    values = [
        reading(f"p{chance.integers(40)}", values={"pressure": round(float(chance.normal()), 3), "flow": None}, seq=n)
        if n % 3
        else reading(
            f"v{chance.integers(40)}", "valve", values={"open": 1.0}, seq=None, event_time_us=NOW_MS * 1000 + n
        )
        for n in range(1_000)
    ]
    found, left = compare(TWO, values, [NOW_MS] * 1_000)
    assert left == []
    assert {c.type: len(c) for c in found} == {"pump": 666, "valve": 334}
    (pumps,) = (c for c in found if c.type == "pump")
    assert pumps.carried["flow"].all() and np.isnan(pumps.values["flow"]).all() and not pumps.carried["class"].any()
    (valves,) = (c for c in found if c.type == "valve")
    assert (valves.seqs == NO_SEQ).all()


ODD = {
    "junk": b"\xff junk",
    "null": None,
    "empty": b"",
    "two in one": reading() + b"," + reading(),
    "half": reading()[:-1],
    "unknown type": reading(kind="nonesuch"),
    "another topic's type": reading(kind="other", values={"open": 1.0}),
    "no type": reading().replace(b'"device_type":"pump",', b""),
    "two types": reading().replace(b'"seq":1', b'"device_type":"valve"'),
    "newer version": reading(version=4),
    "version 0": reading(version=0),
    "unknown metric": reading(values={"pressure": 1.0, "smell": 2.0}),
    "another type's metric": reading(values={"open": 1.0}),
    "no metric": reading(values={}),
    "unknown field": reading().replace(b'"seq":1', b'"seq":1,"colour":"red"'),
    "bad device": reading("a b"),
    "bad site": reading(site="s/1"),
    "the future": reading(event_time_us=(NOW_MS + 300_001) * 1000),
    "before 2000": reading(event_time_us=0),
    "beyond 2255": reading(event_time_us=2**53 + 1000),
    "seq null": reading().replace(b'"seq":1', b'"seq":null'),
    "seq too long": reading(seq=2**63),
    "value of text": reading().replace(b"1.5", b'"1.5"'),
    "value true": reading().replace(b"1.5", b"true"),
    "infinite": reading().replace(b"1.5", b"1e999"),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("catalog", [ONE, TWO], ids=["one type", "two types"])
def test_an_odd_record_is_left_and_its_neighbours_are_read(catalog: Catalog, odd: bytes | None) -> None:
    found, left = compare(catalog, [reading("p1"), odd, reading("p2")], [NOW_MS] * 3)
    assert left == [1]
    assert [c.rows.tolist() for c in found] == [[0, 2]]


FINE = {
    "just not the future": reading(event_time_us=(NOW_MS + 300_000) * 1000),
    "older version": reading(version=1),
    "whole numbers": reading(values={"pressure": 2.0}).replace(b"2.0", b"2"),
    "space": reading().replace(b",", b" ,\n "),
    "another order": b'{"values":{"pressure":1},"seq":-5,"version":1,"event_time":1700000000000.123,"site":"s",'
    b'"device_type":"pump","device_id":"p"}',
    "a metric twice": reading().replace(b"1.5}", b'1.5,"pressure":7}'),
    "escapes": reading().replace(b'"pressure"', b'"\\u0070ressure"'),
    "huge": reading(values={"pressure": 1.7976931348623157e308, "flow": -0.0, "class": 5e-324}),
}


@pytest.mark.parametrize("fine", FINE.values(), ids=FINE.keys())
def test_unusual_readings_are_columns_too(fine: bytes) -> None:
    found, left = compare(TWO, [fine], [NOW_MS])
    assert (len(found), left) == (1, [])


def test_times_are_exact_to_the_microsecond() -> None:
    chance = np.random.default_rng(6)
    times = chance.integers(946_684_800_000_000, NOW_MS * 1000, 5_000).tolist()
    found, left = compare(ONE, [reading(event_time_us=t, seq=None) for t in times], [NOW_MS] * len(times))
    assert left == []
    assert found[0].event_times_us.tolist() == times


def test_numbers_of_devices_stay_when_a_newer_catalog_takes_over() -> None:
    old = ColumnReader(ONE, TOPIC)
    old.read([reading("a"), reading("b")], np.full(2, NOW_MS))
    new = ColumnReader(TWO, TOPIC, old.devices, old.sites)
    values = [reading("c"), reading("b"), reading("a", "valve", values={"open": 0.0})]
    pumps, valves = new.read(values, np.full(3, NOW_MS))[0]
    assert (pumps.devices.tolist(), valves.devices.tolist()) == ([2, 1], [0])
    assert new.devices["pump"].names == ["a", "b", "c"]
    assert new.devices["valve"].names == ["a"]


def test_a_batch_of_nothing() -> None:
    found, left = ColumnReader(TWO, TOPIC).read([], np.empty(0, np.int64))
    assert (found, left.tolist()) == ([], [])


def test_msgspec_still_refuses_what_stands_for_not_carried() -> None:
    """NOT_CARRIED is infinity because no JSON number decodes to it."""
    for text in (b"1e309", b"-1e309", b"9" * 400):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(text, type=float)
