"""Kafka → the warehouse's table of recent readings, in long form, each once.

One transaction holds a batch's rows and the positions after it, so the positions in `live_offsets` are the only
ones that count: killed at any moment, it goes on where the table ends. While the database is away the batch waits in
memory and nothing more is read.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy import text

from connections import kafka
from connections.copy_apart import RefusedRows, copy_apart
from connections.warehouse import Warehouse, copy_rows
from fleet.channels import is_reading, mark_of
from fleet.contract import Intake, NotYetKnown
from fleet.errors import DataError, Unavailable
from fleet.reading import Reading, to_datetime
from fleet.settings import Settings
from streaming.backoff import Backoff
from streaming.group import Member, pause, resume, seek
from streaming.newcomers import Newcomers
from streaming.reporter import Figures, Reporter
from streaming.service import Health

GROUP = "live"
COLUMNS = (
    "event_time", "system", "type", "site", "device_id", "metric", "value", "seq", "kafka_topic", "kafka_partition",
    "kafka_offset",
)  # fmt: skip
MAX_ROWS = 50_000
"""Of a batch; about 0.3 s of COPY."""
POLL_MS = 200

log = logging.getLogger("weir.live")


class Batch:
    """Rows of the table, and for each Kafka partition how far they reach: from → to."""

    def __init__(self, intake: Intake):
        self.intake = intake
        self.rows: list[tuple[object, ...]] = []
        self.reach: dict[TopicPartition, tuple[int, int]] = {}
        self.readings = self.expired = self.unreadable = self.passed_over = 0
        self.opened_at: float | None = None

    def take(self, place: TopicPartition, position: int, records: list[Any], now: float, now_us: int) -> int:
        """Returns the position after the records, or that of the first one whose type or version the catalog does not
        know yet. Records before `position` were taken already."""
        begin = self.reach.get(place, (position, position))[0]
        for record in records:
            if record.offset < position:
                continue
            if not self._add(record, now_us):
                position = record.offset
                break
            position = record.offset + 1
        self.reach[place] = (begin, position)
        if self.opened_at is None:
            self.opened_at = now
        return position

    def _add(self, record: Any, now_us: int) -> bool:
        """False, with nothing added, where the record is not yet known."""
        if not is_reading(mark_of(record.headers)):  # heartbeats and control records: landing keeps account of them
            self.passed_over += 1
            return True
        reading = self.intake.read_record(record.topic, record.value or b"", record.timestamp)
        if isinstance(reading, NotYetKnown):
            return False
        if isinstance(reading, Reading):
            self._add_reading(record, reading, now_us)
        else:
            self.unreadable += 1
        return True

    def _add_reading(self, record: Any, reading: Reading, now_us: int) -> None:
        spec = self.intake.catalog.types[reading.device_type]
        if reading.event_time_us < now_us - spec.retention.readings.total_seconds() * 1e6:
            self.expired += 1
            return
        self.readings += 1
        moment = to_datetime(reading.event_time_us).isoformat()
        before = (moment, spec.system, spec.type, reading.site, reading.device_id)
        after = (reading.seq, record.topic, record.partition, record.offset)
        self.rows.extend((*before, metric, value, *after) for metric, value in reading.values.items())


class Overtaken(Exception):
    """Another worker has moved the positions: the partition is no longer ours."""


def write(warehouse: Warehouse, batch: Batch) -> list[RefusedRows]:
    """Rows and positions, or neither; returns the records that the table refuses for what they say. Without that one
    of them would hold up its partition for good. Raises Unavailable, or Overtaken."""
    try:
        _write(warehouse, batch, apart=False)
        return []
    except DataError:
        return _write(warehouse, batch, apart=True)


def _write(warehouse: Warehouse, batch: Batch, apart: bool) -> list[RefusedRows]:
    with warehouse.transaction() as connection:
        for place, (begin, end) in batch.reach.items():
            moved = connection.execute(
                text(
                    "UPDATE live_offsets SET next_offset = :end, updated_at = now()"
                    " WHERE kafka_topic = :topic AND kafka_partition = :partition AND next_offset = :begin"
                ),
                {"begin": begin, "end": end, "topic": place.topic, "partition": place.partition},
            )
            if moved.rowcount != 1:
                raise Overtaken(f"{place.topic}-{place.partition} is not at {begin} any more")
        if apart:
            records = [list(rows) for _, rows in groupby(batch.rows, key=record_of)]
            return copy_apart(connection, "readings", COLUMNS, records)
        if batch.rows:
            copy_rows(connection, "readings", COLUMNS, batch.rows)
        return []


def record_of(row: Sequence[object]) -> tuple[object, ...]:
    """(topic, partition, offset): what a row of the table comes from."""
    return tuple(row[-3:])


def position(warehouse: Warehouse, place: TopicPartition, begin: int) -> int:
    """Where the table ends for this partition; `begin`, the log's first offset, where it has nothing yet."""
    with warehouse.transaction() as connection:
        parameters = {"topic": place.topic, "partition": place.partition, "begin": begin}
        connection.execute(
            text("INSERT INTO live_offsets VALUES (:topic, :partition, :begin) ON CONFLICT DO NOTHING"), parameters
        )
        return int(
            connection.execute(
                text(
                    "SELECT next_offset FROM live_offsets WHERE kafka_topic = :topic AND kafka_partition = :partition"
                ),
                parameters,
            ).scalar_one()
        )


class Live:
    def __init__(self, settings: Settings):
        self.settings = settings
        self._newcomers = Newcomers(settings.types_dir)
        self.topics = [s.topic for s in self._newcomers.catalog.systems.values()]
        self.warehouse = Warehouse.of(settings)
        self._positions: dict[TopicPartition, int] = {}
        self._waiting: set[TopicPartition] = set()
        """Ours, and their position is not known yet."""
        self._batch = Batch(self._newcomers.intake)
        self._backoff = Backoff(log)
        self.rows = self.readings = self.expired = self.unreadable = self.refused = 0

    def run(self, stop: threading.Event) -> None:
        kafka.check_access(self.settings, kafka.READ, self.topics)
        self.warehouse.rows("SELECT 1 FROM live_offsets LIMIT 1")
        health = Health(self.settings.live_metrics_port, self.problem, self.settings.bind)
        health.registry.register(self)
        reporter = Reporter(self.settings, GROUP, self._newcomers.catalog, self.figures)
        health.registry.register(reporter)
        member = Member(self.settings, GROUP, self.topics)
        reporter.start(stop)
        log.info("started topics=%s", ",".join(self.topics))
        try:
            while not stop.is_set():
                self.step(member)
            self._write(member.consumer)
            log.info("stopped readings=%d rows=%d", self.readings, self.rows)
        finally:
            member.close()
            self.warehouse.close()
            health.close()

    def step(self, member: Member) -> None:
        """One poll, and the write when it is due."""
        try:
            lost, gained, records = member.poll(POLL_MS)
        except Unavailable as error:
            self._backoff.failed(str(error))
            return
        consumer = member.consumer
        if lost or gained:
            # What is held may be another's by now: start over from the table, which is where everybody starts.
            self._waiting = (set(self._positions) | self._waiting | gained) - (lost - gained)
            self._begin_anew(consumer)
        now, now_us = time.monotonic(), time.time_ns() // 1000
        for place, batch in records.items():
            if place in self._positions and not (lost or gained):
                self._take(consumer, place, batch, now, now_us)
        self._go_on(consumer, now)
        if now >= self._backoff.again_at:
            if self._waiting:
                self._locate(consumer)
            elif self._is_due(now):
                self._write(consumer)

    def problem(self) -> str:
        return "; ".join(filter(None, (self._backoff.problem, self._newcomers.problem)))

    def figures(self) -> Figures:
        positions: dict[TopicPartition, int | None] = dict.fromkeys(list(self._waiting))
        return Figures({}, {"rejects": self.unreadable + self.refused}, positions | dict(self._positions))

    def _take(self, consumer: Any, place: TopicPartition, records: list[Any], now: float, now_us: int) -> None:
        """Into the batch. Where the catalog does not know a record the partition begins there again: at once with a
        newer catalog, or when one is there."""
        at = self._positions[place] = self._batch.take(place, self._positions[place], records, now, now_us)
        ahead = next((record for record in records if record.offset == at), None)
        if ahead is None:
            return
        if self._newcomers.is_known(place, ahead, now):
            self._batch.intake = self._newcomers.intake
        else:
            pause(consumer, place)
        seek(consumer, place, at)

    def _go_on(self, consumer: Any, now: float) -> None:
        """Partitions whose record a newer catalog knows."""
        for place in self._newcomers.now_known(now):
            self._batch.intake = self._newcomers.intake
            if not self._backoff.failures:  # else when the database is back
                resume(consumer, place)

    def _is_due(self, now: float) -> bool:
        opened = self._batch.opened_at
        if opened is None:
            return False
        return len(self._batch.rows) >= MAX_ROWS or now - opened >= self.settings.live_max_seconds

    def _begin_anew(self, consumer: Any) -> None:
        self._batch = Batch(self._newcomers.intake)
        for place in self._positions:
            self._newcomers.forget(place)
        self._positions = {}
        pause(consumer, *self._waiting)

    def _locate(self, consumer: Any) -> None:
        """Positions from the table, for all that is ours."""
        try:
            for place, (begin, end) in kafka.extents(consumer, sorted(self._waiting)).items():
                at = position(self.warehouse, place, begin)
                if at < begin:
                    log.error("%s-%d offsets %d to %d are gone from Kafka", *place, at, begin - 1)
                if at > end:
                    self._backoff.failed(
                        f"{place.topic}-{place.partition}: the table live_offsets says {at}, Kafka's log ends at"
                        f" {end}: the topic was made anew; delete that row of live_offsets"
                    )
                    return
                self._positions[place] = at
                seek(consumer, place, at)
                log.info("partition=%s-%d from=%d end=%d", *place, at, end)
        except (Unavailable, KafkaError) as error:
            self._backoff.failed(str(error))
            return
        self._waiting = set()
        self._well(consumer)

    def _write(self, consumer: Any) -> None:
        batch = self._batch
        if batch.reach:
            try:
                refused = write(self.warehouse, batch)
            except Unavailable as error:
                pause(consumer, *self._positions)
                self._backoff.failed(str(error))
                return
            except Overtaken as error:
                log.warning("%s; beginning again from the table", error)
                self._waiting = set(self._positions)
                self._begin_anew(consumer)
                return
            for rows, why in refused:
                log.error("%s-%d offset %d is refused by the table and passed over: %s", *record_of(rows[0]), why)
            self.refused += len(refused)
            self.readings -= len(refused)
            self.rows -= sum(len(rows) for rows, _ in refused)
        self.rows += len(batch.rows)
        self.readings += batch.readings
        self.expired += batch.expired
        self.unreadable += batch.unreadable
        self._batch = Batch(self._newcomers.intake)
        self._well(consumer)

    def _well(self, consumer: Any) -> None:
        self._backoff.well()
        resume(consumer, *(place for place in self._positions if place not in self._newcomers))

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily("weir_live_readings", "Readings written to the warehouse", value=self.readings)
        yield CounterMetricFamily("weir_live_rows", "Rows written: one a metric", value=self.rows)
        yield CounterMetricFamily("weir_live_expired", "Readings older than their type's retention", value=self.expired)
        yield CounterMetricFamily("weir_live_refused", "Readings that the table refused", value=self.refused)
        yield CounterMetricFamily("weir_live_unreadable", "Records no contract can read", value=self.unreadable)
        at = GaugeMetricFamily("weir_live_position", "Next offset to be read", labels=["topic", "partition"])
        for place, offset in list(self._positions.items()):
            at.add_metric([place.topic, str(place.partition)], offset)
        yield at
