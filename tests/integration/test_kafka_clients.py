"""Kafka's clients when Kafka says no, or nothing: each failure has its own words, and nothing lives on after it."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable

import pytest
from kafka import OffsetAndMetadata, TopicPartition
from kafka.admin import MemberToRemove
from kafka.errors import CommitFailedError, KafkaError
from pydantic import SecretStr

from connections import kafka
from connections.kafka_batches import GOAL
from fleet.errors import Refused, Unavailable
from fleet.settings import Settings
from stack.stack import Stack
from streaming.group import Member
from tests.integration.processes import wait_for

pytestmark = pytest.mark.stack
SENSOR_PARTITIONS = 4


@pytest.fixture
def member(settings_for: Callable[[str], Settings]) -> Callable[[str], Member]:
    """One of the group `live`, by its fixed name."""
    return lambda name: Member(settings_for("live").model_copy(update={"service_instance": name}), "live", ["sensor"])


def test_a_wrong_password_is_told_from_a_server_that_is_away(settings_for: Callable[[str], Settings]) -> None:
    settings = settings_for("bridge")
    wrong = settings.model_copy(update={"kafka_password": SecretStr("wrong")})
    with pytest.raises(Unavailable, match=r"does not let user 'bridge' in.*bridge\.env"):
        kafka.producer(wrong, "tests", bootstrap_timeout_ms=1500)
    away = settings.model_copy(update={"kafka_bootstrap": "127.0.0.1:1"})
    with pytest.raises(Unavailable, match=r"nothing answers at Kafka.s address 127\.0\.0\.1:1"):
        kafka.producer(away, "tests", bootstrap_timeout_ms=500)


def test_a_missing_right_is_named_before_anything_starts(settings_for: Callable[[str], Settings]) -> None:
    kafka.check_access(settings_for("landing"), kafka.READ, ["sensor", "readings.rejected"])
    with pytest.raises(Refused, match=r"user 'landing' cannot WRITE: sensor"):
        kafka.check_access(settings_for("landing"), kafka.WRITE, ["sensor"])
    with pytest.raises(Refused, match=r"cannot READ: nonesuch \(missing"):
        kafka.check_access(settings_for("landing"), kafka.READ, ["sensor", "nonesuch"])


def test_a_paused_partition_is_read_on_when_it_is_resumed(settings_for: Callable[[str], Settings]) -> None:
    """Also where more of it was fetched than a poll gives, and others were read to their end meanwhile."""
    producer = kafka.producer(settings_for("simulator"), "tests")
    confirmations = [producer.send("sensor", b"junk of the tests", partition=0) for _ in range(3 * GOAL)]
    end = confirmations[-1].get(30).offset + 1
    large, other = TopicPartition("sensor", 0), TopicPartition("sensor", 1)
    member = Member(settings_for("live"), "live", ["sensor"])
    read: Counter[TopicPartition] = Counter()

    def polled(*wanted: TopicPartition) -> bool:
        for place, records in member.poll(200).records.items():
            read[place] = records[-1].offset + 1
        return all(read[place] for place in wanted)

    try:
        wait_for(lambda: polled(large), 30, "nothing comes")
        assert read[large] < end
        member.consumer.pause(large)
        there = producer.send("sensor", b"junk of the tests", partition=1).get(10).offset
        wait_for(lambda: polled(other) and read[other] > there, 30, "the other partition is not read")
        before = read[large]
        assert before < end
        member.consumer.resume(large)
        wait_for(lambda: polled() and read[large] >= end, 10, lambda: f"it stands at {read[large]} of {end}")
    finally:
        member.close()
        producer.close(5)


def test_a_question_about_topics_that_was_forgotten_is_asked_again(settings_for: Callable[[str], Settings]) -> None:
    """As kafka-python leaves it where the answer to an earlier one comes after the subscription."""
    member = Member(settings_for("live"), "live", ["sensor"])
    cluster = member.consumer._coordinator._cluster
    try:
        wait_for(lambda: member.poll(100) and member.consumer.assignment(), 20, "it gets no partition")
        with cluster._lock:
            cluster._partitions, cluster._need_update = {}, False
        wait_for(lambda: member.poll(100) and cluster.partitions_for_topic("sensor"), 5, "it does not ask")
    finally:
        member.close()


def test_a_member_whose_heartbeats_stop_joins_again(settings_for: Callable[[str], Settings]) -> None:
    """As kafka-python leaves it now and then: joined, for all that it knows, and long forgotten by the broker."""
    member = Member(settings_for("live"), "live", ["sensor"])
    coordinator = member.consumer._coordinator

    def heard() -> bool:
        member.poll(200)
        return bool(coordinator.heartbeat.last_receive > stopped)

    try:
        stopped = 0.0
        wait_for(heard, 30, "no heartbeat is answered")
        coordinator._disable_heartbeat()
        stopped = time.monotonic()
        wait_for(heard, 30, "no heartbeat is answered any more")
    finally:
        member.close()


def test_a_member_killed_in_the_middle_of_a_rebalance_leaves_no_partition_to_nobody(
    member: Callable[[str], Member],
) -> None:
    """The first of its two rounds takes partitions from one member, the second gives them to another. The one that is
    to call for the second is killed, and back under its name before the broker misses it."""

    def of(*members: Member) -> list[set[TopicPartition]]:
        for one in members:
            one.poll(100)
        return [one.consumer.assignment() for one in members]

    first, everything = member("first"), {TopicPartition("sensor", n) for n in range(SENSOR_PARTITIONS)}
    members = [first]
    try:
        wait_for(lambda: of(first) == [everything], 20, "one alone does not get all partitions")
        coordinator = first.consumer._coordinator
        join_again = coordinator.request_rejoin
        coordinator.request_rejoin = lambda: join_again() if first.consumer.assignment() == everything else None
        second = member("second")
        members.append(second)
        wait_for(lambda: of(first, second)[0] < everything, 20, "nothing is taken from the first")
        first.consumer.close(autocommit=False)  # without a word to the broker: its name is fixed
        members[0] = again = member("first")
        wait_for(lambda: set.union(*of(again, second)) == everything, 20, lambda: f"{of(again, second)}")
    finally:
        for one in members:
            one.close()


def test_a_member_that_is_forgotten_while_it_joins_loses_its_partitions_before_it_is_one_again(
    member: Callable[[str], Member], settings_for: Callable[[str], Settings]
) -> None:
    """Its join lasts, as the second does not ask to join."""
    members = [member("first"), member("second")]
    first = members[0]

    def settled() -> bool:
        for one in members:
            one.poll(100)
        return all(one.is_settled() and len(one.consumer.assignment()) == SENSOR_PARTITIONS // 2 for one in members)

    lost: set[TopicPartition] = set()

    def told() -> set[TopicPartition]:
        lost.update(first.poll(100).lost)
        return lost

    try:
        wait_for(settled, 20, "they do not share the partitions")
        owned = first.consumer.assignment()
        coordinator = first.consumer._coordinator
        coordinator.request_rejoin()
        wait_for(lambda: not told() and coordinator.rebalance_in_progress(), 10, "it does not join again")
        admin = kafka.admin(settings_for("live"), "tests")
        name = first.consumer.config["group_instance_id"]
        removed = admin.remove_group_members("live", [MemberToRemove(group_instance_id=name)])
        admin.close()
        assert [error.__name__ for error in removed.values()] == ["NoError"]
        wait_for(lambda: told() == owned, 10, lambda: f"told of {lost}, not of {owned}")
        with pytest.raises(CommitFailedError, match="no member of group live"):
            first.metadata()
        wait_for(settled, 20, "they do not share the partitions again")
    finally:
        for one in members:
            one.close()


def test_members_that_poll_in_turns_come_to_an_end(member: Callable[[str], Member]) -> None:
    """Each join of the first, which leads the group, ends while the second polls."""

    def settled(share: int) -> bool:
        for one, milliseconds in zip(members, (50, 1_500), strict=False):
            one.poll(milliseconds)
        return all(one.is_settled() and len(one.consumer.assignment()) == share for one in members)

    members = [member("leader")]
    try:
        wait_for(lambda: settled(SENSOR_PARTITIONS), 20, "one alone does not get all partitions")
        members.append(member("follower"))
        wait_for(lambda: settled(SENSOR_PARTITIONS // 2), 8, "their joins never end")
    finally:
        for one in members:
            one.close()


def test_a_question_that_was_given_up_is_asked_anew(
    member: Callable[[str], Member], stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kafka-python has the answer that came too late for whoever asks next."""
    place, asker = TopicPartition("sensor", 0), member("asker")
    pid = stack.supervisor.programs()["kafka"]["pid"]
    try:
        wait_for(lambda: asker.poll(100) and asker.is_settled(), 20, "it does not join")
        asker.consumer.commit({place: OffsetAndMetadata(1, "", -1)})
        monkeypatch.setattr(kafka, "ANSWER_MS", 500)
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(Unavailable, match="did not say"):
                asker.committed(place)
        finally:
            os.kill(pid, signal.SIGCONT)
        monkeypatch.setattr(kafka, "ANSWER_MS", 10_000)
        asker.consumer.commit({place: OffsetAndMetadata(2, "", -1)})
        assert asker.committed(place) == 2
    finally:
        asker.close()


def test_a_producer_that_gave_up_can_be_ended(settings_for: Callable[[str], Settings], stack: Stack) -> None:
    options = {"delivery_timeout_ms": 2_000, "request_timeout_ms": 1_500}
    producer = kafka.producer(settings_for("simulator"), "tests", **options)
    producer.send("sensor", b"junk of the tests").get(10)
    stack.supervisor.stop_program("kafka")
    try:
        lost = producer.send("sensor", b"junk that must not be written later")
        wait_for(lambda: lost.is_done, 15, "it never gives up")
        assert isinstance(lost.exception, KafkaError)
        held = producer.send("sensor", b"junk that must not be written later")
        kafka.close(producer)
        wait_for(lambda: not producer._sender.is_alive(), 10, "its thread lives on")
        assert held.is_done
    finally:
        stack.restart("kafka")
