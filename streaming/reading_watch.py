"""The readings of devices that have commands under way: Kafka's log from when the first of them was sent.

No group and no committed position: what is under way says from where the log is to be read, after a restart too.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
from kafka import TopicPartition

from connections import kafka
from connections.kafka_batches import Batches
from fleet.channels import mark_of
from fleet.reading import Reading, decode_reading
from fleet.settings import Settings

MAX_BATCHES = 4
MARGIN = timedelta(seconds=5)
"""So far Kafka's clock may be from ours. Beyond it the first reading after a command may be missed, and the next is
not."""

log = logging.getLogger("weir.commander")


class ReadingWatch:
    """Methods raise Unavailable, KafkaError."""

    def __init__(self, settings: Settings, topics: Iterable[str]):
        self.topics = tuple(sorted(topics))
        self._consumer: Any = None
        if self.topics and (missing := kafka.access_problems(settings, kafka.READ, self.topics)):
            for problem in missing.items():
                log.error("topic=%s %s; whether its devices obey is not seen before `make up` was run", *problem)
            self.topics = tuple(topic for topic in self.topics if topic not in missing)
        if not self.topics:
            return
        self._consumer = kafka.consumer(settings, "weir-commander-readings")
        self._batches = Batches(self._consumer)
        self._places = kafka.partitions(self._consumer, self.topics)
        self._consumer.assign(self._places)

    def begin(self, since: datetime) -> None:
        """From what was appended then on."""
        if self._consumer is None:
            return
        at = int((since - MARGIN).timestamp() * 1000)
        ends = self.ends()  # first: what is appended between the two questions is to be read
        found = self._consumer.offsets_for_times(dict.fromkeys(self._places, at), timeout_ms=kafka.ANSWER_MS)
        for place in self._places:
            self._consumer.seek(place, found[place].offset if found.get(place) else ends[place])

    def poll(self, timeout_ms: int) -> Iterator[Reading]:
        if self._consumer is None:
            return
        for batch in self._batches.poll(timeout_ms, MAX_BATCHES):
            for record in batch.records():
                if mark_of(record.headers) is None:
                    try:
                        yield decode_reading(record.value or b"")
                    except msgspec.MsgspecError:
                        continue  # landing keeps account of it

    def ends(self) -> dict[TopicPartition, int]:
        """Of each partition, the offset after all that is in the log by now."""
        if self._consumer is None:
            return {}
        return dict(self._consumer.end_offsets(self._places, timeout_ms=kafka.ANSWER_MS))

    def has_read(self, ends: Mapping[TopicPartition, int]) -> bool:
        return all(self._consumer.position(place) >= end for place, end in ends.items())

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close(autocommit=False)
