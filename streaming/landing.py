"""Kafka → the lake: readings, dead letters and transitions of alerts, each record once. The position is the lake's
own: one past the last manifest's last offset.

Records gather in a buffer for each Kafka partition. A flush writes its data files, then one manifest that appears
whole or not at all: that is the commit. Killed before it, the next one reads the same records again; the files left
behind are no one's, and are swept. Another worker's manifest in the way means that the partition is no longer ours:
the buffer is dropped and the position read again.
"""

import logging
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from kafka import TopicPartition
from kafka.errors import KafkaError
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from connections import kafka
from connections.lake import Lake, arrow_schema
from fleet.channels import REJECTED, TRANSITIONS
from fleet.errors import DataError, Unavailable
from fleet.manifest import DataFile
from fleet.settings import Settings
from streaming.flush import Buffer, Landed
from streaming.group import Member, pause, resume, seek
from streaming.newcomers import Newcomers
from streaming.reporter import Figures, Reporter
from streaming.service import BACKOFF_SECONDS, Health, Supervised
from streaming.sweep import sweep

GROUP = "landing"
MAX_BUFFER_BYTES = 48 * 1024 * 1024
"""Of record values in one partition's buffer; about four times as much in memory."""
MAX_GROUPS = 500
"""Files in one flush. Devices whose clocks run wild would make one for each hour they name."""
QUIET_SECONDS = 300.0
"""How long heartbeats alone may wait for a manifest: one every 5 minutes and partition, not one a minute."""
POLL_MS = 250
SWEEP_SECONDS = 86_400.0

log = logging.getLogger("weir.landing")


def write_files(lake: Lake, files: Iterator[Landed]) -> list[DataFile]:
    """All durable when this returns. Raises Unavailable."""
    written = []
    for file in files:
        schema = arrow_schema(file.columns, file.units)
        arrays = [pa.array(file.cells[column.name], column.type) for column in schema]
        table = pa.Table.from_arrays(arrays, schema=schema)
        size = lake.write_table(file.path, table)
        written.append(DataFile(file.path, file.partition.key, file.version, table.num_rows, size))
    return written


def flush(lake: Lake, buffer: Buffer) -> bool:
    """The data files, then the manifest. False where another writer has committed from here already."""
    return lake.commit(buffer.manifest(write_files(lake, buffer.files())))


class Landing:
    def __init__(self, settings: Settings):
        self.settings = settings
        self._newcomers = Newcomers(settings.types_dir)
        self.topics = [*(s.topic for s in self._newcomers.catalog.systems.values()), REJECTED, TRANSITIONS]
        self.lake = Lake.of(settings)
        self._buffers: dict[TopicPartition, Buffer] = {}
        self._retry_at: dict[TopicPartition, float] = {}
        """Partitions whose flush failed, and when to try again; they are paused until it succeeds."""
        self._failures: dict[TopicPartition, int] = {}
        self._blocked: dict[TopicPartition, str] = {}
        """Partitions whose lake and log contradict each other: only a person can put that right."""
        self._gaps: dict[TopicPartition, tuple[int, int]] = {}
        """Gaps (from, to) that were seen once and are read again, lest a stale fetch passes for a loss."""
        self._problem = "starting"
        self.landed = self.unreadable = self.missing = self.flushes = self.failed_flushes = self.zombies = 0

    def run(self, stop: threading.Event) -> None:
        kafka.check_access(self.settings, kafka.READ, self.topics)
        health = Health(self.settings.landing_metrics_port, self.problem, self.settings.bind)
        health.registry.register(self)
        reporter = Reporter(self.settings, GROUP, self._newcomers.catalog, self.figures)
        health.registry.register(reporter)
        member = Member(self.settings, GROUP, self.topics, isolation_level="read_committed")
        Supervised("sweep", lambda: self._sweep(stop), stop).thread.start()
        reporter.start(stop)
        log.info("started topics=%s lake=%s", ",".join(self.topics), self.settings.lake)
        try:
            while not stop.is_set():
                self.step(member)
            self.finish()
        finally:
            member.close()
            health.close()

    def _sweep(self, stop: threading.Event) -> None:
        while not stop.is_set():
            removed = sweep(self.lake, datetime.now(UTC))
            if removed:
                log.info("swept %d files that no manifest names, such as %s", len(removed), removed[0])
            stop.wait(SWEEP_SECONDS)

    def step(self, member: Member) -> None:
        """One poll, and the flushes that are due."""
        try:
            lost, gained, records = member.poll(POLL_MS)
        except Unavailable as error:
            self._say(str(error))
            time.sleep(1)
            return
        consumer = member.consumer
        for place in lost:
            self._drop(place)
        now = time.monotonic()
        for place, batch in records.items():
            buffer = self._buffers.get(place)
            if buffer is None or place in gained:
                continue
            if batch[0].offset > buffer.next_offset and not self._is_real(consumer, place, batch[0].offset):
                continue
            self._take(consumer, place, batch, now)
        for place in gained:
            self._adopt(consumer, place)
        self._flush_due(consumer, time.monotonic())
        if self._buffers and not self._retry_at and not self._blocked:
            self._problem = ""

    def problem(self) -> str:
        return "; ".join(filter(None, (self._problem, self._newcomers.problem)))

    def figures(self) -> Figures:
        positions: dict[TopicPartition, int | None] = dict.fromkeys((*self._retry_at, *self._blocked))
        positions |= {place: buffer.next_offset for place, buffer in list(self._buffers.items())}
        counts = {"rejects": self.unreadable, "lost": self.missing, "restarts": self.failed_flushes}
        return Figures({"blocked": len(self._blocked)}, counts, positions)

    def _take(self, consumer: Any, place: TopicPartition, batch: list[Any], now: float) -> None:
        """Into the buffer, which is flushed where it is full of groups. Where the batch cannot be taken to its end,
        the rest of it is read again."""
        for record in batch:
            buffer = self._buffers[place]
            if buffer.take(record, now):
                if buffer.groups < MAX_GROUPS or self._flush(consumer, place, buffer):
                    continue
            elif self._newcomers.is_known(place, record, now):
                self._renew(consumer, place)
            else:
                pause(consumer, place)
            if place in self._buffers:
                seek(consumer, place, self._buffers[place].next_offset)
            return

    def _renew(self, consumer: Any, place: TopicPartition) -> None:
        """The catalog has changed: a new one for what comes. What is held was read by the old one, and is flushed."""
        buffer = self._buffers.get(place)
        if buffer is not None and buffer.offsets:
            self._flush(consumer, place, buffer)
        elif buffer is not None:
            self._buffers[place] = self._buffer(place, buffer.next_offset)

    def _buffer(self, place: TopicPartition, offset: int) -> Buffer:
        return Buffer(place.topic, place.partition, offset, self._newcomers.intake)

    def _is_real(self, consumer: Any, place: TopicPartition, offset: int) -> bool:
        """Whether the log really goes on at `offset`: a gap counts when a second reading shows it too. It is a loss;
        where transactions leave gaps, as far as the log no longer reaches back."""
        buffer = self._buffers[place]
        gap = (buffer.next_offset, offset)
        if self._gaps.get(place) == gap:
            try:
                kept = kafka.extents(consumer, [place])[place].begin if place.topic == TRANSITIONS else offset
            except KafkaError as error:
                log.error("%s-%d: where does it begin? %r", *place, error)
            else:
                if (lost := min(kept, offset)) > gap[0]:
                    log.error("%s-%d offsets %d to %d are not in Kafka: missing", *place, gap[0], lost - 1)
                    buffer.skip_to(lost, time.monotonic())
                del self._gaps[place]
                return True
        self._gaps[place] = gap
        seek(consumer, place, gap[0])
        return False

    def _adopt(self, consumer: Any, place: TopicPartition) -> None:
        """Begin where the lake says. Raises nothing: a partition that cannot be read waits for the next try."""
        self._drop(place)
        try:
            position = self.lake.landed_to(*place)
            begin, end = kafka.extents(consumer, [place])[place]
        except (Unavailable, KafkaError, DataError) as error:
            self._put_off(consumer, place, str(error))
            return
        if position > end:
            self._blocked[place] = (
                f"{place.topic}-{place.partition}: the lake has offsets up to {position - 1}, Kafka's log ends at"
                f" {end}: the topic was made anew. Move {self.lake.url('_landed/' + place.topic)} away, or give"
                " Weir the Kafka that this lake belongs to"
            )
            self._say(self._blocked[place])
            pause(consumer, place)
            return
        buffer = self._buffers[place] = self._buffer(place, position)
        if begin > position:
            log.error("%s-%d offsets %d to %d are gone from Kafka: missing", *place, position, begin - 1)
            buffer.skip_to(begin, time.monotonic())
        seek(consumer, place, buffer.next_offset)
        resume(consumer, place)
        log.info("partition=%s-%d from=%d end=%d", *place, buffer.next_offset, end)

    def _drop(self, place: TopicPartition) -> None:
        self._buffers.pop(place, None)
        self._retry_at.pop(place, None)
        self._failures.pop(place, None)
        self._blocked.pop(place, None)
        self._newcomers.forget(place)

    def _flush_due(self, consumer: Any, now: float) -> None:
        for place, at in list(self._retry_at.items()):
            if at > now:
                continue
            if place not in self._buffers:  # adopting it failed
                del self._retry_at[place]
                self._adopt(consumer, place)
        for place in self._newcomers.now_known(now):
            self._renew(consumer, place)
            if place not in self._retry_at and place not in self._blocked:
                resume(consumer, place)
        for place, buffer in list(self._buffers.items()):
            if self._retry_at.get(place, now) <= now and self.is_due(buffer, now):
                self._flush(consumer, place, buffer)

    def is_due(self, buffer: Buffer, now: float) -> bool:
        if buffer.groups >= MAX_GROUPS:
            return True
        if buffer.rows + buffer.unreadable >= self.settings.landing_max_rows or buffer.held_bytes >= MAX_BUFFER_BYTES:
            return True
        if buffer.rows_since is not None:
            return now - buffer.rows_since >= self.settings.landing_max_seconds
        quiet = max(QUIET_SECONDS, self.settings.landing_max_seconds)
        return buffer.opened_at is not None and now - buffer.opened_at >= quiet

    def _flush(self, consumer: Any, place: TopicPartition, buffer: Buffer) -> bool:
        """Whether it is done, and a new buffer in its place. If not, it waits for the next try, or is not ours."""
        began = time.monotonic()
        try:
            ours = flush(self.lake, buffer)
        except Unavailable as error:
            self.failed_flushes += 1
            self._put_off(consumer, place, str(error))
            return False
        if not ours:
            self.zombies += 1
            log.warning("%s-%d offset %d was landed by another worker; reading again", *place, buffer.first_offset)
            self._adopt(consumer, place)
            return False
        self.flushes += 1
        self.landed += buffer.rows
        self.unreadable += buffer.unreadable
        self.missing += buffer.missing
        log.info(
            "flush partition=%s-%d offsets=%d-%d rows=%d unreadable=%d heartbeats=%d missing=%d ms=%.0f",
            *place, buffer.first_offset, buffer.next_offset - 1, buffer.rows, buffer.unreadable, buffer.heartbeats,
            buffer.missing, 1000 * (time.monotonic() - began),
        )  # fmt: skip
        if self._retry_at.pop(place, None) is not None and place not in self._newcomers:
            resume(consumer, place)
        self._failures.pop(place, None)
        self._buffers[place] = self._buffer(place, buffer.next_offset)
        return True

    def _put_off(self, consumer: Any, place: TopicPartition, reason: str) -> None:
        """The buffer stays, the partition is paused: memory is bounded and nothing is lost."""
        failures = self._failures[place] = self._failures.get(place, 0) + 1
        seconds = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS)) - 1]
        self._retry_at[place] = time.monotonic() + seconds
        pause(consumer, place)
        self._say(f"{place.topic}-{place.partition} waits, again in {seconds:.1f} s: {reason}")

    def _say(self, problem: str) -> None:
        self._problem = problem
        log.error("%s", problem)

    def finish(self) -> None:
        """On a clean stop what is held is flushed; what cannot be is read again next time."""
        for place, buffer in self._buffers.items():
            if buffer.offsets and place not in self._retry_at:
                try:
                    flush(self.lake, buffer)
                except Unavailable as error:
                    log.error("%s-%d not flushed at the stop, it will be read again: %s", *place, error)
        log.info("stopped landed=%d unreadable=%d missing=%d", self.landed, self.unreadable, self.missing)

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily("weir_landing_rows", "Readings and dead letters landed", value=self.landed)
        yield CounterMetricFamily("weir_landing_unreadable", "Records no contract can read", value=self.unreadable)
        yield CounterMetricFamily("weir_landing_missing", "Offsets that Kafka no longer had", value=self.missing)
        yield CounterMetricFamily("weir_landing_flushes", "Manifests written", value=self.flushes)
        yield CounterMetricFamily(
            "weir_landing_failed_flushes", "Flushes the lake did not take", value=self.failed_flushes
        )
        yield CounterMetricFamily("weir_landing_zombies", "Flushes that another worker had made", value=self.zombies)
        yield GaugeMetricFamily("weir_landing_blocked", "Partitions that wait for a person", value=len(self._blocked))
        held = GaugeMetricFamily("weir_landing_held", "Offsets read and not yet landed", labels=["topic", "partition"])
        for place, buffer in list(self._buffers.items()):
            held.add_metric([place.topic, str(place.partition)], buffer.offsets)
        yield held
