"""The audit of alerts: a span of the landed log through the rules once more, beside what was published of it.

Readings come from the lake; heartbeats and control records from Kafka's log, the only place where they stand: of
yesterday it has all of them (it keeps seven days). What fleet.parity compares is bounded by offsets, and the offsets by
manifests, so that each record belongs to the audit of one day.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from heapq import merge

from connections.partition_log import Log, LogReader, committed, lines_of
from connections.record_batch import RecordBatch
from etl.backtest import registered
from etl.landed_log import LandedLog, published
from etl.parity_state import State, keep, newest
from etl.run import Job
from etl.window import Window
from fleet.backtest import Arrival
from fleet.catalog import System
from fleet.channels import ALERTS_GROUP, CONTROL, HEARTBEAT
from fleet.control import Control, Device, Resolve, Retire, Spec, decode_control
from fleet.engine import Engine
from fleet.log_record import LogRecord
from fleet.parity import (
    Begun,
    Books,
    Circumstances,
    Comparison,
    Difference,
    Hole,
    PartitionParity,
    explain,
    said,
    with_heartbeats,
)
from fleet.transition import Transition

WARM_UP = timedelta(days=1)
"""How long before the span rules begin to look where neither the log's beginning nor an audit's state is there."""


@dataclass
class Marks:
    """Heartbeats and control records of a stretch of Kafka's log."""

    records: list[LogRecord] = field(default_factory=list)

    def controls(self) -> Iterator[tuple[int, Control]]:
        for record in self.records:
            if record.mark == CONTROL and (found := _control(record.value or b"")) is not None:
                yield record.offset, found


def _control(value: bytes | str) -> Control | None:
    try:
        return decode_control(value)
    except ValueError:
        return None


def audit(job: Job, system_name: str, window: Window, warm_up: timedelta = WARM_UP) -> list[PartitionParity]:
    """Of each Kafka partition of the system that has records of the window, by append time. Raises Unavailable,
    Refused, DataError."""
    assert window.start is not None
    assert window.end is not None
    system = job.catalog.system(system_name)
    begin_ms, end_ms = (round(moment.timestamp() * 1000) for moment in (window.start, window.end))
    numbers = sorted(number for topic, number in job.lake.landed_partitions() if topic == system.topic)
    landed = {number: LandedLog(job.lake, system.topic, number) for number in numbers}
    spans = {
        number: (log.begin(first), log.begin(end))
        for number, log in landed.items()
        if (first := log.first_at(begin_ms)) < (end := log.first_at(end_ms))
    }
    if not spans:
        return []
    reader = LogReader(job.settings, system.topic)
    try:
        came_to = committed(job.settings, ALERTS_GROUP, system.topic)
        of_partition, damaged = published(job.lake, system.name, spans, begin_ms)
        return [
            _Audit(job, system, landed[number], reader, span, begin_ms - warm_up // timedelta(milliseconds=1)).run(
                of_partition.get(number, []), Circumstances(committed=came_to.get(number), damaged=damaged)
            )
            for number, span in spans.items()
        ]
    finally:
        reader.close()


class _Audit:
    """Of one Kafka partition."""

    def __init__(
        self, job: Job, system: System, landed: LandedLog, reader: LogReader, span: tuple[int, int], warm_up_ms: int
    ):
        self.job, self.system, self.landed, self.reader = job, system, landed, reader
        self.first, self.end = span
        self.log = reader.log(landed.partition)
        self.begun, self.start = self._begin(warm_up_ms)
        self.known_from = max(self.log.begin, self.start.offset)
        """From there on Kafka's log has the marks."""
        self.is_known = self.known_from == self.start.offset
        self.books = {spec.type: Books() for spec in system.types}

    def run(self, transitions: Sequence[Transition], known: Circumstances) -> PartitionParity:
        holes: list[Hole] = []
        comparison = Comparison(transitions, passed_over=() if self.is_known else ("offset",))
        engine, marks = Engine.restore(self.start.snapshot), self._marks()
        for transition in said(engine, self._records(marks, holes)):
            if transition.offset >= self.first:
                comparison.take(transition)
        differences, in_kafka, began_us = comparison.differences(), None, self.start.began_us
        known = replace(known, holes=holes, began_us=began_us)
        if (differences or holes) and self.is_known:
            engine, in_kafka = self._of_kafka({d.transition.transition_id for d in differences})
        elif holes:  # what the state lacks may show for as long as an alert of that time is under way
            began_us = max(m.last_append_ms for m in self.landed.manifests(self.start.offset, self.end)) * 1000
        keep(self.job.lake, self.landed.topic, self.landed.partition, State(self.end, began_us, engine.snapshot()))
        if differences:
            known = replace(self._with_changes(known, marks), in_kafka=in_kafka, in_warehouse=self._told(differences))
        explained = [explain(difference, known) for difference in differences]
        for type_name, count in comparison.published.items():
            self._books(type_name).published += count
        for type_name, count in comparison.same.items():
            self._books(type_name).same += count
        for one in explained:
            books = self._books(one.difference.transition.type)
            books.explained += one.is_explained
            books.unexplained += not one.is_explained
        return PartitionParity(
            self.system.name, self.landed.partition, self.first, self.end, self.begun, self.books, explained
        )  # fmt: skip

    def _books(self, type_name: str) -> Books:
        return self.books.setdefault(type_name, Books())  # one that is gone from fleet/types, too

    def _begin(self, warm_up_ms: int) -> tuple[Begun, State]:
        """With the newest state whose log Kafka still has to the end, with nothing at the log's beginning, or with
        what is known today, some time before the span."""
        number = self.landed.partition
        state = newest(self.job.lake, self.landed.topic, number, self.log.begin, self.first)
        if state is not None:
            return "state", state
        if self.log.begin == 0:
            return "log", State(0, None, Engine(number).snapshot())
        begin = self.landed.first_at(warm_up_ms)
        offset = self.landed.begin(begin)
        began_ms = self.landed.append_ms(begin)
        engine = Engine(number, self.system.types)
        for record in registered(self.job.warehouse, self.system.types).get(number, ()):
            if record.at < began_ms:
                engine.control(record, offset=offset - 1)
        return "warm_up", State(offset, began_ms * 1000, engine.snapshot())

    # The log

    def _marks(self) -> Marks:
        marks = Marks()

        def take(records: RecordBatch) -> bool:
            found = records.marks
            values = records.values() if CONTROL in found.values() else [None] * len(records)
            for place, mark in found.items():
                offset = int(records.offsets[place])
                if mark in (HEARTBEAT, CONTROL) and self.known_from <= offset < self.end:
                    append_ms = int(records.timestamps_ms[place])
                    marks.records.append(LogRecord(offset, append_ms, mark, values[place]))
            return True

        if self.known_from < self.end:
            self.reader.read(self._stretch(), take)
        marks.records.sort(key=lambda record: record.offset)
        return marks

    def _stretch(self) -> Log:
        return replace(self.log, begin=self.known_from, end=self.end)

    def _records(self, marks: Marks, holes: list[Hole]) -> Iterable[Arrival | LogRecord]:
        readings: Iterable[Arrival | LogRecord] = self._readings(holes)
        if not self.is_known:
            readings = with_heartbeats(self._readings(holes), self.known_from)
        return merge(readings, marks.records, key=lambda record: record.offset)

    def _readings(self, holes: list[Hole]) -> Iterator[Arrival]:
        for arrival in self.landed.arrivals(self.start.offset, self.end, holes):
            if arrival.offset >= self.first:
                self._books(arrival.reading.device_type).readings += 1
            yield arrival

    def _of_kafka(self, ids: Collection[str]) -> tuple[Engine, dict[str, Transition]]:
        """The rules over all of Kafka's log: their state at its end, and of some transitions what they say."""
        engine, found = Engine.restore(self.start.snapshot), dict[str, Transition]()

        def take(records: RecordBatch) -> bool:
            lines = (line for line in lines_of(records, self.start.offset) if line.offset < self.end)
            found.update((t.transition_id, t) for t in said(engine, lines) if t.transition_id in ids)
            return True

        self.reader.read(self._stretch(), take)
        return engine, found

    # What explains differences

    def _told(self, differences: Sequence[Difference]) -> set[str]:
        """Those of them that the warehouse has as published."""
        ids = [d.transition.transition_id for d in differences if d.kind == "only_evaluated"]
        rows = self.job.warehouse.rows(
            "SELECT transition_id FROM alert_transitions WHERE transition_id = ANY(:ids)", ids=ids
        )
        return {row["transition_id"] for row in rows}

    def _with_changes(self, known: Circumstances, marks: Marks) -> Circumstances:
        if self.begun != "warm_up":
            return known
        specs: dict[str, int] = {}
        devices: set[tuple[str, str]] = set()
        for offset, record in [*marks.controls(), *((self.end, record) for record in self._told_since())]:
            if isinstance(record, Spec):
                specs.setdefault(record.type, offset)
            elif isinstance(record, Device | Retire | Resolve):
                devices.add((record.type, record.device))
        timed = {(spec.type, rule.id) for spec in self.system.types for rule in spec.alerts if rule.is_timed}
        return replace(known, changed_types=specs, changed_devices=devices, timed=timed)

    def _told_since(self) -> Iterator[Control]:
        """Control records decided since the evaluation's beginning, after its end too: it began with what is known
        today. As far as the registry remembers them."""
        rows = self.job.warehouse.rows(
            "SELECT record FROM control_records WHERE kafka_topic = :topic ORDER BY revision", topic=self.landed.topic
        )
        for row in rows:
            record = _control(row["record"])
            if record is not None and record.at * 1000 >= (self.start.began_us or 0):
                yield record
