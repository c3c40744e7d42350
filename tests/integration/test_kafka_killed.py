"""What Kafka has said is committed, and the broker dies at that moment."""

import os
import signal
from collections.abc import Iterator
from functools import partial

import pytest
from kafka import OffsetAndMetadata, TopicPartition
from kafka.structs import ConsumerGroupMetadata

from connections import kafka
from connections.kafka_transactions import commit, transactional_producer
from fleet.channels import TRANSITIONS
from fleet.settings import Settings
from stack.ports import Ports
from stack.stack import Stack
from tests.conftest import JVM, own_home
from tests.integration.logs import records
from tests.integration.processes import wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
DEATHS, BEFORE, RECORDS = 3, 3, 8
GROUP, READ = "alerts", TopicPartition("readings.home", 0)


@pytest.fixture
def own_stack() -> Iterator[Stack]:
    """A Kafka of its own, as it is killed."""
    with own_home() as home:
        running = Stack(home, Ports.free(), ("kafka",), environ=JVM)
        running.up()
        try:
            yield running
        finally:
            running.down()


def committed(settings: Settings) -> int | None:
    """As a worker asks that begins the partition: an open transaction's offsets are waited for."""
    consumer = kafka.consumer(settings, "tests", GROUP, isolation_level="read_committed")
    try:
        answer: int | None = consumer.committed(READ, timeout_ms=60_000)
        return answer
    finally:
        consumer.close(autocommit=False)


def in_the_log(settings: Settings) -> list[bytes]:
    """What a reader of what is committed finds."""
    return sorted(record.value for record in records(settings, TRANSITIONS, isolation_level="read_committed"))


def commit_and_kill(stack: Stack, numbers: range) -> list[bytes]:
    """The broker dies as soon as the last transaction is said to be committed; gives what they wrote."""
    broker = stack.supervisor.programs()["kafka"]["pid"]
    producer = transactional_producer(stack.settings("alerts"), "tests", "alerts-tests")
    written: list[bytes] = []
    for number in numbers:
        values = [b"%d.%d" % (number, n) for n in range(RECORDS)]
        producer.begin_transaction()
        sent = [producer.send(TRANSITIONS, value, value) for value in values]
        offsets = {READ: OffsetAndMetadata(number + 1, "", -1)}
        commit(producer, sent, offsets, ConsumerGroupMetadata(GROUP, -1, "", None))
        written += values
    os.kill(broker, signal.SIGKILL)
    kafka.close(producer)
    return written


def test_a_broker_that_is_killed_as_it_commits_leaves_no_transaction_open(own_stack: Stack) -> None:
    """The end of a transaction is answered before its marks are written: the next start writes them. Kafka 4.3 forgot
    them, which holds up who reads what is committed for ever (docs/decisions/0056)."""
    operator = own_stack.settings("operator")
    written: list[bytes] = []
    for death in range(DEATHS):
        numbers = range(death * BEFORE, (death + 1) * BEFORE)
        written = sorted(written + commit_and_kill(own_stack, numbers))
        own_stack.restart("kafka")
        wait_for(partial(_are_equal, operator, written), 15, lambda: f"in the log: {in_the_log(operator)}", every=0.5)
        assert committed(own_stack.settings("alerts")) == numbers.stop


def _are_equal(operator: Settings, written: list[bytes]) -> bool:
    return in_the_log(operator) == written
