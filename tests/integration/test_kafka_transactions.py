"""Transactions on a real broker, all of one or nothing: of both kinds, and as the library has them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kafka import OffsetAndMetadata, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import KafkaError, TopicAuthorizationFailedError
from kafka.structs import ConsumerGroupMetadata
from pydantic import SecretStr

from connections import kafka, kafka_transactions
from connections.kafka_transactions import commit, second_is_in_force, transactional_producer
from fleet.channels import state_topic
from fleet.settings import Settings
from stack.stack import Stack
from tests.integration.logs import records

pytestmark = pytest.mark.stack

TOPIC, INPUT, PARTITIONS = "transactions.out", "transactions.in", 3
TRANSACTIONS = 30
KINDS = {"first": "_Strict", "second": "_Second", "library": "TransactionManager"}
"""Each with who manages it."""


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
    monkeypatch.setattr(kafka_transactions, "second_is_in_force", lambda _: request.param == "second")
    if request.param == "library":
        monkeypatch.setattr(kafka_transactions, "obstacles", lambda _: ["none of its internals are known"])
    return str(request.param)


@contextmanager
def opened(settings: Settings, name: str, kind: str) -> Iterator[Any]:
    client = transactional_producer(settings, "tests", name)
    assert type(client._transaction_manager).__name__ == KINDS[kind]
    try:
        yield client
    finally:
        kafka.close(client)


def write(client: Any, group: str, number: int) -> list[Any]:
    """A transaction's records, some on each partition; it stays open."""
    client.begin_transaction()
    return [
        client.send(TOPIC, b"%s %d %d" % (group.encode(), number, n), partition=n % PARTITIONS)
        for n in range(2 * PARTITIONS)
    ]


def place(group: str, number: int) -> tuple[dict[TopicPartition, OffsetAndMetadata], ConsumerGroupMetadata]:
    return {TopicPartition(INPUT, 0): OffsetAndMetadata(number + 1, "", -1)}, ConsumerGroupMetadata(group_id=group)


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
    with opened(admin, group, kind) as client:
        first = client._transaction_manager.producer_id_and_epoch.epoch
        for number in range(TRANSACTIONS):
            sent = write(client, group, number)
            if number % 3 < 2:
                commit(client, sent, *place(group, number))
            else:
                client.send_offsets_to_transaction(*place(group, number))
                client.abort_transaction()
        raised = client._transaction_manager.producer_id_and_epoch.epoch - first
        write(client, group, TRANSACTIONS)  # left open, as by one that is killed
        client.send_offsets_to_transaction(*place(group, TRANSACTIONS))
    with opened(admin, group, kind):
        wanted = {n: 2 * PARTITIONS for n in range(TRANSACTIONS) if n % 3 < 2}
        assert transactions(admin, group) == wanted
        assert committed(admin, group) == max(wanted) + 1
    assert raised == (TRANSACTIONS if kind == "second" else 0)


@pytest.mark.parametrize("topic", ["sensor", TOPIC])
def test_of_a_record_that_may_not_be_written_nothing_is_committed(
    admin: Settings, settings_for: Callable[[str], Settings], kind: str, topic: str
) -> None:
    """As of a user who has lost a right. The broker refuses a record for `sensor`, which this user may read; of the
    other topic it says nothing, `send` returns none the less, and what is left could go out."""
    settings = settings_for("alerts")
    here, group = TopicPartition("sensor", 0), ConsumerGroupMetadata(group_id="alerts")

    def reached() -> int | None:
        consumer = kafka.consumer(settings, "tests", "alerts")
        try:
            return consumer.committed(here)  # type: ignore[no-any-return]
        finally:
            consumer.close(autocommit=False)

    before = reached()
    with opened(settings, f"alerts-tests-{kind}", kind) as client:
        client.begin_transaction()
        # To a topic that nobody reads without regard to transactions.
        sent = [client.send(name, b"junk of the tests", b"key") for name in (state_topic("weather"), topic)]
        assert sent[1].failed() is (topic == TOPIC)
        with pytest.raises(TopicAuthorizationFailedError):
            commit(client, sent, {here: OffsetAndMetadata((before or 0) + 1, "", -1)}, group)
    with opened(settings, f"alerts-tests-{kind}", kind):
        assert reached() == before


@pytest.mark.parametrize("kind", ["first", "second"], indirect=True)
def test_a_producer_that_was_fenced_ends_and_fences_nobody(admin: Settings, kind: str) -> None:
    group = f"fenced-{kind}"
    with opened(admin, group, kind) as older:
        for sent in write(older, group, 0):
            sent.get(10)
        with opened(admin, group, kind) as newer:
            doomed = older.send(TOPIC, b"%s 0 9" % group.encode(), partition=0)
            with pytest.raises(KafkaError):
                commit(older, [], *place(group, 0))
            with pytest.raises(KafkaError):
                doomed.get(10)
            with pytest.raises(KafkaError):
                older.begin_transaction()
            assert older._transaction_manager.has_fatal_error()
            commit(newer, write(newer, group, 1), *place(group, 1))
        assert transactions(admin, group) == {1: 2 * PARTITIONS}
        assert committed(admin, group) == 2
