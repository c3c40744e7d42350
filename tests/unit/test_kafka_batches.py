"""The batch view and kafka-python's own parser, on the same bytes: the same records and the same positions."""

import random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.record.util import calc_crc32c

from connections import kafka_batches
from connections.kafka_batches import _PartitionBatches
from connections.record_batch import RecordBatch
from fleet.channels import CONTROL, HEARTBEAT, MARK_HEADER

PLACE = TopicPartition("readings.test", 3)
Batches = type("Batches", (_PartitionBatches, Fetcher.PartitionRecords), {})
CODECS = {"none": 0, "gzip": 1, "lz4": 3, "zstd": 4}
Record = tuple[Any, ...]


def flat(records: list[Any]) -> list[Record]:
    """The library's records or our batches, as tuples."""
    found: list[Record] = []
    for record in records:
        if not isinstance(record, RecordBatch):
            headers = [tuple(h) for h in record.headers or ()]
            timestamp = -1 if record.timestamp is None else record.timestamp
            found.append((record.offset, timestamp, record.key, record.value, headers))
            continue
        assert (record.topic, record.partition) == PLACE
        assert (record.base_offset, record.last_offset) == (record.offsets[0], record.offsets[-1])
        columns = record.offsets.tolist(), record.timestamps_ms.tolist(), record.keys(), record.values()
        found += [(*row, record.headers.get(place, [])) for place, row in enumerate(zip(*columns, strict=True))]
    return found


def read(kind: Any, data: bytes, fetch_offset: int = 0, committed: bool = True, aborted: Any = ()) -> Any:
    """(records, position after them, leader epoch) of one fetch, taken as the fetcher does."""
    level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
    parser = kind(
        fetch_offset, PLACE, MemoryRecords(data), isolation_level=level,
        aborted_transactions=[SimpleNamespace(producer_id=p, first_offset=o) for p, o in aborted],
    )  # fmt: skip
    found = []
    while parser:
        found += parser.take(500)
    return flat(found), parser.next_fetch_offset, parser.leader_epoch


def agree(data: bytes, **options: Any) -> list[Record]:
    expected, got = read(Fetcher.PartitionRecords, data, **options), read(Batches, data, **options)
    assert got == expected
    return list(got[0])


def batch(offset: int, records: list[Record], codec: int = 0, **changes: Any) -> bytes:
    """Of (offset delta, timestamp, key, value, headers), as the broker keeps it."""
    transactional, control = changes.get("transactional", False), changes.get("control", False)
    builder = DefaultRecordBatchBuilder(2, codec, transactional, changes.get("producer", -1), 0, 0, 1 << 30)
    for record in records:
        assert builder.append(*record)
    data = bytearray(builder.build())
    fields = list(DefaultRecordBatch.HEADER_STRUCT.unpack_from(data))
    fields[0] = offset
    fields[2] = changes.get("epoch", 0)
    fields[5] |= 0x08 * ("append_ms" in changes) | 0x20 * control
    fields[6] = changes.get("last_delta", fields[6])
    fields[8] = changes.get("append_ms", fields[8])
    fields[12] = changes.get("count", fields[12])
    DefaultRecordBatch.HEADER_STRUCT.pack_into(data, 0, *fields)
    return _with_checksum(data)


def _with_checksum(data: bytearray) -> bytes:
    place = DefaultRecordBatch.CRC_OFFSET
    data[place : place + 4] = calc_crc32c(memoryview(data)[DefaultRecordBatch.ATTRIBUTES_OFFSET :]).to_bytes(4, "big")
    return bytes(data)


def marker(offset: int, producer: int, commit: bool) -> bytes:
    record = (0, 1_000, (0).to_bytes(2, "big") + int(commit).to_bytes(2, "big"), b"\0" * 6, [])
    return batch(offset, [record], transactional=True, control=True, producer=producer)


def plain(count: int, value: bytes = b'{"a":1}') -> list[Record]:
    return [(n, 1_000 + n, b"key", value, []) for n in range(count)]


_bytes = st.none() | st.binary(max_size=300) | st.sampled_from([b'{"seq":1}', b'{"a":"}\0"}', b"}", b"\0}\0"])
_headers = st.lists(
    st.tuples(st.sampled_from([MARK_HEADER, "", "é", "other"]), st.none() | st.sampled_from([HEARTBEAT, CONTROL, b""])),
    max_size=3,
)
_record = st.tuples(
    st.integers(1, 300), st.integers(0, 1 << 45), _bytes, _bytes, st.one_of(st.just([]), _headers)
)  # fmt: skip
_batch = st.tuples(
    st.lists(_record, max_size=12), st.sampled_from(list(CODECS.values())), st.none() | st.integers(0, 1 << 44),
    st.integers(0, 2), st.sampled_from(["plain", "commit", "abort"]), st.integers(0, 5),
)  # fmt: skip


@given(st.lists(_batch, min_size=1, max_size=6), st.integers(0, 2000), st.booleans())
def test_any_log_is_read_alike(log: list[Any], seek: int, committed: bool) -> None:
    """Gaps within and between batches, empty batches, codecs, headers, nulls, transactions, a start anywhere."""
    data, aborted, offset = b"", [], 0
    for records, codec, append_ms, gap, fate, tail in log:
        offset += gap
        placed, delta = [], -1
        for step, *rest in records:
            delta += step
            placed.append((delta, *rest))
        changes: dict[str, Any] = {"last_delta": delta + 1 + tail, "epoch": gap}
        changes |= {} if append_ms is None else {"append_ms": append_ms}
        if fate != "plain":
            changes |= {"transactional": True, "producer": 7}
            aborted += [(7, offset)] if fate == "abort" else []
        data += batch(offset, placed, codec, **changes)
        offset += delta + 2 + tail
        if fate != "plain":
            data += marker(offset, 7, fate == "commit")
            offset += 1
    agree(data, fetch_offset=min(seek, offset), committed=committed, aborted=aborted)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())
@pytest.mark.parametrize(
    "value", [b'{"a":1}', b"no object", b'{"a":"' + b"x" * 9_000 + b'"}', b""], ids=["json", "text", "long", "empty"]
)
def test_many_records(codec: int, value: bytes) -> None:
    """Big enough for the long forms of every varint, and for more than one group."""
    batches = 4 if len(value) < 100 else 1
    data = b"".join(batch(n * 3_000, plain(3_000, value), codec) for n in range(batches))
    assert len(agree(data, fetch_offset=17)) == batches * 3_000 - 17


def test_groups_are_of_about_the_goal() -> None:
    data = b"".join(batch(n * 1_000, plain(1_000)) for n in range(20))
    parser: Any = Batches(0, PLACE, MemoryRecords(data))
    sizes, positions = [], []
    while parser:
        for found in parser.take(1):
            sizes.append(len(found))
            positions.append(parser.next_fetch_offset)
    assert (sizes, positions) == ([9_000, 9_000, 2_000], [9_000, 18_000, 20_000])


@pytest.mark.parametrize("magic", [0, 1])
def test_an_old_format_is_read_by_the_library(magic: int) -> None:
    builder = MemoryRecordsBuilder(magic, 0, 1 << 20, offset=5)
    for n in range(10):
        builder.append(1_000 + n if magic else None, None if n == 3 else b"k", None if n == 4 else b"v%d" % n)
    builder.close()
    old = bytes(builder.buffer())
    assert [r[3] for r in agree(old, fetch_offset=12)] == [b"v7", b"v8", b"v9"]
    assert len(agree(batch(0, plain(3)) + old + batch(100, plain(3)))) == 16


def test_what_is_broken_is_raised_again_and_again_after_what_was_whole() -> None:
    data = bytearray(batch(0, plain(10)) + batch(10, plain(10)) + batch(20, plain(10)))
    data[-20] ^= 1
    for _ in range(2):
        parser: Any = Batches(0, PLACE, MemoryRecords(bytes(data)))
        assert [len(found) for found in parser.take(10)] == [20]
        assert parser.next_fetch_offset == 20
        assert not parser, "the rest is to be fetched again"
    again: Any = Batches(20, PLACE, MemoryRecords(bytes(data[2 * len(data) // 3 :])))
    with pytest.raises(CorruptRecordError, match=r"readings\.test-3 at offset 20"):
        again.take(10)
    assert again.next_fetch_offset == 20


@pytest.mark.parametrize("broken", range(40))
def test_records_that_lie_about_their_lengths_are_refused(broken: int) -> None:
    """The checksum is right, the records are not: whoever wrote them is broken. Never another record instead."""
    chance = random.Random(broken)
    data = bytearray(batch(0, plain(50)))
    size = (len(data) - 61) // 50
    data[61 + chance.randrange(50) * size + chance.choice([0, 4, 8])] ^= 1 << chance.randrange(8)
    sealed = _with_checksum(data)
    try:
        expected = read(Fetcher.PartitionRecords, sealed)
    except (CorruptRecordError, MemoryError):
        with pytest.raises(CorruptRecordError):
            read(Batches, sealed)
    else:
        assert read(Batches, sealed) == expected


@pytest.mark.parametrize("counts", [(3, 5), (5, 3), (4, 5), (4, 3)])
def test_batches_that_lie_about_their_counts_are_refused(counts: tuple[int, int]) -> None:
    data = batch(0, plain(4), count=counts[0]) + batch(10, plain(4), count=counts[1])
    for kind in (Fetcher.PartitionRecords, Batches):
        with pytest.raises(CorruptRecordError):
            read(kind, data)


def test_marks_and_readings() -> None:
    records = [(n, 0, None, b"{}", []) for n in range(6)]
    records[1] = (1, 0, None, b"{}", [(MARK_HEADER, HEARTBEAT)])
    records[2] = (2, 0, None, b"{}", [("trace", b"1")])
    records[4] = (4, 0, None, b"{}", [("trace", b"1"), (MARK_HEADER, CONTROL)])
    records[5] = (5, 0, None, b"{}", [(MARK_HEADER, b"reading")])
    (found,) = Batches(0, PLACE, MemoryRecords(batch(0, records))).take(9)  # type: ignore[call-arg]
    assert found.marks == {1: HEARTBEAT, 4: CONTROL}
    assert found.readings.tolist() == [0, 2, 3, 5]
    later = found.from_offset(4)
    assert (later.marks, later.readings.tolist(), len(later)) == ({0: CONTROL}, [1], 2)
    assert later.values(later.readings) == [b"{}"]


class Consumer:
    """As much of a KafkaConsumer as obstacles() looks at."""

    def __init__(self, parser: Any = Fetcher.PartitionRecords, without: str = "", **config: Any):
        self._fetcher = SimpleNamespace(PartitionRecords=parser, _completed_fetches=[], _next_partition_records=None)
        self._fetcher.config = {"fetch_max_wait_ms": 500, "fetch_min_bytes": 1}
        self._fetcher.config.pop(without, None)
        vars(self._fetcher).pop(without, None)
        self.config = config


class WithoutDrain(Fetcher.PartitionRecords):
    drain = None


class WithMore(Fetcher.PartitionRecords):
    def _unpack_records(self, tp: Any, records: Any, deserializers: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("consumer", "version", "said"),
    [
        (Consumer(), "3.0.12", ""),
        (Consumer(), "3.1.0", "kafka-python is 3.1.0"),
        (SimpleNamespace(config={}), "3.0.12", "the consumer has no _fetcher.PartitionRecords"),
        (Consumer(None), "3.0.12", "the consumer has no _fetcher.PartitionRecords"),
        (Consumer(WithoutDrain), "3.0.12", "PartitionRecords has no drain"),
        (Consumer(WithMore), "3.0.12", "_unpack_records takes self, tp, records, deserializers"),
        (Consumer(without="fetch_max_wait_ms"), "3.0.12", "configuration has no fetch_max_wait_ms"),
        (Consumer(without="_completed_fetches"), "3.0.12", "the fetcher has no _completed_fetches"),
        (Consumer(value_deserializer=bytes.decode), "3.0.12", "has deserializers"),
    ],
    ids=[
        "fits",
        "version",
        "no fetcher",
        "no parser",
        "no method",
        "other arguments",
        "no wait",
        "no hand",
        "deserializers",
    ],
)
def test_where_the_library_differs_its_own_way_is_taken(
    consumer: Any, version: str, said: str, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(kafka_batches.kafka, "__version__", version)
    batches = kafka_batches.Batches(consumer)
    assert batches.fast is (said == "")
    assert said in caplog.text
    assert len(caplog.records) == (said != "")


def test_what_was_given_out_to_its_end_is_in_the_next_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fetcher leaves a partition out while its PartitionRecords is true; one batch a poll is what services ask."""
    monkeypatch.setattr(kafka_batches, "GOAL", 10)
    two = batch(0, plain(10)) + batch(10, plain(9)) + marker(19, 7, commit=True)
    parser = Batches(0, PLACE, MemoryRecords(two), isolation_level=IsolationLevel.READ_COMMITTED)  # type: ignore[call-arg]
    assert len(parser.take(1)[0]) == 10
    assert (bool(parser), parser.next_fetch_offset) == (True, 10)
    assert len(parser.take(1)[0]) == 9
    assert (bool(parser), parser.next_fetch_offset) == (False, 20)


def test_what_precedes_a_wrong_checksum_is_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next fetch begins behind it, and raises then."""
    monkeypatch.setattr(kafka_batches, "GOAL", 10)
    broken = bytearray(batch(10, plain(10)))
    broken[-1] ^= 1
    parser = Batches(0, PLACE, MemoryRecords(batch(0, plain(10)) + bytes(broken)))  # type: ignore[call-arg]
    assert len(parser.take(1)[0]) == 10
    assert (bool(parser), parser.next_fetch_offset) == (False, 10)
