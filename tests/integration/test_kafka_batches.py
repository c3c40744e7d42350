"""The batch view on a real broker gives what kafka-python gives: offsets, times, keys, values, headers, positions."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from pydantic import SecretStr

from connections import kafka, kafka_batches
from connections.kafka_batches import Batches
from connections.record_batch import RecordBatch
from fleet.channels import CONTROL, HEARTBEAT, MARK_HEADER
from fleet.settings import Settings
from stack.stack import Stack
from streaming.group import Member
from tests.integration.processes import wait_for

pytestmark = pytest.mark.stack

CODECS = [None, "gzip", "lz4", "zstd"]
TOPICS = {
    "batches.append": {"message.timestamp.type": "LogAppendTime"},
    "batches.create": {"message.timestamp.type": "CreateTime"},
    "batches.group": {},
    "batches.compacted": {
        "cleanup.policy": "compact", "segment.ms": "200", "min.cleanable.dirty.ratio": "0.001",
        "max.compaction.lag.ms": "200", "delete.retention.ms": "100",
    },
}  # fmt: skip
FOR_GOOD = {"retention.ms": "-1"}
"""Records say that they are years old: the broker would delete them when it looks, every five minutes."""
Record = tuple[Any, ...]


@pytest.fixture(scope="module")
def admin(stack: Stack, settings_for: Callable[[str], Settings]) -> Iterator[Settings]:
    """Who may do anything; the topics of these tests are there."""
    changes = {"kafka_user": "admin", "kafka_password": SecretStr(stack.secrets["KAFKA_ADMIN"])}
    settings = settings_for("operator").model_copy(update=changes)
    client = kafka.admin(settings)
    client.create_topics([NewTopic(name, 1, 1, topic_configs=FOR_GOOD | options) for name, options in TOPICS.items()])
    cleaner = ConfigResource(ConfigResourceType.BROKER, "1", {"log.cleaner.backoff.ms": "200"})
    client.alter_configs([cleaner])
    client.close()
    yield settings


def write(settings: Settings, topic: str, seed: int, rounds: int) -> int:
    """Batches of every kind; returns how many records of aborted transactions there are."""
    chance = random.Random(seed)
    aborted = 0
    for number in range(rounds):
        codec, fate = CODECS[number % len(CODECS)], chance.choice(["plain", "commit", "abort"])
        identity = {} if fate == "plain" else {"transactional_id": f"{topic}-{seed}-{number}"}
        producer = kafka.producer(
            settings, "tests", compression_type=codec, batch_size=chance.choice([200, 4_000, 200_000]),
            linger_ms=chance.choice([0, 5]), retry_backoff_ms=5, **identity,
        )  # fmt: skip
        try:
            if identity:
                producer.init_transactions()
                producer.begin_transaction()
            count = chance.choice([1, 3, 50, 700])
            for _ in range(count):
                producer.send(topic, **any_record(chance))
                if chance.random() < 0.02:
                    producer.flush()
            producer.flush()
            if fate == "commit":
                producer.commit_transaction()
            elif fate == "abort":
                aborted += count
                producer.abort_transaction()
        finally:
            kafka.close(producer, 5)
    return aborted


def any_record(chance: random.Random) -> dict[str, Any]:
    value: bytes | None = b'{"device_id":"d%d","seq":%d}' % (chance.randrange(99), chance.randrange(1 << 40))
    key: bytes | None = b"d%d" % chance.randrange(99)
    headers: list[tuple[str, bytes]] = []
    kind = chance.randrange(30)
    if kind == 0:
        value = None
    elif kind == 1:
        key = None
    elif kind == 2:
        value = chance.randbytes(chance.choice([0, 1, 70, 9_000, 70_000]))
    elif kind == 3:
        headers = [(MARK_HEADER, chance.choice([HEARTBEAT, CONTROL]))]
    elif kind == 4:
        headers = [("trace", b""), ("é", b"\0" * chance.randrange(200))]
    return {"key": key, "value": value, "headers": headers, "timestamp_ms": 1_700_000_000_000 + chance.randrange(10**9)}


def stock(records: list[Any]) -> list[Record]:
    return [(r.offset, r.timestamp, r.key, r.value, [tuple(h) for h in r.headers]) for r in records]


def flat(batch: RecordBatch) -> list[Record]:
    columns = batch.offsets.tolist(), batch.timestamps_ms.tolist(), batch.keys(), batch.values()
    return [(*row, batch.headers.get(place, [])) for place, row in enumerate(zip(*columns, strict=True))]


def read(settings: Settings, topic: str, start: int, isolation: str, fast: bool) -> tuple[list[Record], int]:
    """(records, position after them)"""
    place = TopicPartition(topic, 0)
    consumer = kafka.consumer(settings, "tests", isolation_level=isolation, max_partition_fetch_bytes=50_000)
    try:
        consumer.assign([place])
        consumer.seek(place, start)
        end = consumer.end_offsets([place])[place]
        batches = Batches(consumer) if fast else None
        assert batches is None or batches.fast
        found: list[Record] = []
        while consumer.position(place) < end:
            if batches is None:
                for records in consumer.poll(timeout_ms=200).values():
                    found += stock(records)
            else:
                for batch in batches.poll(timeout_ms=200, max_batches=1):
                    assert (batch.topic, batch.partition) == (topic, 0)
                    found += flat(batch)
                    assert consumer.position(place) > batch.last_offset
        return found, consumer.position(place)
    finally:
        consumer.close(autocommit=False)


@pytest.mark.parametrize(("topic", "seed"), [("batches.append", 1), ("batches.create", 2)])
def test_a_random_log(admin: Settings, topic: str, seed: int) -> None:
    aborted = write(admin, topic, seed, 24)
    assert aborted
    whole = {isolation: read(admin, topic, 0, isolation, False) for isolation in ("read_committed", "read_uncommitted")}
    records, end = whole["read_committed"]
    assert len(whole["read_uncommitted"][0]) == len(records) + aborted
    assert any(r[3] is None for r in records) and any(r[4] for r in records)
    chance = random.Random(seed)
    starts = [0, *(chance.randrange(end) for _ in range(12))]
    for start in starts:
        for isolation, (expected, _) in whole.items():
            found = read(admin, topic, start, isolation, True)
            assert found == ([r for r in expected if r[0] >= start], end), f"{isolation} from {start}"


def test_a_compacted_log(admin: Settings) -> None:
    """Compaction takes records out of the middle of batches and leaves empty ones: offsets have gaps."""
    topic, count = "batches.compacted", 3_000
    producer = kafka.producer(admin, "tests")
    for number in range(count):
        producer.send(topic, b"v%d" % number, b"k%d" % (number % 7 if number % 10 else number))
    producer.flush()

    def compacted() -> bool:
        producer.send(topic, b"tick", b"tick").get(10)  # rolls the segment, which alone is cleaned
        return len(read(admin, topic, 0, "read_committed", False)[0]) < count / 2

    try:
        wait_for(compacted, 60, "nothing is compacted", every=0.5)
        wait_for(lambda: _settled(admin, topic), 60, "it goes on", every=1)
    finally:
        kafka.close(producer, 5)
    expected, end = read(admin, topic, 0, "read_committed", False)
    chance = random.Random(3)
    for start in [0, *(chance.randrange(end) for _ in range(12))]:
        assert read(admin, topic, start, "read_committed", True) == ([r for r in expected if r[0] >= start], end)


def _settled(settings: Settings, topic: str) -> bool:
    first, second = (read(settings, topic, 0, "read_committed", False) for _ in range(2))
    return first == second


def test_a_group_goes_on_where_it_committed(admin: Settings) -> None:
    topic = "batches.group"
    write(admin, topic, 5, 10)
    expected, _ = read(admin, topic, 0, "read_committed", False)
    found: list[Record] = []
    while len(found) < len(expected):
        member = Member(
            admin, "batches", [topic], isolation_level="read_committed", max_partition_fetch_bytes=50_000
        )  # fmt: skip
        taken: list[RecordBatch] = []

        def read_some(member: Member = member, taken: list[RecordBatch] = taken) -> list[RecordBatch]:
            taken += member.told(lambda: member.batches.poll(timeout_ms=200, max_batches=1))
            return taken

        try:
            wait_for(read_some, 60, f"nothing after {len(found)} of {len(expected)}")
            member.consumer.commit()
            found += [record for batch in taken for record in flat(batch)]
            member.consumer.poll()  # read, and not committed: the next one reads it again
        finally:
            member.close()
    assert found == expected


def test_fetches_gather_while_many_records_come(admin: Settings) -> None:
    """Else they are answered at the first one."""
    topic, busy = "batches.group", kafka_batches.BUSY_RECORDS
    place = TopicPartition(topic, 0)
    producer = kafka.producer(admin, "tests", linger_ms=50)
    consumer = kafka.consumer(admin, "tests", isolation_level="read_committed")
    try:
        consumer.assign([place])
        consumer.seek_to_end(place)
        consumer.position(place)
        batches = Batches(consumer)

        def asked_after(records: int) -> tuple[int, int]:
            for _ in range(records):
                producer.send(topic, b"v", b"k")
            producer.flush()
            polled = batches.poll(timeout_ms=5_000)
            assert sum(map(len, polled)) == records
            return consumer._fetcher.config["fetch_max_wait_ms"], consumer._fetcher.config["fetch_min_bytes"]

        assert asked_after(busy - 1) == (500, 1)
        assert asked_after(busy) == (kafka_batches.BUSY_WAIT_MS, kafka_batches.BUSY_BYTES)
        assert asked_after(1) == (500, 1)
        assert batches.poll(timeout_ms=100) == []
        assert consumer._fetcher.config["fetch_max_wait_ms"] == 500
    finally:
        kafka.close(producer, 5)
        consumer.close()


def test_where_the_library_is_another_it_is_read_record_by_record(
    admin: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    topic = "batches.fallback"
    client = kafka.admin(admin)
    client.create_topics([NewTopic(topic, 1, 1, topic_configs=FOR_GOOD)])
    client.close()
    write(admin, topic, 6, 6)
    expected, end = read(admin, topic, 0, "read_committed", False)
    monkeypatch.setattr(kafka_batches, "PARSER", (*kafka_batches.PARSER, "_renamed"))
    place = TopicPartition(topic, 0)
    consumer = kafka.consumer(admin, "tests", isolation_level="read_committed")
    try:
        consumer.assign([place])
        consumer.seek(place, 0)
        batches = Batches(consumer)
        assert not batches.fast
        assert caplog.text.count("PartitionRecords has no _renamed") == 1
        found: list[Record] = []
        while consumer.position(place) < end:
            for batch in batches.poll(timeout_ms=200):
                assert len(batch.readings) + len(batch.marks) == len(batch)
                found += flat(batch)
        assert found == expected
        assert caplog.text.count("PartitionRecords has no _renamed") == 1
    finally:
        consumer.close(autocommit=False)
