"""A partition's log through the rules once more, up to a moment of one device, telling nobody.

It is the alert service's own evaluation: the same shard over the same records, from the log's beginning, heartbeats and
control records included. It ends before the first record that takes the device beyond the moment: a reading, or a timer
that is due later; a control record that was decided later, once the watermark has passed the moment.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from kafka import TopicPartition
from kafka.errors import KafkaError

from connections import kafka
from connections.kafka_batches import Batches
from connections.record_batch import RecordBatch
from fleet.alert_state import LONG_AGO
from fleet.channels import CONTROL
from fleet.columns import ColumnReader
from fleet.contract import MAX_FUTURE_US
from fleet.control import Device, Site, Spec, decode_control
from fleet.device_state import DeviceState
from fleet.engine import Engine
from fleet.errors import Unavailable
from fleet.settings import Settings
from fleet.spec import RuledType
from fleet.witness import Event, Subject, Witness
from streaming.shard import Shard

POLL_MS = 200
STALLED_SECONDS = 30


class Replay:
    """No I/O. After `take` said False, or all of the log was taken, `engine` stands at the moment."""

    def __init__(
        self, partition: int, reader: ColumnReader, subject: Subject, at_us: int, begin: int = 0,
        specs: Iterable[RuledType] = (),
    ):  # fmt: skip
        """`begin`: the log's first offset. `specs`: the rules to begin with, where the log's own beginning is gone."""
        self.subject, self.at_us = subject, at_us
        self.position = begin
        """The first offset that was not taken."""
        self.first_later: int | None = None
        """Where the device was not there at the moment: the time of what the log has of it next."""
        self._reader = reader
        self._begin_with(Engine(partition, specs), (), LONG_AGO)

    def _begin_with(self, engine: Engine, events: Iterable[Event], evaluated_us: int) -> None:
        self.engine = engine
        self.witness = engine.evaluator = Witness(engine.journal, self.subject, events)
        self.witness.evaluated_us = evaluated_us
        self._shard = Shard(engine, self.position, 0, self._reader)

    @property
    def device(self) -> DeviceState | None:
        return self.engine.known.device(self.subject.type, self.subject.device)

    def take(self, records: RecordBatch) -> bool:
        """The next records; False: the moment has passed, and no more are wanted."""
        if int(records.timestamps_ms.max()) * 1000 + MAX_FUTURE_US < self.at_us:
            self._shard.take(records, 0)  # nothing in it can be beyond the moment
            self.position = records.last_offset + 1
            return True
        before = self.engine.snapshot(), tuple(self.witness.events), self.witness.evaluated_us
        if CONTROL not in records.marks.values():
            self._shard.take(records, 0)
            if not self._has_passed():
                self.position = records.last_offset + 1
                return True
            self._go_back(*before)
        lines = _lines_of(records, self.position)
        place = next((n for n, line in enumerate(lines) if not self._take_one(*line)), None)
        if place is None:
            self.position = records.last_offset + 1
            return True
        later = self.device.clock if self._has_passed() and self.device is not None else None
        self._go_back(*before)
        for line in lines[:place]:
            self._shard.take_one(*line, 0)
        self.position, _, _, value = lines[place]
        device = self.device
        if device is None:
            self.first_later = decode_control(value or b"").at * 1000 if later is None else later
        elif later is not None:
            self.engine.run_due(device, self.at_us, offset=self.position)
        return False

    def _go_back(self, snapshot: bytes, events: tuple[Event, ...], evaluated_us: int) -> None:
        self._begin_with(Engine.restore(snapshot), events, evaluated_us)

    def _take_one(self, offset: int, append_ms: int, mark: bytes | None, value: bytes | None) -> bool:
        """False where it takes the device beyond the moment; of a control record, before it was taken."""
        if mark == CONTROL and self._is_later(value or b""):
            return False
        self._shard.take_one(offset, append_ms, mark, value, 0)
        return not self._has_passed()

    def _has_passed(self) -> bool:
        device = self.device
        if device is None:
            return False
        rule, evaluated = device.type.rules.rule(self.subject.rule), device.evaluated or {}
        by_site = LONG_AGO if rule is None else evaluated.get(rule.place, LONG_AGO)
        return max(device.clock, by_site) > self.at_us

    def _is_later(self, value: bytes) -> bool:
        type_ = self.engine.known.types.get(self.subject.type)
        try:
            record = decode_control(value)
        except msgspec.MsgspecError:
            return False
        if type_ is None or type_.watermark < self.at_us or record.at * 1000 <= self.at_us:
            return False
        device = self.device
        if device is None and not isinstance(record, Device):  # it may never come
            return False
        if isinstance(record, Site):
            return device is not None and device.site.name == record.site
        named = getattr(record, "device", self.subject.device)
        return record.type == self.subject.type and (isinstance(record, Spec) or named == self.subject.device)


def _lines_of(records: RecordBatch, position: int) -> list[tuple[int, int, bytes | None, bytes | None]]:
    """(offset, append time, mark, value) of each."""
    new = records.from_offset(position)
    if new is None:
        return []
    places = zip(new.offsets.tolist(), new.timestamps_ms.tolist(), new.values(), strict=True)
    return [(offset, append, new.marks.get(n), value) for n, (offset, append, value) in enumerate(places)]


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

    def read(self, log: Log, replay: Replay) -> None:
        """Until the replay wants no more, or the log's end as it was. Raises Unavailable."""
        place = TopicPartition(log.topic, log.partition)
        try:
            self._consumer.assign([place])
            self._consumer.seek(place, log.begin)
            batches, deadline = Batches(self._consumer), time.monotonic() + STALLED_SECONDS
            while self._consumer.position(place) < log.end:
                for records in batches.poll(timeout_ms=POLL_MS):
                    if not replay.take(records):
                        return
                    deadline = time.monotonic() + STALLED_SECONDS
                if time.monotonic() > deadline:
                    said = f"{log.topic}-{log.partition} was read to {replay.position} of {log.end}, and no further"
                    raise Unavailable(f"{said} in {STALLED_SECONDS} s; see `weir status`")
        except KafkaError as error:
            raise kafka.unavailable(self._settings, error) from error

    def close(self) -> None:
        self._consumer.close(autocommit=False)
