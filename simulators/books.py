"""What the books downstream must show for what was sent: rejects by reason, duplicates, quarantined values.

Nothing here knows what faults were injected. Each payload is read by the contract itself, and its values are held
against the spec's ranges, so that the expectation is the definition and not the injector's opinion.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from fleet.catalog import Catalog
from fleet.contract import Reject
from fleet.reading import Reading

MAX_KEYS = 4_000_000
"""Of the readings remembered to know duplicates by, about 400 MB; a longer run forgets the oldest half."""


@dataclass
class TypeBooks:
    """One device type. duplicates + quarantined + valid = readings; per metric known = good + quarantined."""

    readings: int = 0
    duplicates: int = 0
    quarantined: int = 0
    """Readings all of whose known values were quarantined."""
    valid: int = 0
    known_values: Counter[str] = field(default_factory=Counter)
    """Without those of duplicates, as are the next three."""
    quarantined_values: Counter[str] = field(default_factory=Counter)
    warned_values: Counter[str] = field(default_factory=Counter)
    failing_values: Counter[str] = field(default_factory=Counter)
    """Outside a range that says `fail`: the partition's run must fail."""

    def as_dict(self) -> dict[str, Any]:
        return {k: dict(sorted(v.items())) if isinstance(v, Counter) else v for k, v in vars(self).items()}


class Books:
    """Add every message that the broker confirmed, in the order of confirmation."""

    def __init__(self, catalog: Catalog):
        self._catalog = catalog
        self.messages = 0
        self.rejected: Counter[str] = Counter()
        self.clock_dependent = 0
        """Rejects whose verdict is the ingest clock's: read minutes later, they would be let in."""
        self.types: dict[str, TypeBooks] = {}
        self.forgotten = 0
        self._seen: dict[tuple[object, ...], None] = {}

    def add(self, result: Reading | Reject) -> str:
        """The verdict: `rejected: <reason>`, `duplicate`, `quarantined`, `value quarantined`, `value warned`,
        `value fails` or `valid`."""
        self.messages += 1
        if isinstance(result, Reject):
            self.rejected[result.reason] += 1
            return f"rejected: {result.reason}"
        books = self.types.get(result.device_type)
        if books is None:
            books = self.types[result.device_type] = TypeBooks()
        books.readings += 1
        if self._is_duplicate(result):
            books.duplicates += 1
            return "duplicate"
        return self._judge(result, books)

    def _is_duplicate(self, reading: Reading) -> bool:
        # With a seq of its own the reading is known by that; without one, equal values are the same reading again.
        said = tuple(reading.values) if reading.seq is not None else tuple(sorted(reading.values.items()))
        key = (reading.device_type, reading.device_id, reading.event_time_us, reading.seq, said)
        if key in self._seen:
            return True
        if len(self._seen) >= MAX_KEYS:
            oldest = list(self._seen)[: MAX_KEYS // 2]
            self.forgotten += len(oldest)
            for old in oldest:
                del self._seen[old]
        self._seen[key] = None
        return False

    def _judge(self, reading: Reading, books: TypeBooks) -> str:
        metrics = self._catalog.type(reading.device_type).metrics
        known = quarantined = 0
        verdict = "valid"
        for name, value in reading.values.items():
            if value is None:
                continue
            known += 1
            books.known_values[name] += 1
            span = metrics[name].range
            if span is None or span.low <= value <= span.high:
                continue
            outside = metrics[name].outside
            if outside == "quarantine":
                quarantined += 1
                books.quarantined_values[name] += 1
                verdict = "value quarantined"
            elif outside == "warn":
                books.warned_values[name] += 1
                verdict = "value warned"
            else:
                books.failing_values[name] += 1
                verdict = "value fails"
        if known and quarantined == known:
            books.quarantined += 1
            return "quarantined"
        books.valid += 1
        return verdict

    def as_dict(self) -> dict[str, Any]:
        """`expected` of the summary. `forgotten` is there only where a very long run makes duplicates uncertain."""
        books: dict[str, Any] = {
            "messages": self.messages,
            "rejected": dict(sorted(self.rejected.items())),
            "readings": self.messages - self.rejected.total(),
            "types": {name: books.as_dict() for name, books in sorted(self.types.items())},
        }
        if self.clock_dependent:
            books["clock_dependent"] = self.clock_dependent
        if self.forgotten:
            books["forgotten"] = self.forgotten
        return books
