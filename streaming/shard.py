"""One Kafka partition of readings and its alerts: records in, transitions out. No I/O: see streaming.alerts.

State is a function of the log. A shard begins with a snapshot's state, or with none, at the offset after it, and takes
every record from there; what it says of records below `emit_from` was said before, and is dropped.
"""

import logging
from collections.abc import Sequence

import numpy as np

from connections.record_batch import RecordBatch
from fleet.column_engine import FEW, Batch, take_columns
from fleet.columns import NO_SEQ, ColumnReader, Columns
from fleet.engine import Engine
from fleet.log_record import LogRecord, NoControl, NoReading, take_record
from fleet.reading import digest_of
from fleet.snapshot_chunks import Snapshot
from fleet.text import Ints
from fleet.transition import Transition

log = logging.getLogger("weir.alerts")


class Shard:
    def __init__(
        self, engine: Engine, position: int, emit_from: int, reader: ColumnReader, snapshot: Snapshot | None = None
    ):
        """`position`: the first offset to take. `reader`: of the topic. `snapshot`: what the engine was restored
        from."""
        self.engine = engine
        self.position = position
        self.emit_from = emit_from
        self.snapshot = snapshot
        self.unreadable = self.refused = 0
        self._reader = reader
        self._before = self._totals()

    def _totals(self) -> dict[str, int]:
        counts = self.engine.counts
        return {
            "evaluations": counts.evaluations, "late": counts.late, "duplicates": counts.duplicates,
            "rejects": self.unreadable + self.refused,
        }  # fmt: skip

    def counted(self) -> dict[str, int]:
        """Since this shard began; the engine's own counts are part of its state, and older."""
        return {name: total - self._before[name] for name, total in self._totals().items()}

    @property
    def restoring(self) -> bool:
        return self.position < self.emit_from

    def take(self, records: RecordBatch, detected_at_us: int) -> list[Transition]:
        """The partition's next records; those before `position` were taken already."""
        new = records.from_offset(self.position)
        if new is None:
            return []
        said = self._take(new, detected_at_us)
        self.position = new.last_offset + 1
        return [t for t in said if t.offset >= self.emit_from] if new.base_offset < self.emit_from else said

    def _take(self, records: RecordBatch, detected_at_us: int) -> list[Transition]:
        """Readings in columns, between the records that are none or that only the contract can read; few at once are
        not worth the columns."""

        def one(place: int, value: bytes | None) -> Sequence[Transition]:
            offset, append_ms = int(records.offsets[place]), int(records.timestamps_ms[place])
            return self.take_one(offset, append_ms, records.marks.get(place), value, detected_at_us)

        if len(records) < FEW:
            return [transition for place, value in enumerate(records.values()) for transition in one(place, value)]
        lengths = records.value_lengths
        if records.marks:
            lengths = lengths.copy()
            lengths[list(records.marks)] = -1
        found, left = self._reader.read(records.buffer, records.value_starts, lengths, records.timestamps_ms)
        batch = Batch(
            records.offsets, records.timestamps_ms * 1000, _digests(records, found), detected_at_us
        )  # fmt: skip
        said: list[Transition] = []
        begin = 0
        for place, value in zip(left.tolist(), records.values(left), strict=True):
            said += take_columns(self.engine, _between(found, begin, place), batch)
            said += one(place, value)
            begin = place + 1
        said += take_columns(self.engine, _between(found, begin, len(records)), batch)
        return said

    def take_one(
        self, offset: int, append_ms: int, mark: bytes | None, value: bytes | None, detected_at_us: int
    ) -> Sequence[Transition]:
        """A record of any kind, through the scalar form. Moves no position."""
        try:
            return take_record(self.engine, LogRecord(offset, append_ms, mark, value), detected_at_us)
        except NoControl as error:
            self.refused += 1
            log.error("%s", error)
        except NoReading:
            self.unreadable += 1
        return ()


def _between(found: Sequence[Columns], begin: int, end: int) -> list[Columns]:
    some = [columns.between(begin, end) for columns in found]
    return [columns for columns in some if len(columns)]


def _digests(records: RecordBatch, found: Sequence[Columns]) -> Ints:
    """By place; of readings with seq 0."""
    digests = np.zeros(len(records), np.int64)
    buffer = memoryview(records.buffer)
    for columns in found:
        rows = columns.rows[columns.seqs == NO_SEQ]
        starts = records.value_starts[rows]
        ends = starts + records.value_lengths[rows]
        digests[rows] = [digest_of(buffer[s:e]) for s, e in zip(starts.tolist(), ends.tolist(), strict=True)]
    return digests
