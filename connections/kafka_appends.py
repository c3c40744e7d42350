"""Records into a producer's open batches, without two thirds of what kafka-python spends on each.

`Appender(producer).send(topic, value, key)` is `producer.send(topic, value, key)`: the same record in the same batch of
the same partition, and a confirmation with the `is_done` and `exception` of the library's future. kafka-python makes
each record a future of its own, with a lock, callbacks and metadata, on two threads. Here a batch's first record goes
the library's way, which makes the batch and wakes the sender; one that finds a batch open is added to it, and its
confirmation looks at the batch's.

Written against kafka-python 3.0.12 and what is looked up in `obstacles`. Anywhere else, all go the library's way.
"""

import logging
from collections.abc import Callable
from typing import Any

import kafka
from kafka import KafkaProducer, TopicPartition
from kafka.producer.producer_batch import ProducerBatch
from kafka.producer.record_accumulator import RecordAccumulator

from connections.kafka import INTERNALS_OF, Remembering, hash_of

ACCUMULATOR = ("_batches", "_tp_lock")
SERIALIZERS = ("key_serializer", "value_serializer")

log = logging.getLogger("weir.kafka")


class Confirmation:
    """Of a record that was added to an open batch: written or refused with its batch, as Kafka does it."""

    __slots__ = ("_index", "_produced")

    def __init__(self, produced: Any, index: int):
        self._produced, self._index = produced, index

    @property
    def is_done(self) -> bool:
        return bool(self._produced.is_done)

    @property
    def exception(self) -> BaseException | None:
        """Once it is done: None where Kafka has the record."""
        produced = self._produced
        if not produced.is_done or produced.exception is not None:
            return produced.exception
        exception_of = produced.value[2]
        return None if exception_of is None else exception_of(self._index)

    def rebind(self, produced: Any, index: int) -> None:
        """By the library, when it splits a batch that is too large for its topic; who waits looks again."""
        self._produced._latch.set()
        self._produced, self._index = produced, index


class Appender:
    """For one thread, which shares its producer with no other."""

    def __init__(self, producer: KafkaProducer):
        self._producer = producer
        found = obstacles(producer)
        self.fast = not found
        self.send: Callable[[str, bytes, bytes], Any] = producer.send if found else self._add
        """(topic, value, key) → the record's confirmation. Raises what KafkaProducer.send() raises."""
        if found:
            log.warning("Kafka is written in the library's way, at three times the cost: %s", "; ".join(found))
        else:
            self._accumulator: RecordAccumulator = producer._accumulator
            self._cluster = producer._metadata

    def linger(self, milliseconds: int) -> None:
        """How long a batch waits for more records, from now on; in the library's way that stays as it was."""
        if self.fast:
            self._accumulator.config["linger_ms"] = milliseconds

    def _add(self, topic: str, value: bytes, key: bytes) -> Any:
        if partitions := self._cluster.partitions_for_topic(topic):
            place = TopicPartition(topic, hash_of(key) % len(partitions))
            with self._accumulator._tp_lock(place):  # the sender takes batches away
                if batches := self._accumulator._batches[place]:
                    batch: ProducerBatch = batches[-1]
                    added = batch.records.append(None, key, value)
                    if added is not None:  # it is neither closed nor full
                        confirmation = Confirmation(batch.produce_future, added.offset)
                        batch._record_futures.append(confirmation)
                        return confirmation
        return self._producer.send(topic, value, key)


def obstacles(producer: KafkaProducer) -> list[str]:
    """Why this producer cannot be written to the fast way; empty: it can."""
    if kafka.__version__ != INTERNALS_OF:
        return [f"kafka-python is {kafka.__version__}, its internals are known of {INTERNALS_OF} alone"]
    accumulator = getattr(producer, "_accumulator", None)
    found = [f"the producer's accumulator has no {name}" for name in ACCUMULATOR if not hasattr(accumulator, name)]
    if "linger_ms" not in getattr(accumulator, "config", ()):
        found.append("the accumulator's configuration has no linger_ms")
    if not hasattr(getattr(producer, "_metadata", None), "partitions_for_topic"):
        found.append("the producer has no _metadata.partitions_for_topic")
    if found:
        return found
    config = producer.config
    if config["max_request_size"] < config["batch_size"]:
        found.append("the producer's max_request_size is below its batch_size")
    if config["transactional_id"] is not None:
        found.append("the producer is transactional")
    if any(config[name] is not None for name in SERIALIZERS):
        found.append("the producer has serializers")
    if not isinstance(config["partitioner"], Remembering):
        found.append("the producer has another partitioner")
    return found
