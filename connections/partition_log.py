"""The records of one Kafka partition, as they stand in its log."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError

from connections import kafka
from connections.kafka_batches import Batches
from connections.record_batch import RecordBatch
from fleet.errors import Unavailable
from fleet.log_record import LogRecord
from fleet.settings import Settings

POLL_MS = 200
STALLED_SECONDS = 30


@dataclass(frozen=True)
class Log:
    """Where a partition's log begins, and ended when it was looked at."""

    topic: str
    partition: int
    begin: int
    end: int


class LogReader:
    """A consumer of its own, without a group, of one topic's committed records."""

    def __init__(self, settings: Settings, topic: str):
        """Raises Unavailable, Refused."""
        self._settings, self._topic = settings, topic
        self._consumer: Any = kafka.consumer(settings, "weir-replay", isolation_level="read_committed")
        try:
            self._batches = Batches(self._consumer)
            self.partitions = [place.partition for place in kafka.partitions(self._consumer, [topic])]
        except BaseException:
            self.close()
            raise

    def log(self, partition: int) -> Log:
        place = TopicPartition(self._topic, partition)
        try:
            return Log(self._topic, partition, *kafka.extents(self._consumer, [place])[place])
        except KafkaError as error:
            raise kafka.unavailable(self._settings, error) from error

    def read(self, log: Log, take: Callable[[RecordBatch], bool]) -> None:
        """Until `take` says False, or the log's end as it was. Raises Unavailable."""
        place = TopicPartition(log.topic, log.partition)
        try:
            self._consumer.assign([place])
            self._consumer.seek(place, log.begin)
            deadline = time.monotonic() + STALLED_SECONDS
            while self._consumer.position(place) < log.end:
                for records in self._batches.poll(timeout_ms=POLL_MS):
                    if not take(records):
                        return
                    deadline = time.monotonic() + STALLED_SECONDS
                if time.monotonic() > deadline:
                    at = self._consumer.position(place)
                    said = f"{log.topic}-{log.partition} was read to {at} of {log.end}, and no further"
                    raise Unavailable(f"{said} in {STALLED_SECONDS} s; see `weir status`")
        except KafkaError as error:
            raise kafka.unavailable(self._settings, error) from error

    def close(self) -> None:
        self._consumer.close(autocommit=False)


def lines_of(records: RecordBatch, position: int = 0) -> list[LogRecord]:
    """Those from an offset on."""
    new = records.from_offset(position)
    if new is None:
        return []
    places = zip(new.offsets.tolist(), new.timestamps_ms.tolist(), new.values(), strict=True)
    return [LogRecord(offset, append, new.marks.get(n), value) for n, (offset, append, value) in enumerate(places)]


def committed(settings: Settings, group: str, topic: str) -> dict[int, int | None]:
    """Partition → the next offset of the group, None where it has none. Raises Unavailable, Refused."""
    consumer = kafka.consumer(settings, "weir-committed", group)
    try:
        return {
            place.partition: consumer.committed(place, timeout_ms=kafka.ANSWER_MS)
            for place in kafka.partitions(consumer, [topic])
        }
    except KafkaError as error:
        raise kafka.unavailable(settings, error) from error
    finally:
        consumer.close(autocommit=False)
