"""Transactions of both kinds on a real broker: all of one or nothing, and an end to the producer of one that failed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kafka import OffsetAndMetadata, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import KafkaError
from kafka.structs import ConsumerGroupMetadata
from pydantic import SecretStr

from connections import kafka, kafka_transactions
from connections.kafka_transactions import second_is_in_force, transactional_producer
from fleet.settings import Settings
from stack.stack import Stack
from tests.integration.logs import records

pytestmark = pytest.mark.stack

TOPIC, INPUT, PARTITIONS = "transactions.out", "transactions.in", 3
TRANSACTIONS = 30
KINDS = {"first": False, "second": True}


@pytest.fixture(scope="module")
def admin(stack: Stack, settings_for: Callable[[str], Settings]) -> Settings:
    """Who may do anything; the topics of these tests are there."""
    changes = {"kafka_user": "admin", "kafka_password": SecretStr(stack.secrets["KAFKA_ADMIN"])}
    settings = settings_for("operator").model_copy(update=changes)
    client = kafka.admin(settings)
    client.create_topics([NewTopic(TOPIC, PARTITIONS, 1), NewTopic(INPUT, 1, 1)])
    client.close()
    return settings


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(kafka_transactions, "second_is_in_force", lambda _: KINDS[request.param])
    return str(request.param)


@contextmanager
def opened(settings: Settings, name: str) -> Iterator[Any]:
    client = transactional_producer(settings, "tests", name)
    assert type(client._transaction_manager).__name__ in ("_Strict", "_Second")
    try:
        yield client
    finally:
        kafka.close(client)


def write(client: Any, group: str, number: int) -> list[Any]:
    """A transaction's records, one on each partition and more on one, and its offset; it stays open."""
    client.begin_transaction()
    sent = [
        client.send(TOPIC, b"%s %d %d" % (group.encode(), number, n), partition=n % PARTITIONS)
        for n in range(2 * PARTITIONS)
    ]
    where = {TopicPartition(INPUT, 0): OffsetAndMetadata(number + 1, "", -1)}
    client.send_offsets_to_transaction(where, ConsumerGroupMetadata(group_id=group))
    return sent


def committed(settings: Settings, group: str) -> int | None:
    consumer = kafka.consumer(settings, "tests", group)
    try:
        return consumer.committed(TopicPartition(INPUT, 0))  # type: ignore[no-any-return]
    finally:
        consumer.close(autocommit=False)


def transactions(settings: Settings, group: str) -> dict[int, int]:
    """Number → records that are there for good."""
    found: dict[int, int] = {}
    for record in records(settings, TOPIC, isolation_level="read_committed"):
        name, number, _ = record.value.split()
        if name == group.encode():
            found[int(number)] = found.get(int(number), 0) + 1
    return found


def test_a_fresh_cluster_has_the_second_kind(settings_for: Callable[[str], Settings]) -> None:
    assert second_is_in_force(settings_for("alerts"))


def test_all_of_a_transaction_or_nothing(admin: Settings, kind: str) -> None:
    group = f"whole-{kind}"
    with opened(admin, group) as client:
        first = client._transaction_manager.producer_id_and_epoch.epoch
        for number in range(TRANSACTIONS):
            for sent in write(client, group, number):
                sent.get(10)
            if number % 3 == 2:
                client.abort_transaction()
            else:
                client.commit_transaction()
        raised = client._transaction_manager.producer_id_and_epoch.epoch - first
        write(client, group, TRANSACTIONS)  # left open, as by one that is killed
    with opened(admin, group):
        wanted = {n: 2 * PARTITIONS for n in range(TRANSACTIONS) if n % 3 < 2}
        assert transactions(admin, group) == wanted
        assert committed(admin, group) == max(wanted) + 1
    assert raised == (TRANSACTIONS if kind == "second" else 0)


def test_a_producer_that_was_fenced_ends_and_fences_nobody(admin: Settings, kind: str) -> None:
    group = f"fenced-{kind}"
    with opened(admin, group) as older:
        for sent in write(older, group, 0):
            sent.get(10)
        with opened(admin, group) as newer:
            doomed = older.send(TOPIC, b"%s 0 9" % group.encode(), partition=0)
            with pytest.raises(KafkaError):
                doomed.get(10)
            with pytest.raises(KafkaError):
                older.commit_transaction()
            with pytest.raises(KafkaError):
                older.begin_transaction()
            assert older._transaction_manager.has_fatal_error()
            for sent in write(newer, group, 1):
                sent.get(10)
            newer.commit_transaction()
        assert transactions(admin, group) == {1: 2 * PARTITIONS}
        assert committed(admin, group) == 2
