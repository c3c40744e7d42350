"""Records of a type, or of a version of one, that this process's catalog does not have yet.

The bridge may be started with a new spec before landing and live are. Such a record is no reject: its partition stands
still there, the others go on, and the catalog is read again until it knows the record.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka import TopicPartition

from fleet.catalog import load_catalog
from fleet.contract import Intake, NotYetKnown
from fleet.errors import WeirError
from streaming.service import BACKOFF_SECONDS

log = logging.getLogger("weir.newcomers")


@dataclass
class _Wait:
    record: Any
    tries: int
    again_at: float
    problem: str


class Newcomers:
    """The newest catalog that was read, as `intake`, and the partitions that wait for a newer one."""

    def __init__(self, types_dir: Path):
        """Raises SpecError, ConfigurationError."""
        self.types_dir = types_dir
        self.catalog = load_catalog(types_dir)
        self.intake = Intake(self.catalog)
        self._waits: dict[TopicPartition, _Wait] = {}

    def __contains__(self, place: TopicPartition) -> bool:
        return place in self._waits

    @property
    def problem(self) -> str:
        """What is waited for, in a line; empty when nothing is."""
        return "; ".join(wait.problem for wait in list(self._waits.values()))

    def forget(self, place: TopicPartition) -> None:
        self._waits.pop(place, None)

    def is_known(self, place: TopicPartition, record: Any, now: float) -> bool:
        """Whether the record is known once the catalog has been read again. If not, its partition waits."""
        trouble = self._read_again()
        result = self.intake.read_record(record.topic, record.value or b"", record.timestamp)
        if not isinstance(result, NotYetKnown):
            self.forget(place)
            return True
        tries = self._waits[place].tries + 1 if place in self._waits else 0
        pause = BACKOFF_SECONDS[min(tries, len(BACKOFF_SECONDS) - 1)]
        problem = (
            f"{place.topic}-{place.partition} stands at offset {record.offset}: {result.detail}; give this service the"
            f" newer specs in {self.types_dir}, which are read again by themselves{trouble}"
        )
        self._waits[place] = _Wait(record, tries, now + pause, problem)
        log.log(logging.ERROR if tries % 30 == 0 else logging.DEBUG, "%s", problem)
        return False

    def _read_again(self) -> str:
        """Why the catalog stays as it is; empty where it was read."""
        try:
            self.catalog = load_catalog(self.types_dir)
        except (WeirError, OSError) as error:  # half-written, perhaps: the one we have still holds
            return f" ({error})"
        self.intake = Intake(self.catalog)
        return ""

    def now_known(self, now: float | None = None) -> list[TopicPartition]:
        """Partitions that waited and need not any more, of those that are due for another look."""
        now = time.monotonic() if now is None else now
        due = [(place, wait) for place, wait in list(self._waits.items()) if wait.again_at <= now]
        return [place for place, wait in due if self.is_known(place, wait.record, now)]
