"""Where the alerts' state is kept: in the compacted topic alerts.state.<system>, of each partition in the same one."""

import time
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError

from connections import kafka
from fleet.errors import Unavailable
from fleet.settings import Settings
from fleet.snapshot_chunks import Snapshot, assemble, chunks

POLL_MS = 200
READ_SECONDS = 20


def write(producer: Any, place: TopicPartition, snapshot: Snapshot) -> int:
    """In a transaction of its own, so that a worker that was fenced writes none. Returns its size in bytes. Raises
    KafkaError."""
    size, sent = 0, []
    producer.begin_transaction()
    for key, value in chunks(snapshot):
        sent.append(producer.send(place.topic, value, key, partition=place.partition))
        size += len(value)
    for one in sent:
        one.get(READ_SECONDS)
    producer.commit_transaction()
    return size


class SnapshotReader:
    """A consumer of its own, without a group: reading a snapshot disturbs no position."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._consumer: Any = kafka.consumer(settings, "weir-alerts-state", isolation_level="read_committed")

    def read(self, place: TopicPartition) -> tuple[list[Snapshot], list[str]]:
        """Whole snapshots, newest first, and what is wrong with the others. Raises Unavailable."""
        try:
            self._consumer.assign([place])
            self._consumer.seek_to_beginning(place)
            end = self._consumer.end_offsets([place], timeout_ms=kafka.ANSWER_MS)[place]
            found: list[tuple[bytes | None, bytes | None]] = []
            deadline = time.monotonic() + READ_SECONDS
            while (self._consumer.position(place, timeout_ms=kafka.ANSWER_MS) or 0) < end:  # None: not known by then
                if time.monotonic() > deadline:
                    raise Unavailable(f"{place.topic}-{place.partition} was not read in {READ_SECONDS} s")
                for records in self._consumer.poll(timeout_ms=POLL_MS).values():
                    found += ((record.key, record.value) for record in records)
        except KafkaError as error:
            raise Unavailable(str(kafka.unavailable(self._settings, error))) from error
        return assemble(found)

    def close(self) -> None:
        self._consumer.close(autocommit=False)
