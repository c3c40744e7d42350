"""A member of a consumer group, which is told what it gained and lost in its own loop, not in the middle of a call."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar

from kafka import ConsumerRebalanceListener, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.base import MemberState
from kafka.errors import CommitFailedError, FencedInstanceIdError, KafkaError, KafkaTimeoutError, UnknownMemberIdError
from kafka.structs import ConsumerGroupMetadata

from connections import kafka
from connections.kafka_batches import Batches
from connections.record_batch import Record
from fleet.errors import Unavailable
from fleet.settings import Settings
from streaming.watchdog import Watchdog

SESSION_TIMEOUT_MS = 10_000
HEARTBEAT_MS = 1_000
"""By its answer a member learns that another came or went; moving a partition takes two."""
MAX_BATCHES = 1
"""In one poll, of about 8,192 records."""
Result = TypeVar("Result")

log = logging.getLogger("weir.group")


class Polled(NamedTuple):
    """A partition in both `lost` and `gained` was lost first; records of one that was gained are no use: they were
    fetched before anybody said where to begin."""

    lost: set[TopicPartition]
    gained: set[TopicPartition]
    records: dict[TopicPartition, list[Record]]


class Member:
    """Of the group of the service's own name. The consumer never commits by itself."""

    def __init__(self, settings: Settings, group: str, topics: Iterable[str], **options: Any):
        """`options`: more of kafka-python's for the consumer. Raises Unavailable, Refused."""
        self.settings, self.group, self.topics = settings, group, tuple(topics)
        self.consumer = kafka.consumer(
            settings, f"weir-{group}", group,
            group_instance_id=kafka.instance_id(settings, group),
            partition_assignment_strategy=(CooperativeStickyAssignor,), session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=HEARTBEAT_MS, **options,
        )  # fmt: skip
        self.batches = Batches(self.consumer)
        self._rebalances = _Rebalances()
        self._watchdog = Watchdog()
        self._has_joined = False
        _keep_joins(self.consumer._coordinator)
        _lose_before_joining(self.consumer._coordinator)
        self.consumer.subscribe(list(self.topics), listener=self._rebalances)

    def poll(self, milliseconds: int) -> Polled:
        """Raises what `told` raises."""
        batches = self.told(lambda: self.batches.poll(milliseconds, MAX_BATCHES))
        records: dict[TopicPartition, list[Record]] = {}
        for batch in batches:
            records.setdefault(TopicPartition(batch.topic, batch.partition), []).extend(batch.records())
        return Polled(*self.moved(), records)

    def told(self, call: Callable[[], Result]) -> Result:
        """What a poll of the consumer gives. One that hangs ends the process. Raises Unavailable, or Refused where
        another has taken this member's name."""
        self._give_back_what_was_parked()
        self._ask_for_topics_unknown()
        self._join_again_where_forgotten()
        self._join_twice()
        try:
            with self._watchdog:
                return call()
        except FencedInstanceIdError as error:
            raise kafka.fenced(self.settings, self.group) from error
        except KafkaError as error:
            raise kafka.unavailable(self.settings, error) from error

    def is_settled(self) -> bool:
        """This member knows of no rebalance under way. While one is, the broker holds the question to join and answers
        nothing else on the coordinator's connection: whoever asks for `committed` then neither polls nor joins."""
        coordinator = self.consumer._coordinator
        return coordinator.generation_if_stable() is not None and not coordinator.need_rejoin()

    def committed(self, place: TopicPartition) -> int | None:
        """What the group has committed, if anything. Raises Unavailable, KafkaError."""
        # kafka-python 3.0.12 keeps a question that was given up, and has its answer, however old, for the next one.
        self.consumer._coordinator._offset_fetch_futures.pop(frozenset([place]), None)
        with self._watchdog:
            try:
                found = self.consumer.committed(place, timeout_ms=kafka.ANSWER_MS)
            except KafkaTimeoutError:
                seconds = kafka.ANSWER_MS // 1000
                raise Unavailable(f"Kafka did not say within {seconds} s what is committed") from None
        return None if found is None else int(found)

    def metadata(self) -> ConsumerGroupMetadata:
        """As whom offsets are committed in a transaction. Raises CommitFailedError while the group does not know this
        member: of nobody the broker takes any offsets, once all others have left."""
        found = self.consumer.group_metadata()
        if found.generation_id < 0:
            raise CommitFailedError(f"no member of group {self.group} at the moment")
        return found

    def moved(self) -> tuple[set[TopicPartition], set[TopicPartition]]:
        """(lost, gained) since the last call; a partition in both was lost first."""
        return self._rebalances.take()

    @contextmanager
    def held(self) -> Iterator[tuple[set[TopicPartition], set[TopicPartition]]]:
        """As `moved`; and until the block ends no partition changes hands, for the I/O thread waits to tell of it."""
        with self._rebalances.lock:
            yield self._rebalances.take()

    def _give_back_what_was_parked(self) -> None:
        """kafka-python 3.0.12 sets the rest of a fetch aside when its partition is paused, and takes it up again while
        the place for records in hand is None; after any other partition was read to its end an empty object stands
        there. The resumed partition would then be read no further, for good and without a word."""
        fetcher = self.consumer._fetcher
        if not fetcher._next_partition_records:
            fetcher._next_partition_records = None

    def _ask_for_topics_unknown(self) -> None:
        """kafka-python 3.0.12 forgets that it must ask about topics subscribed to while an earlier question is under
        way. As the group's leader it then assigns none of their partitions, until it asks by itself after 5 minutes."""
        cluster = self.consumer._coordinator._cluster
        if not cluster.need_update and any(cluster.partitions_for_topic(topic) is None for topic in self.topics):
            cluster.request_update()

    def _join_again_where_forgotten(self) -> None:
        """kafka-python 3.0.12 can take itself for joined with no partition and no heartbeats under way: seen at one of
        seven starts of a fresh stack, where three groups begin at once. It would stay so, with a core busy."""
        coordinator = self.consumer._coordinator
        if coordinator.need_rejoin() or coordinator.coordinator_unknown():
            return
        if coordinator.heartbeat.session_timeout_expired():
            log.warning("group=%s no heartbeats for %d s: joining again", self.group, SESSION_TIMEOUT_MS // 1000)
            coordinator.heartbeat.reset_timeouts()
            coordinator.request_rejoin()

    def _join_twice(self) -> None:
        """A rebalance has two rounds: the first takes partitions from a member, which then calls for the second, in
        which others get them. Where that member was killed in between, and is back under its name before the broker
        misses it, the broker gives it what the first round left it, and nobody calls: the partitions taken would be
        nobody's until another member comes or goes. So who has just joined calls once; who has partitions keeps them.
        """
        coordinator = self.consumer._coordinator
        if not self._has_joined and coordinator.generation_if_stable() is not None:
            self._has_joined = True
            coordinator.request_rejoin()

    def close(self) -> None:
        self.consumer.close(autocommit=False)


def _keep_joins(coordinator: Any) -> None:
    """kafka-python 3.0.12 throws a join away that ends between two polls and joins once more, for which all others have
    to join again, too: members that take turns then never come to an end. Here that join takes what the last one got,
    unless the broker has missed our heartbeats since.
    """
    join = coordinator._do_join_and_sync_async
    kept: tuple[float, bytes] | None = None

    async def join_or_take_up() -> bytes:
        nonlocal kept
        is_taken = coordinator.state is not MemberState.REBALANCING
        if kept is None or is_taken or time.monotonic() - kept[0] > SESSION_TIMEOUT_MS / 1000:
            kept = None
            assignment = await join()
            kept = time.monotonic(), assignment
        return kept[1]

    coordinator._do_join_and_sync_async = join_or_take_up


def _lose_before_joining(coordinator: Any) -> None:
    """kafka-python 3.0.12 says nothing of partitions lost where the broker forgot the member while it was joining: it
    joins as a new one and still has them, until that join ends. Offsets committed meanwhile are in a generation that is
    in force, of partitions that are another's."""
    join = coordinator._do_join_and_sync_async

    async def lose_or_join() -> bytes:
        if coordinator._generation.is_lost() and coordinator._subscription.assigned_partitions():
            coordinator.rejoining = False  # who asked begins anew, with telling what was lost
            raise UnknownMemberIdError("forgotten while it joined")
        joined: bytes = await join()
        return joined

    coordinator._do_join_and_sync_async = lose_or_join


class _Rebalances(ConsumerRebalanceListener):
    """Called on kafka-python's I/O thread, so it only notes what changed."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._gained: set[TopicPartition] = set()
        self._lost: set[TopicPartition] = set()

    def on_partitions_assigned(self, assigned: Any) -> None:
        with self.lock:
            self._gained |= set(assigned)

    def on_partitions_revoked(self, revoked: Any) -> None:
        with self.lock:
            self._gained -= set(revoked)
            self._lost |= set(revoked)

    on_partitions_lost = on_partitions_revoked

    def take(self) -> tuple[set[TopicPartition], set[TopicPartition]]:
        """(lost, gained) since the last call."""
        with self.lock:
            lost, gained = self._lost, self._gained
            self._lost, self._gained = set(), set()
            return lost, gained


def pause(consumer: Any, *places: TopicPartition) -> None:
    """A partition may be revoked on kafka-python's I/O thread before `take` tells of it: then there is nothing left to
    pause, and kafka-python raises KeyError. The same holds for `resume` and, with ValueError, for `seek`."""
    for place in places:
        with suppress(KeyError):
            consumer.pause(place)


def resume(consumer: Any, *places: TopicPartition) -> None:
    for place in places:
        with suppress(KeyError):
            consumer.resume(place)


def seek(consumer: Any, place: TopicPartition, offset: int) -> None:
    with suppress(KeyError, ValueError):
        consumer.seek(place, offset)
