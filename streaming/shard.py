"""One Kafka partition of readings and its alerts: records in, transitions out. No I/O: see streaming.alerts.

State is a function of the log. A shard begins with a snapshot's state, or with none, at the offset after it, and takes
every record from there; what it says of records below `emit_from` was said before, and is dropped.
"""

import hashlib
import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from fleet.channels import CONTROL, HEARTBEAT, mark_of
from fleet.contract import Reject, is_future, read_canonical
from fleet.control import decode_control
from fleet.engine import Engine
from fleet.errors import ConfigurationError, SpecError
from fleet.snapshot_chunks import Snapshot
from fleet.transition import Transition

log = logging.getLogger("weir.alerts")


def digest_of(value: bytes) -> int:
    """Stands for a reading's seq where it has none (RULES §3, Duplicates): 64 bits, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(value, digest_size=8).digest(), "big", signed=True)


class Shard:
    def __init__(self, engine: Engine, position: int, emit_from: int, snapshot: Snapshot | None = None):
        """`position`: the first offset to take. `snapshot`: what the engine was restored from."""
        self.engine = engine
        self.position = position
        self.emit_from = emit_from
        self.snapshot = snapshot
        self.unreadable = self.refused = 0
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

    def take(self, records: Sequence[Any], detected_at_us: int) -> list[Transition]:
        """Records as kafka-python gives them, in order; those before `position` were taken already."""
        said: list[Transition] = []
        for record in records:
            if record.offset < self.position:
                continue
            found = self._take(record, detected_at_us)
            self.position = record.offset + 1
            if found and record.offset >= self.emit_from:
                said += found
        return said

    def _take(self, record: Any, detected_at_us: int) -> Sequence[Transition]:
        where: dict[str, int] = {
            "offset": record.offset, "append_us": record.timestamp * 1000, "detected_at_us": detected_at_us,
        }  # fmt: skip
        mark, value = mark_of(record.headers), record.value or b""
        if mark == HEARTBEAT:
            return self.engine.heartbeat(**where)
        if mark == CONTROL:
            try:
                return self.engine.control(decode_control(value), **where)
            except (msgspec.MsgspecError, SpecError, ConfigurationError) as error:
                # Whoever wrote it should have checked it. Everyone who reads this log passes over it alike.
                self.refused += 1
                log.error("%s-%d offset %d: control record passed over: %s", *record[:2], record.offset, error)
                return ()
        reading = read_canonical(value)
        if isinstance(reading, Reject) or is_future(reading, record.timestamp):
            self.unreadable += 1
            return ()
        digest = digest_of(value) if reading.seq is None else None
        return self.engine.reading(reading, digest=digest, **where)
