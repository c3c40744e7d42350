"""Columns say of every record what the contract says of it, or leave it to the contract."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleet import columns as columns_module
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


def read(reader: ColumnReader, values: list[bytes | None], append_ms: list[int]) -> tuple[list[Columns], Any]:
    """As they stand in a buffer, with something between them."""
    gap = b'\x06\x00"'
    lengths = np.array([-1 if value is None else len(value) for value in values], np.int64)
    starts = np.cumsum(np.maximum(lengths, 0) + len(gap)) - np.maximum(lengths, 0)
    return reader.read(
        b"".join(gap + (value or b"") for value in values), starts, lengths, np.array(append_ms, np.int64)
    )


def compare(
    catalog: Catalog, values: list[bytes | None], append_ms: list[int], reader: ColumnReader | None = None
) -> tuple[list[Columns], list[int]]:
    """By layout and one by one: both are what the contract says, and leave the same to it."""
    by_layout, left = _compare(catalog, values, append_ms, 1, reader)
    _, also_left = _compare(catalog, values, append_ms, 1 << 30, None)
    assert left == also_left
    return by_layout, left


def _compare(
    catalog: Catalog, values: list[bytes | None], append_ms: list[int], few: int, reader: ColumnReader | None
) -> tuple[list[Columns], list[int]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns_module, "FEW", few)
        found, left = read(reader or ColumnReader(catalog, TOPIC), values, append_ms)
    intake = Intake(catalog)
    places = sorted([*left.tolist(), *(int(row) for columns in found for row in columns.rows)])
    assert places == list(range(len(values))), "each record is in one place"
    for columns in found:
        assert len(columns) and columns.rows.tolist() == sorted(columns.rows.tolist())
        for at, row in enumerate(columns.rows.tolist()):
            reading = decode_reading(values[row] or b"")
            assert columns.reading(at) == reading
            assert reading == intake.read_record(TOPIC, values[row] or b"", append_ms[row])
            for metric, carried in columns.carried.items():
                assert bool(carried[at]) == (metric in reading.values)
                value, expected = columns.values[metric][at], reading.values.get(metric)
                assert np.isnan(value) if expected is None else (value, np.signbit(value)) == (
                    expected, np.signbit(expected),
                )  # fmt: skip
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
_long = b'"' + b"d" * 64
_texts: dict[str, tuple[bytes, list[bytes]]] = {
    "device_id": (b'"p"', [b'"a\\u0062"', b'"\xc3\xa9"', _long + b'"', _long + b'd"', b'""', b'"a\0"', b"7"]),
    "event_time": (
        b"1700000000000",
        [b"1.7e12", b"1700000000000.5", b"1700000000000.1234", b"01700000000000", b"null", b"9" * 17],
    ),
    "flow": (
        b"2.25",
        [b"-0", b"-0.0", b"null", b"1e3", b"0.1000", b"00.1", b".5", b"5.", b"-", b"1_0", b" 7", b"true", b"1" * 30],
    ),
    "seq": (
        b"41",
        [b"-7", b"-0", b"0", b"00", b"9007199254740993", b"1" * 17, b"4.0", b"4e2", b"null", b"9" * 25],
    ),
}
_number = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.tuples(st.integers(-(10**9), 10**9), st.integers(0, 10)).map(lambda n: f"{n[0] / 10 ** n[1]:.{n[1]}f}"),
    st.integers(-(10**18), 10**18).map(str),
    st.text("0123456789.-+eE,} ", max_size=20),
).map(str.encode)


def with_texts(texts: dict[str, bytes]) -> bytes:
    text = {name: texts.get(name, usual) for name, (usual, _) in _texts.items()}
    return (
        b'{"device_id":%(device_id)b,"device_type":"pump","site":"s","event_time":%(event_time)b,'
        b'"values":{"pressure":1.5,"flow":%(flow)b},"version":3,"seq":%(seq)b}'
        % {name.encode(): value for name, value in text.items()}
    )


_written = st.one_of(
    *(st.sampled_from(others).map(lambda v, name=name: with_texts({name: v})) for name, (_, others) in _texts.items()),
    _number.map(lambda number: with_texts({"flow": number})),
    _number.map(lambda number: with_texts({"event_time": number})),
    _number.map(lambda number: with_texts({"seq": number})),
)
_values = st.lists(
    _readings | _written | _readings | _damaged | _json | st.none() | st.binary(max_size=20), max_size=30
)


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


@pytest.mark.parametrize(
    "texts",
    [pytest.param({name: text}, id=f"{name} {text[:20]!r}") for name, (_, texts) in _texts.items() for text in texts],
)
def test_what_stands_between_the_texts_of_a_layout(texts: dict[str, bytes]) -> None:
    compare(ONE, [with_texts({}), with_texts(texts), with_texts({"flow": b"3.5"})], [NOW_MS] * 3)


def test_layouts_come_and_go() -> None:
    """A reader keeps those that are frequent; what it kept is never in the way of what comes."""
    reader = ColumnReader(TWO, TOPIC)
    pumps = [reading(f"p{n}", values={"class": n / 4, "pressure": -1.25}, seq=None, version=2) for n in range(300)]
    valves = [reading(f"v{n}", "valve", values={"open": None if n % 2 else 0.0}) for n in range(300)]
    mixed = [value for pair in zip(pumps, valves, strict=True) for value in pair]
    for values in (pumps, mixed, valves, [], mixed[:20], [b"junk"] * 300, pumps[::-1], [with_texts({}), *mixed]):
        _, left = compare(TWO, list(values), [NOW_MS] * len(values), reader)
        assert left == (list(range(300)) if values[:1] == [b"junk"] else [])


def test_times_are_exact_to_the_microsecond() -> None:
    chance = np.random.default_rng(6)
    times = chance.integers(946_684_800_000_000, NOW_MS * 1000, 5_000).tolist()
    found, left = compare(ONE, [reading(event_time_us=t, seq=None) for t in times], [NOW_MS] * len(times))
    assert left == []
    assert found[0].event_times_us.tolist() == times


def test_numbers_of_devices_stay_when_a_newer_catalog_takes_over() -> None:
    old = ColumnReader(ONE, TOPIC)
    read(old, [reading("a"), reading("b")], [NOW_MS] * 2)
    new = ColumnReader(TWO, TOPIC, old.devices, old.sites)
    values = [reading("c"), reading("b"), reading("a", "valve", values={"open": 0.0})]
    pumps, valves = read(new, values, [NOW_MS] * 3)[0]
    assert (pumps.devices.tolist(), valves.devices.tolist()) == ([2, 1], [0])
    assert new.devices["pump"].names == ["a", "b", "c"]
    assert new.devices["valve"].names == ["a"]


def test_a_batch_of_nothing() -> None:
    assert compare(TWO, [], []) == ([], [])
    assert compare(TWO, [None, None], [0, 0]) == ([], [0, 1])


def test_msgspec_still_refuses_what_stands_for_not_carried() -> None:
    """NOT_CARRIED is infinity because no JSON number decodes to it."""
    for text in (b"1e309", b"-1e309", b"9" * 400):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(text, type=float)
