"""alerts.transitions, read by a service whose positions are in the warehouse, written with what it makes of them.

Transitions are few: one process takes all partitions. A second one does no harm, for whoever moves a position first
has it.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any

import msgspec
from kafka import TopicPartition
from kafka.errors import KafkaError
from sqlalchemy import Connection, text

from connections import kafka
from connections.kafka_batches import Batches
from connections.warehouse import Warehouse
from fleet.channels import TRANSITIONS
from fleet.errors import Unavailable
from fleet.settings import Settings
from fleet.transition import Transition, decode_transition
from streaming.backoff import Backoff

MAX_BATCHES = 1
"""Of about 8,192 records each."""

Ends = dict[TopicPartition, int]
"""Of each partition that was read, the next offset."""


class TransitionLog:
    def __init__(self, settings: Settings, warehouse: Warehouse, table: str, log: logging.Logger):
        """`table` of the warehouse has the positions: history_offsets, dispatch_offsets."""
        self.settings, self.warehouse, self.table = settings, warehouse, table
        self.positions: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self.unreadable = self.failures = 0
        self._log = log

    def open(self) -> Any:
        """A consumer for `follow`. Raises Refused where this user may not read the topic."""
        kafka.check_access(self.settings, kafka.READ, [TRANSITIONS])
        consumer = kafka.consumer(self.settings, f"weir-{self.settings.role}", isolation_level="read_committed")
        self._batches = Batches(consumer)  # once for a consumer: it is changed for good
        return consumer

    def keep(self, follow: Callable[[], None], backoff: Backoff, stop: threading.Event) -> None:
        """`follow` until `stop`; again, after a pause, where Kafka or the database failed."""
        while not stop.is_set():
            try:
                follow()
            except (Unavailable, KafkaError) as error:
                self.failures += 1
                known = error if isinstance(error, Unavailable) else kafka.unavailable(self.settings, error)
                stop.wait(backoff.failed(str(known)))

    def follow(self, consumer: Any) -> None:
        """From where the tables end. Raises Unavailable, KafkaError."""
        places = kafka.partitions(consumer, [TRANSITIONS])
        consumer.assign(places)
        for place, (begin, end) in kafka.extents(consumer, places).items():
            at = self._position(place, begin)
            if at > end:
                raise Unavailable(
                    f"{place.topic}-{place.partition}: the table {self.table} says {at}, Kafka's log ends at {end}:"
                    f" the topic was made anew; delete that row of {self.table}"
                )
            self.positions[place], self._ends[place] = at, end
            consumer.seek(place, at)
        self._log.info("from %s", " ".join(f"{p.partition}:{at}" for p, at in self.positions.items()))

    def is_behind(self, consumer: Any) -> bool:
        """Whether some of what was in the log when `follow` began is to be read yet. The consumer's position is past
        the marks that end transactions, of which `poll` tells nothing."""
        return any(consumer.position(place) < end for place, end in self._ends.items())

    def poll(self, timeout_ms: int) -> tuple[list[Transition], Ends]:
        transitions, ends = [], Ends()
        for batch in self._batches.poll(timeout_ms, MAX_BATCHES):
            place = TopicPartition(batch.topic, batch.partition)
            for record in batch.records():
                if record.offset < self.positions[place]:
                    continue
                try:
                    transitions.append(decode_transition(record.value or b""))
                except msgspec.MsgspecError as error:
                    self.unreadable += 1
                    self._log.error("%s-%d offset %d is no transition: %s", *place, record.offset, error)
            ends[place] = batch.last_offset + 1
        return transitions, ends

    def move(self, connection: Connection, ends: Ends) -> None:
        """In the transaction of what was made of the transitions; `moved` when it is committed. Raises Unavailable."""
        for place, end in ends.items():
            moved = connection.execute(
                text(
                    f"UPDATE {self.table} SET next_offset = :end, updated_at = now()"  # noqa: S608
                    " WHERE kafka_topic = :topic AND kafka_partition = :partition AND next_offset = :begin"
                ),
                {"topic": place.topic, "partition": place.partition, "begin": self.positions[place], "end": end},
            )
            if moved.rowcount != 1:
                raise Unavailable(f"{place.topic}-{place.partition}: another process has moved its row of {self.table}")

    def moved(self, ends: Ends) -> None:
        self.positions |= ends

    def _position(self, place: TopicPartition, begin: int) -> int:
        """Where the tables end for this partition; where the log begins, if they have nothing of it yet."""
        where = {"topic": place.topic, "partition": place.partition, "begin": begin}
        with self.warehouse.transaction() as connection:
            connection.execute(
                text(f"INSERT INTO {self.table} VALUES (:topic, :partition, :begin) ON CONFLICT DO NOTHING"),  # noqa: S608
                where,
            )
            found = connection.execute(
                text(
                    f"SELECT next_offset FROM {self.table}"  # noqa: S608
                    " WHERE kafka_topic = :topic AND kafka_partition = :partition"
                ),
                where,
            )
            at = int(found.scalar_one())
        if at < begin:
            self._log.error("%s-%d offsets %d to %d are gone from Kafka", *place, at, begin - 1)
        return at
