"""Kafka's records in batches of spans, without the 8 µs that kafka-python spends on each.

`Batches(consumer).poll()` gives what `consumer.poll()` does, position, pauses, rebalances and transactions
(read_committed) included, as RecordBatch instead of ConsumerRecord objects: up to some thousand records of one
partition with their bytes in one buffer.

kafka-python has no public way in. This takes its own, a subclass of `Fetcher.PartitionRecords`, which turns the bytes
of a fetch into records; all else, checksums and positions among it, stays the library's. It is written against version
3.0.12 and what is looked up in `obstacles`. Anywhere else, and for batches of another message format, the same
RecordBatch objects are built from the library's records: slower, and nothing else is different.
"""

import inspect
import logging
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import kafka
import numpy as np
from kafka import KafkaConsumer
from kafka.errors import CorruptRecordError

from connections.kafka import INTERNALS_OF
from connections.record_batch import RecordBatch, batch_of_records
from connections.record_spans import PADDING, BadRecords, spans_of

GOAL = 8192
"""Records of a RecordBatch, about: Kafka's own batches are put together until there are so many. 8,192 readings of 150
bytes are 1.2 MB, which stays in the processor's cache while they are gone through."""
FORMAT = 2
"""Kafka's message format since 0.11, the only one that today's brokers write."""
LOG_APPEND_TIME = 1
READ_COMMITTED = 1
PARSER = (
    "_unpack_records", "_maybe_skip_record", "_consume_aborted_transactions_up_to", "_is_batch_aborted",
    "_contains_abort_marker", "drain",
)  # fmt: skip
"""What of the library's PartitionRecords is called or replaced."""
BUSY_RECORDS = 16
"""A poll that brings so many is one of a busy time: docs/decisions/0032."""
BUSY_WAIT_MS, BUSY_BYTES = 10, 64 * 1024
"""A fetch of a busy time is answered when so much has come, or so long after. Else it is answered at the first record;
but while records of some partitions are in hand it waits no longer either: it leaves those partitions out, and holds up
their next fetch. What is asked follows the poll before, so the first fetch of a busy time may still wait long."""
FETCHER = ("_completed_fetches", "_next_partition_records")
"""Where the library's Fetcher has what is in hand."""
FETCHES = ("fetch_max_wait_ms", "fetch_min_bytes")
"""What each fetch takes from its configuration."""
UNPACK_ARGUMENTS = ("self", "tp", "records", "key_deserializer", "value_deserializer")

log = logging.getLogger("weir.kafka")


class Batches:
    """A consumer's records in batches. Nothing else may read this consumer: its own poll() would give batches too."""

    def __init__(self, consumer: KafkaConsumer):
        self._consumer = consumer
        found = obstacles(consumer)
        self.fast = not found
        if found:
            log.warning("Kafka is read record by record, about a tenth as fast: %s", "; ".join(found))
        else:
            fetcher = consumer._fetcher
            self._wait_ms, self._bytes = (fetcher.config[name] for name in FETCHES)
            fetcher.PartitionRecords = type("PartitionBatches", (_PartitionBatches, fetcher.PartitionRecords), {})

    def poll(self, timeout_ms: int = 0, max_batches: int = 4) -> list[RecordBatch]:
        """What has come: at most `max_batches` of about GOAL records each; of one partition in order of offset. The
        consumer's position is then after the last of them. Raises what KafkaConsumer.poll() raises."""
        if self.fast:
            polled = self._consumer.poll(timeout_ms=timeout_ms, max_records=max_batches)
            found = [batch for batches in polled.values() for batch in batches]
            fetcher = self._consumer._fetcher
            is_busy = sum(map(len, found)) >= BUSY_RECORDS
            has_more = bool(fetcher._completed_fetches or fetcher._next_partition_records)
            fetcher.config["fetch_max_wait_ms"] = BUSY_WAIT_MS if is_busy or has_more else self._wait_ms
            fetcher.config["fetch_min_bytes"] = BUSY_BYTES if is_busy else self._bytes
            return found
        polled = self._consumer.poll(timeout_ms=timeout_ms, max_records=max_batches * GOAL)
        return [batch_of_records(place.topic, place.partition, records) for place, records in polled.items()]


def obstacles(consumer: KafkaConsumer) -> list[str]:
    """Why this consumer cannot be read the fast way; empty: it can."""
    if kafka.__version__ != INTERNALS_OF:
        return [f"kafka-python is {kafka.__version__}, its internals are known of {INTERNALS_OF} alone"]
    parser = getattr(getattr(consumer, "_fetcher", None), "PartitionRecords", None)
    if parser is None:
        return ["the consumer has no _fetcher.PartitionRecords"]
    found = [f"PartitionRecords has no {name}" for name in PARSER if not callable(getattr(parser, name, None))]
    if "_unpack_records" in vars(parser):
        arguments = tuple(inspect.signature(parser._unpack_records).parameters)
        if arguments != UNPACK_ARGUMENTS:
            found.append(f"PartitionRecords._unpack_records takes {', '.join(arguments)}")
    fetcher = consumer._fetcher
    found += [f"the fetcher has no {name}" for name in FETCHER if not hasattr(fetcher, name)]
    found += [f"the fetcher's configuration has no {name}" for name in FETCHES if name not in fetcher.config]
    if any(consumer.config.get(name) is not None for name in ("key_deserializer", "value_deserializer")):
        found.append("the consumer has deserializers")
    return found


class _PartitionBatches:
    """Put before the library's PartitionRecords, which holds what came of one partition in one fetch and gives it out
    through _unpack_records: here as RecordBatch objects."""

    fetch_offset: int
    next_fetch_offset: int
    leader_epoch: int
    isolation_level: int
    aborted_producer_ids: set[int]
    check_crcs: bool
    records_read: int
    bytes_read: int
    drain: Any
    _consume_aborted_transactions_up_to: Any
    _is_batch_aborted: Any
    _contains_abort_marker: Any

    def _maybe_skip_record(self, record: RecordBatch) -> bool:
        return False  # _unpack_records has dropped what lies before the fetch's offset

    def _unpack_records(self, tp: Any, records: Any, key_deserializer: Any, value_deserializer: Any) -> Iterator[Any]:
        """The consumer's position follows next_fetch_offset, so that moves only with what is given out. The last is
        given out drained: a partition whose end nobody has looked for is left out of the next fetch, whose answer may
        take fetch_max_wait_ms."""
        groups = self._groups(tp, records)
        try:
            group = next(groups, None)
            while group is not None:
                found = group.close(tp.topic, tp.partition)
                self.next_fetch_offset = group.next_offset
                batch = found and found.from_offset(self.fetch_offset)
                if batch is not None:
                    self.records_read += len(batch)
                    self.bytes_read += len(batch.buffer)
                try:
                    group = next(groups, None)
                except Exception:
                    if batch is None:
                        raise
                    group = None  # raised by the next fetch, which begins there
                if group is None:
                    self.drain()
                if batch is not None:
                    yield batch
        except Exception:
            self.drain()  # the next poll fetches from the position again, and says so again
            raise
        self.drain()

    def _groups(self, tp: Any, records: Any) -> Iterator["_Group"]:
        """What can be read before something that cannot is given out before that is raised."""
        group = _Group()
        try:
            while (batch := records.next_batch()) is not None:
                if self.check_crcs and not batch.validate_crc():
                    raise _wrong_checksum(tp.topic, tp.partition, batch.base_offset)
                if batch.magic == FORMAT and self._passes_over(batch):
                    group.next_offset = batch.next_offset
                    continue
                group.add(batch)
                if group.count >= GOAL:
                    full, group = group, _Group()
                    yield full
        except Exception:
            if group.next_offset:
                yield group
            raise
        if group.next_offset:
            yield group

    def _passes_over(self, batch: Any) -> bool:
        """As the library does it: what an aborted transaction wrote, and the marks that end transactions."""
        self.leader_epoch = batch.leader_epoch
        if self.isolation_level == READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)


class _Group:
    """Batches of Kafka, one after the other, on their way into one RecordBatch."""

    def __init__(self) -> None:
        self.count = 0
        self.next_offset = 0
        """Of the record after the group; 0 before it has anything."""
        self._batches: list[Any] = []
        self._chunks: list[memoryview] = []
        self._heads: list[tuple[int, int, int]] = []
        """Of each batch: base offset, first timestamp, and the one timestamp of all its records or -1."""
        self._is_foreign = False

    def add(self, batch: Any) -> None:
        if batch.magic != FORMAT:
            self._is_foreign = True
            self._batches.append(batch)
            self.count += GOAL
            self.next_offset = max(self.next_offset, batch.base_offset + 1)
            return
        self.next_offset = batch.next_offset
        if batch.records_count == 0:  # what compaction leaves of a producer's last batch
            return
        batch._maybe_uncompress()
        self._batches.append(batch)
        self._chunks.append(memoryview(batch._buffer)[batch._pos :])
        append_ms = batch.max_timestamp if batch.timestamp_type == LOG_APPEND_TIME else -1
        self._heads.append((batch.base_offset, batch.first_timestamp, append_ms))
        self.count += batch.records_count

    def close(self, topic: str, partition: int) -> RecordBatch | None:
        """Raises CorruptRecordError."""
        if not self._batches:
            return None
        if not self._is_foreign:
            try:
                return self._indexed(topic, partition)
            except BadRecords as error:
                log.error("%s-%d before offset %d: %s; reading it record by record", topic, partition,
                          self.next_offset, error)  # fmt: skip
        records = [record for batch in self._batches for record in batch]
        for record in records:
            if not record.validate_crc():
                raise _wrong_checksum(topic, partition, record.offset)
        if not records:
            return None
        self.next_offset = max(self.next_offset, records[-1].offset + 1)
        return batch_of_records(topic, partition, records)

    def _indexed(self, topic: str, partition: int) -> RecordBatch:
        buffer = b"".join([*self._chunks, PADDING])
        counts = [batch.records_count for batch in self._batches]
        spans = spans_of(buffer, list(accumulate(map(len, self._chunks))), counts)
        base, first, append = np.repeat(np.array(self._heads, np.int64).T, counts, axis=1)
        return RecordBatch(
            topic, partition, base + spans.offset_deltas,
            np.where(append >= 0, append, first + spans.timestamp_deltas_ms),
            buffer, spans.key_starts, spans.key_lengths, spans.value_starts, spans.value_lengths, spans.headers,
        )  # fmt: skip


def _wrong_checksum(topic: str, partition: int, offset: int) -> CorruptRecordError:
    return CorruptRecordError(f"the checksum of {topic}-{partition} at offset {offset} is wrong")
