"""Kafka → rules → alerts.transitions, each transition exactly once.

One transaction holds the transitions and the input offsets. What a partition's alerts are is a function of its log: a
snapshot now and then says what they were at some offset, and a worker that takes a partition over re-evaluates from
there to the committed offset without a word, then goes on. Whatever goes wrong with a transaction has one remedy: a
new producer (which fences the old one and ends what it had open), and every partition begun anew.
"""

import logging
import math
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import FencedInstanceIdError, KafkaError
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from connections import kafka
from connections.kafka_transactions import commit, transactional_producer
from fleet.catalog import load_catalog
from fleet.channels import ALERTS_GROUP, TRANSITIONS, state_topic
from fleet.columns import ColumnReader
from fleet.engine import Engine
from fleet.errors import Unavailable
from fleet.settings import Settings
from fleet.snapshot import SnapshotError
from fleet.snapshot_chunks import Snapshot
from fleet.transition import encode_transition
from streaming.alert_metrics import engine_metrics, engine_states
from streaming.backoff import Backoff
from streaming.group import Member, pause, resume, seek
from streaming.reporter import Figures, Reporter
from streaming.service import Health
from streaming.shard import Shard
from streaming.snapshots import SnapshotReader, write
from streaming.unsent import Unsent
from streaming.watchdog import Watchdog

POLL_SECONDS = 0.2
WAITING_POLL_SECONDS = 0.05
"""While partitions wait to be begun, or the producer to be opened."""
POLL_PAUSE_SECONDS = 0.5
"""After a poll that failed."""
MAX_BATCHES = 4
"""Of about 8,192 records each: 0.1 s of work."""
BACKLOG_RECORDS = 4096
"""A poll that brings so many is one of a worker that is behind: what it does a second counts then, not how soon."""
TRANSACTION_TRANSITIONS = 2000
"""In one transaction, about, and before more is read: 0.05 s of work. With 20,000, on a machine ten times too busy, a
transaction took longer than the broker lets one be open; begun anew it was as large, and took as long."""
COMMIT_SECONDS = 0.05
"""Between two commits by one that is behind. Else what there is to tell waits, from the last commit on, as long as that
took, or this long: commits that are quicker than this take at most half of the time."""
QUIET_COMMIT_SECONDS = 1.0
"""Between two commits while there is nothing to tell: offsets alone may wait."""

COUNTED = ("evaluations", "late", "duplicates", "rejects")

log = logging.getLogger("weir.alerts")


def _sum(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    return {name: a[name] + b[name] for name in COUNTED}


class Alerts:
    def __init__(self, settings: Settings):
        self.settings = settings
        self.catalog = load_catalog(settings.types_dir)
        self.systems = {system.topic: system.name for system in self.catalog.systems.values()}
        self._readers = {topic: ColumnReader(self.catalog, topic) for topic in self.systems}
        self._shards: dict[TopicPartition, Shard] = {}
        self._waiting: dict[TopicPartition, None] = {}
        """Ours, and not begun yet, in the order in which they are tried."""
        self._blocked: dict[TopicPartition, str] = {}
        """Partitions whose log no longer gives their state: only a person can put that right."""
        self._gaps: dict[TopicPartition, tuple[int, int]] = {}
        """Gaps (from, to) in the log that were seen once."""
        self._unsent = Unsent()
        self._committed: dict[TopicPartition, int] = {}
        self._committed_at = self._commit_took = 0.0
        self._behind = False
        self._snapshot_at: dict[TopicPartition, float] = {}
        self._producer: Any = None
        self._backoff = Backoff(log)
        self._watchdog = Watchdog()
        self.transitions: dict[tuple[str, str], int] = {}
        self._counted = dict.fromkeys(COUNTED, 0)
        """By shards that were given away."""
        self.commits = self.failed_commits = self.snapshots = self.snapshot_bytes = 0
        self.commit_seconds = self.snapshot_seconds = 0.0

    def run(self, stop: threading.Event) -> None:
        kafka.check_access(self.settings, kafka.READ, self.systems)
        kafka.check_access(self.settings, kafka.WRITE, [TRANSITIONS, *map(state_topic, self.systems.values())])
        health = Health(self.settings.alerts_metrics_port, self.problem, self.settings.bind)
        health.registry.register(self)
        reporter = Reporter(self.settings, ALERTS_GROUP, self.catalog, self.figures)
        health.registry.register(reporter)
        reporter.start(stop)
        self._reader = SnapshotReader(self.settings)
        member = Member(self.settings, ALERTS_GROUP, self.systems, isolation_level="read_committed")
        log.info("started topics=%s", ",".join(self.systems))
        try:
            while not stop.is_set():
                self.step(member)
            self._commit(member)
            log.info("stopped commits=%d transitions=%d", self.commits, sum(self.transitions.values()))
        finally:
            member.close()
            self._reader.close()
            self._close_producer()
            health.close()

    def step(self, member: Member) -> None:
        """One poll; what it brings is evaluated, and committed when that is due."""
        consumer = member.consumer
        try:
            polled = member.told(lambda: member.batches.poll(math.ceil(self._patience() * 1000), MAX_BATCHES))
        except Unavailable as error:  # what was evaluated before is told all the same
            self._backoff.problem = str(error)
            log.error("%s", error)
            time.sleep(POLL_PAUSE_SECONDS)
            polled = []
        self._follow(consumer, *member.moved())
        self._behind = sum(map(len, polled)) >= BACKLOG_RECORDS
        now_us = time.time_ns() // 1000
        sought: set[TopicPartition] = set()
        for records in polled:
            place = TopicPartition(records.topic, records.partition)
            shard = self._shards.get(place)
            if shard is None or place in sought:
                continue
            if self._is_next(consumer, place, shard, records.base_offset):
                self._unsent.add(place, shard.take(records, now_us))
            else:
                sought.add(place)
        now = time.monotonic()
        if now >= self._backoff.again_at:
            if self._producer is None:
                self._open_producer()
            if self._producer is not None and self._waiting:
                self._begin(member)
        if self._producer is not None:
            if self._due_in(now) <= 0:
                self._commit(member)
            while self._producer is not None and len(self._unsent) >= TRANSACTION_TRANSITIONS:
                self._commit(member)
            self._take_snapshots(consumer, now)

    def _is_next(self, consumer: Any, place: TopicPartition, shard: Shard, offset: int) -> bool:
        """A gap is believed when it was read twice: one fetch may have been under way when the position was set."""
        gap = (shard.position, offset)
        if offset <= shard.position:
            return True
        if self._gaps.pop(place, None) == gap:
            log.error("%s-%d offsets %d to %d are not in Kafka: never evaluated", *place, gap[0], gap[1] - 1)
            return True
        self._gaps[place] = gap
        seek(consumer, place, shard.position)
        return False

    def problem(self) -> str:
        restoring = [
            f"{place.topic}-{place.partition}" for place, shard in list(self._shards.items()) if shard.restoring
        ]
        said = [self._backoff.problem, *self._blocked.values()]
        return "; ".join(filter(None, [*said, f"restoring {', '.join(restoring)}" if restoring else ""]))

    def figures(self) -> Figures:
        shards = dict(self._shards)
        positions: dict[TopicPartition, int | None] = dict.fromkeys([*self._waiting, *self._blocked])
        counts = self._counted
        for shard in shards.values():
            counts = _sum(counts, shard.counted())
        return Figures(
            engine_states(list(shards.values()), time.time()) | {"blocked": len(self._blocked)},
            counts | {"restarts": self.failed_commits},
            positions | {place: shard.position for place, shard in shards.items()},
        )

    # Partitions that come and go

    def _follow(self, consumer: Any, lost: set[TopicPartition], gained: set[TopicPartition]) -> None:
        for place in lost:
            self._drop(place)
        for place in sorted(gained):
            self._drop(place)
            self._waiting[place] = None
            pause(consumer, place)

    def _drop(self, place: TopicPartition) -> None:
        if shard := self._shards.pop(place, None):
            self._counted = _sum(self._counted, shard.counted())
        self._committed.pop(place, None)
        self._gaps.pop(place, None)
        self._blocked.pop(place, None)
        self._waiting.pop(place, None)
        self._unsent.drop(place)

    def _begin(self, member: Member) -> None:
        """Each waiting partition from its newest snapshot that is not ahead of the committed offset."""
        consumer = member.consumer
        for place in list(self._waiting):
            if not member.is_settled():
                return
            try:
                shard = self._restored(member, place)
            except (Unavailable, KafkaError) as error:
                self._waiting[place] = self._waiting.pop(place)  # after the others
                self._backoff.failed(f"{place.topic}-{place.partition}: {error}")
                return
            del self._waiting[place]
            if isinstance(shard, str):
                log.error("%s", shard)
                self._blocked[place] = shard
                continue
            self._shards[place] = shard
            self._committed[place] = shard.emit_from
            self._snapshot_at[place] = time.monotonic()
            seek(consumer, place, shard.position)
            resume(consumer, place)
            log.info("partition=%s-%d from=%d committed=%d", *place, shard.position, shard.emit_from)
        if not self._waiting:
            self._backoff.well()

    def _restored(self, member: Member, place: TopicPartition) -> Shard | str:
        """Or why there is none, which a person has to know. Raises Unavailable, KafkaError."""
        name = f"{place.topic}-{place.partition}"
        committed = member.committed(place)
        with self._watchdog:
            begin, end = kafka.extents(member.consumer, [place])[place]
            snapshots, problems = self._reader.read(
                TopicPartition(state_topic(self.systems[place.topic]), place.partition)
            )
        reached = max([committed or 0, *(snapshot.offset for snapshot in snapshots)])
        if reached > end:
            return (
                f"{name}: alerts are known to offset {reached}, Kafka's log ends at {end}: the topic was made anew."
                f" Delete the group's offsets (kafka-consumer-groups --group {ALERTS_GROUP} --delete-offsets) and the"
                f" topic {state_topic(self.systems[place.topic])}; `make up` makes it again"
            )
        for problem in problems:
            log.error("%s: %s; using the one before", name, problem)
        for snapshot in snapshots:
            if snapshot.offset < begin or (committed is not None and snapshot.offset > committed):
                continue
            try:
                engine = Engine.restore(snapshot.state)
            except SnapshotError as error:
                log.error("%s: snapshot %d cannot be used: %s; using the one before", name, snapshot.number, error)
                continue
            emit_from = snapshot.offset if committed is None else committed
            return Shard(engine, snapshot.offset, emit_from, self._readers[place.topic], snapshot)
        if committed is None or begin == 0:
            emit_from = begin if committed is None else committed
            return Shard(Engine(place.partition, []), begin, emit_from, self._readers[place.topic])
        return (
            f"{name}: no snapshot at an offset from {begin} (where Kafka's log begins) to {committed} (where alerts are"
            " committed): the state cannot be computed any more. To begin again with no alerts known, delete the"
            f" group's offset of this partition (kafka-consumer-groups --group {ALERTS_GROUP} --delete-offsets); what"
            " was firing will then fire again"
        )

    # Transactions

    def _open_producer(self) -> None:
        name = f"alerts-{kafka.instance_id(self.settings, ALERTS_GROUP)}"
        try:
            with self._watchdog:
                self._producer = transactional_producer(self.settings, "weir-alerts", name)
        except Unavailable as error:
            self._backoff.failed(str(error))

    def _close_producer(self) -> None:
        if self._producer is not None:
            kafka.close(self._producer)
        self._producer = None

    def _patience(self) -> float:
        """Seconds that a poll may wait for readings."""
        if self._producer is None or self._waiting:
            return WAITING_POLL_SECONDS
        return min(POLL_SECONDS, self._due_in(time.monotonic()))

    def _due_in(self, now: float) -> float:
        """Seconds until a commit is due; infinite where nothing is to be committed."""
        if all(shard.position <= self._committed[place] for place, shard in self._shards.items()):
            return math.inf
        pause = COMMIT_SECONDS if self._behind else min(COMMIT_SECONDS, self._commit_took)
        return max(0.0, self._committed_at + (pause if self._unsent else QUIET_COMMIT_SECONDS) - now)

    def _commit(self, member: Member) -> None:
        """What was said since the last commit, or some of it, and how far each partition got with that. While it lasts
        no partition is given away: the broker would take offsets of one that is another's by now."""
        if self._producer is None:
            return
        began = time.monotonic()
        consumer = member.consumer
        with self._watchdog, member.held() as (lost, gained):
            self._follow(consumer, lost, gained)
            share = self._unsent.share(TRANSACTION_TRANSITIONS)
            ends = {place: share.ends.get(place, shard.position) for place, shard in self._shards.items()}
            offsets = {place: end for place, end in ends.items() if end > self._committed[place]}
            if not offsets:
                return
            try:
                sender = member.metadata()
                self._producer.begin_transaction()
                told = [
                    self._producer.send(TRANSITIONS, encode_transition(transition), transition.device.encode())
                    for transition in share.transitions
                ]
                reached = {place: OffsetAndMetadata(offset, "", -1) for place, offset in offsets.items()}
                commit(self._producer, told, reached, sender)
            except KafkaError as error:
                self._begin_anew(consumer, error)
                return
        self._committed |= offsets
        for transition in share.transitions:
            key = (transition.system, transition.to)
            self.transitions[key] = self.transitions.get(key, 0) + 1
        self._unsent.sent(share)
        self.commits += 1
        self._committed_at = time.monotonic()
        self._commit_took = self._committed_at - began
        self.commit_seconds += self._commit_took
        self._backoff.well()

    def _begin_anew(self, consumer: Any, error: Exception) -> None:
        """What was evaluated and not committed is forgotten; the log gives it again. A producer is fenced by another
        worker of its name, of which the group knows, or by the broker, where a transaction was open for too long."""
        if isinstance(error, FencedInstanceIdError):
            raise kafka.fenced(self.settings, ALERTS_GROUP) from error
        self.failed_commits += 1
        self._close_producer()
        self._forget(consumer)
        self._backoff.failed(f"a transaction failed, all partitions begin anew: {error!r}")

    def _forget(self, consumer: Any) -> None:
        for place in sorted(self._shards):
            self._drop(place)
            self._waiting[place] = None
            pause(consumer, place)

    def _take_snapshots(self, consumer: Any, now: float) -> None:
        """One at a time, of partitions whose state is committed: a snapshot is never ahead of the committed offset."""
        for place in sorted(self._shards, key=self._snapshot_at.__getitem__):
            shard = self._shards[place]
            if now - self._snapshot_at[place] < self.settings.alerts_snapshot_seconds:
                return
            if self._committed[place] != shard.position or self._producer is None or shard.restoring:
                continue
            self._snapshot_at[place] = now
            before = shard.snapshot
            if before is not None and before.offset == shard.position:
                continue
            began = time.monotonic()
            snapshot = Snapshot(shard.position, 0 if before is None else before.number + 1, shard.engine.snapshot())
            target = TopicPartition(state_topic(self.systems[place.topic]), place.partition)
            try:
                with self._watchdog:
                    self.snapshot_bytes = write(self._producer, target, snapshot)
            except KafkaError as error:  # what is committed stands, and goes on by a new producer
                log.error("%s-%d: no snapshot at %d: %r", *place, shard.position, error)
                self._close_producer()
                self._open_producer()
                if self._producer is None:
                    self._forget(consumer)
                return
            shard.snapshot = snapshot
            self.snapshots += 1
            self.snapshot_seconds += time.monotonic() - began
            return

    # Metrics

    def collect(self) -> Iterator[Metric]:
        said = CounterMetricFamily("weir_alerts_transitions", "Transitions committed", labels=["system", "to"])
        for (system, to), count in list(self.transitions.items()):
            said.add_metric([system, to], count)
        yield said
        yield CounterMetricFamily("weir_alerts_commits", "Transactions committed", value=self.commits)
        yield CounterMetricFamily("weir_alerts_failed_commits", "Transactions that failed", value=self.failed_commits)
        yield CounterMetricFamily("weir_alerts_commit_seconds", "Spent in transactions", value=self.commit_seconds)
        yield CounterMetricFamily("weir_alerts_snapshots", "Snapshots written", value=self.snapshots)
        yield CounterMetricFamily("weir_alerts_snapshot_seconds", "Spent on snapshots", value=self.snapshot_seconds)
        yield GaugeMetricFamily("weir_alerts_snapshot_bytes", "Of the last snapshot", value=self.snapshot_bytes)
        yield GaugeMetricFamily(
            "weir_alerts_blocked", "Partitions that wait for a person", value=len(self._blocked)
        )  # fmt: skip
        shards = list(self._shards.items())
        at = GaugeMetricFamily("weir_alerts_position", "Next offset to be read", labels=["topic", "partition"])
        for place, shard in shards:
            at.add_metric([place.topic, str(place.partition)], shard.position)
        yield at
        yield from engine_metrics([shard for _, shard in shards])
