"""A shard takes a partition's records in batches as it takes them one by one, wherever the batches are cut."""

import json
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from connections.record_batch import batch_of_records
from fleet.catalog import load_catalog
from fleet.channels import CONTROL, HEARTBEAT, MARK_HEADER, RETURNED
from fleet.columns import ColumnReader
from fleet.control import Device, Resolve, Retire, Spec, encode_control
from fleet.engine import Engine
from fleet.reading import Reading, encode_reading
from streaming.shard import Shard

TYPES = Path(__file__).parents[2] / "fleet" / "types"
CATALOG = load_catalog(TYPES)
FIRST_MS = 1_700_000_000_000
SPEC = {
    "type": "weather_station", "version": 1, "system": "weather", "cadence": "2s",
    "metrics": {"temperature": {"unit": "degC"}, "humidity": {"unit": "percent"}},
    "alerts": [
        {"id": "hot", "when": "temperature > 35", "for": "2s"},
        {"id": "leap", "when": "abs(temperature - previous(temperature)) > 10"},
        {"id": "mean", "when": "avg(humidity, 10s) > 80", "annotations": {"at": "{device}"}},
        {"id": "silent", "no_data": "6s"},
    ],
}  # fmt: skip


def record(offset: int, value: bytes | None, mark: bytes | None = None, key: bytes | None = None) -> Any:
    headers = [] if mark is None else [(MARK_HEADER, mark)]
    return SimpleNamespace(offset=offset, timestamp=FIRST_MS + offset * 10 + 500, key=key, value=value, headers=headers)


def reading(offset: int, seq: int | None, **values: float | None) -> bytes:
    device = "s1" if offset % 40 == 5 and offset % 3000 > 1000 else f"s{offset % 40}"
    return encode_reading(Reading(device, "weather_station", "field", (FIRST_MS + offset * 10) * 1000, values, seq))


def value_of(offset: int) -> tuple[bytes | None, bytes | None]:
    """(value, mark): all that a topic can hold, now and then something else than a calm reading."""
    control: Any = None
    match offset % 997:
        case 0:
            spec = {**SPEC, "version": 1 + offset // 997}
            control = Spec(revision=offset + 1, at=FIRST_MS, type="weather_station", version=1, text=json.dumps(spec))
        case 100:
            known = {"site": "field", "registered_at": FIRST_MS, "params": {}}
            control = Device(revision=offset, at=FIRST_MS, type="weather_station", device="never", **known)
        case 200:
            control = Retire(revision=offset, at=FIRST_MS, type="weather_station", device="s3")
        case 300:
            control = Resolve(revision=offset, at=FIRST_MS, type="weather_station", device="s7", rule="hot", by="me")
        case 400:
            return b"no control record", CONTROL
        case 500 | 501 | 777:
            return b"", HEARTBEAT
        case 600:
            return None, None
        case 601:
            return b'{"device_id": "s1"', None
        case 602:  # from the future
            return encode_reading(
                Reading("s2", "weather_station", "field", (FIRST_MS + 10**9) * 1000, {"humidity": 1.0})
            ), None
        case 603:  # of another type
            return encode_reading(Reading("r1", "room_node", "field", FIRST_MS * 1000, {"temperature": 1.0})), None
        case 604:  # a seq of null is read one by one
            return reading(offset, None, humidity=4.0).replace(b'"version"', b'"seq":null,"version"'), None
        case 607:  # given back, long after
            return reading(offset, None, temperature=99.0), RETURNED
        case 605 | 606:  # the same twice
            return reading(605, None, humidity=99.0), None
    if control is not None:
        return encode_control(control), CONTROL
    hot = 30.0 if (offset // 400) % 3 == 0 and offset % 40 in (7, 8, 9) else 0.0
    seq = offset if offset % 3 else None
    return reading(offset, seq, temperature=20 + hot + offset % 7 / 10, humidity=50.0 + offset % 11), None


LOG = [record(offset, *value_of(offset)) for offset in range(6000)]


def shard(position: int = 0, emit_from: int = 0) -> Shard:
    return Shard(Engine(0), position, emit_from, ColumnReader(CATALOG, CATALOG.types["weather_station"].topic))


@pytest.fixture(scope="module")
def one_by_one() -> tuple[list[Any], Shard]:
    taken, said = shard(), []
    for r in LOG:
        mark = r.headers[0][1] if r.headers else None
        said += taken.take_one(r.offset, r.timestamp, mark, r.value, 5)
    return said, taken


@pytest.mark.parametrize("sizes", [(1,), (7,), (500,), (2048,), (6000,), (1, 63, 64, 700, 7)], ids=str)
def test_batches_are_the_records_one_by_one(one_by_one: tuple[list[Any], Shard], sizes: tuple[int, ...]) -> None:
    expected, other = one_by_one
    taken, said = shard(), []
    begin = 0
    for size in cycle(sizes):
        if begin >= len(LOG):
            break
        said += taken.take(batch_of_records("sensor", 0, LOG[begin : begin + size]), 5)
        begin += size
    assert len(said) > 50 and {t.rule for t in said} == {"hot", "leap", "silent"}
    assert said == expected
    assert taken.engine.counts == other.engine.counts
    assert (taken.unreadable, taken.refused, taken.position) == (other.unreadable, other.refused, 6000)
    assert taken.engine.snapshot() == other.engine.snapshot()


def test_what_was_taken_is_passed_over_and_what_was_said_is_not_said_again(one_by_one: tuple[list[Any], Shard]) -> None:
    expected, _ = one_by_one
    taken = shard(emit_from=4000)
    assert taken.restoring
    said = taken.take(batch_of_records("sensor", 0, LOG[:3000]), 5)
    said += taken.take(batch_of_records("sensor", 0, LOG[1000:5000]), 5)
    said += taken.take(batch_of_records("sensor", 0, LOG[2000:]), 5)
    assert not taken.restoring
    assert said == [t for t in expected if t.offset >= 4000]


def test_what_is_given_back_fires_nothing_even_of_a_device_never_heard() -> None:
    hot = encode_reading(Reading("new", "weather_station", "field", FIRST_MS * 1000, {"temperature": 99.0}))
    taken = shard()
    taken.take_one(0, FIRST_MS, CONTROL, value_of(0)[0], 5)
    records = [record(n, hot, RETURNED) for n in range(1, 4)]
    assert taken.take(batch_of_records("sensor", 0, records), 5) == []
    assert taken.engine.known.device("weather_station", "new") is None
    assert (taken.unreadable, taken.position) == (0, 4)
