"""Records added to open batches on a real broker: what kafka-python's own way writes, and confirmed no sooner."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from kafka.admin import NewTopic
from kafka.errors import KafkaError, MessageSizeTooLargeError
from pydantic import SecretStr

from connections import kafka
from connections.kafka_appends import Appender, Confirmation
from fleet.settings import Settings
from stack.stack import Stack
from tests.integration.processes import wait_for

pytestmark = pytest.mark.stack

STOCK, OURS, NARROW = "appends.stock", "appends.ours", "appends.narrow"


@pytest.fixture(scope="module")
def admin(stack: Stack, settings_for: Callable[[str], Settings]) -> Settings:
    """Who may do anything; the topics of these tests are there."""
    changes = {"kafka_user": "admin", "kafka_password": SecretStr(stack.secrets["KAFKA_ADMIN"])}
    settings = settings_for("operator").model_copy(update=changes)
    client = kafka.admin(settings)
    narrow = NewTopic(NARROW, 1, 1, topic_configs={"max.message.bytes": "10000", "compression.type": "uncompressed"})
    client.create_topics([NewTopic(STOCK, 3, 1), NewTopic(OURS, 3, 1), narrow])
    client.close()
    return settings


@contextmanager
def producer_of(settings: Settings, **options: Any) -> Iterator[tuple[Any, Appender]]:
    client = kafka.producer(settings, "tests", **options)
    appender = Appender(client)
    assert appender.fast
    try:
        yield client, appender
    finally:
        kafka.close(client, 10)


def log_of(settings: Settings, topic: str) -> dict[int, list[tuple[int, bytes, bytes]]]:
    """Of each partition: (offset, key, value)."""
    consumer = kafka.consumer(settings, "tests")
    places = kafka.partitions(consumer, [topic])
    ends = consumer.end_offsets(places)
    consumer.assign(places)
    found: dict[int, list[Any]] = {place.partition: [] for place in places}
    while any(consumer.position(place) < ends[place] for place in places):
        for place, records in consumer.poll(timeout_ms=200).items():
            found[place.partition] += [(r.offset, r.key, r.value) for r in records]
    consumer.close(autocommit=False)
    return found


def test_the_same_records_in_the_same_partitions(admin: Settings) -> None:
    """Batches that are filled, that the sender takes away meanwhile, and records larger than a batch among them."""
    chance = random.Random(7)
    records = [
        (b"d%d" % chance.randrange(200), chance.randbytes(chance.choice([0, 1, 60, 140, 140, 140, 3_000, 20_000])))
        for _ in range(6_000)
    ]
    with producer_of(admin, batch_size=16_384, linger_ms=1) as (client, appender):
        confirmations = []
        for key, value in records:
            client.send(STOCK, value, key)
            confirmations.append(appender.send(OURS, value, key))
        wait_for(lambda: all(c.is_done for c in confirmations), 30, "some are never confirmed")
        assert all(c.exception is None for c in confirmations)
        assert any(isinstance(c, Confirmation) for c in confirmations)
        client.flush()
    assert log_of(admin, OURS) == log_of(admin, STOCK)


def test_a_confirmed_record_is_in_the_log(admin: Settings) -> None:
    with producer_of(admin, linger_ms=20) as (_, appender):
        confirmations = [appender.send(OURS, b"after %d" % n, b"one key") for n in range(50)]
        assert not any(c.is_done for c in confirmations)
        wait_for(lambda: confirmations[-1].is_done, 10, "not confirmed")
        values = [value for records in log_of(admin, OURS).values() for _, _, value in records]
    assert all(b"after %d" % n in values for n in range(50))


def test_a_batch_too_large_for_its_topic_is_split_and_each_record_confirmed(admin: Settings) -> None:
    with producer_of(admin, compression_type=None, linger_ms=50) as (_, appender):
        confirmations = [appender.send(NARROW, b"%04d" % n + bytes(996), b"one key") for n in range(60)]
        wait_for(lambda: all(c.is_done for c in confirmations), 20, "some are never confirmed")
        assert all(c.exception is None for c in confirmations)
    found = [(offset, int(value[:4])) for offset, _, value in log_of(admin, NARROW)[0]]
    assert sorted(n for _, n in found) == list(range(60))
    assert all(a[0] + 1 == b[0] for a, b in pairwise(found))


def test_what_can_never_be_written_is_refused(admin: Settings) -> None:
    with producer_of(admin, max_request_size=200_000) as (_, appender):
        appender.send(OURS, b"opens a batch", b"k")
        with pytest.raises(MessageSizeTooLargeError):
            appender.send(OURS, bytes(300_000), b"k")


def test_records_of_a_batch_that_fails_have_its_error(admin: Settings, stack: Stack) -> None:
    options = {"delivery_timeout_ms": 2_000, "request_timeout_ms": 1_500}
    with producer_of(admin, **options) as (_, appender):
        appender.send(OURS, b"before", b"k").get(10)
        stack.supervisor.stop_program("kafka")
        try:
            lost = [appender.send(OURS, b"lost %d" % n, b"k") for n in range(5)]
            assert any(isinstance(c, Confirmation) for c in lost)
            wait_for(lambda: all(c.is_done for c in lost), 15, "it never gives up")
            assert all(isinstance(c.exception, KafkaError) for c in lost)
        finally:
            stack.restart("kafka")
