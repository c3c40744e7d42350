"""A compaction record says where the rows of landed files are now: in fewer, larger files, or, if expired, nowhere.

Manifests and the files that they name stay what they are: which readings landed. Beside them stand, for each partition
and spec version, records with rising numbers, each created only if absent and each covering all that the one before it
covered, so that the last alone says what holds. What nobody needs any more is deleted a `GRACE` later.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import pairwise

import msgspec

from fleet.lake_layout import place_of
from fleet.manifest import DataFile

GRACE = timedelta(days=1)
"""How long files stay after the record that replaced them: longer than any run, which ends after six hours, so that
who has looked at the lake finds what was there. Nor is a file that no record names swept earlier: it may be in the
making."""
MAX_ROWS = 500_000
"""Of a compacted file: half of what a Spark task has (etl.derive). A file with half of this is large, and is left."""
MAX_BYTES = 32 * 1024 * 1024
"""As MAX_ROWS, in the lake: dead letters may be as large as a million readings."""
LEAST_FILES = 8
"""Fewer small ones are not worth writing their rows again."""


class Covered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A landed file, as its manifest has it."""

    path: str
    rows: int


class Compacted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Landed files, and the one that has their rows; None: they have expired."""

    covers: list[Covered]
    file: DataFile | None = None

    @property
    def is_large(self) -> bool:
        return self.file is None or 2 * self.file.rows >= MAX_ROWS or 2 * self.file.bytes >= MAX_BYTES


class Compaction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`partition` is the key of a fleet.lake_layout.Partition; `at_ms` is when it was written."""

    partition: str
    version: int
    number: int
    at_ms: int
    files: list[Compacted]

    @property
    def covered(self) -> frozenset[str]:
        return frozenset(one.path for entry in self.files for one in entry.covers)

    @property
    def expired(self) -> frozenset[str]:
        return frozenset(one.path for entry in self.files if entry.file is None for one in entry.covers)

    def imbalance(self) -> int:
        """Rows of files less those of what they cover; 0 in a record that is right. One landed file is covered once."""
        entries = [(entry.file, sum(one.rows for one in entry.covers)) for entry in self.files]
        twice = sum(len(entry.covers) for entry in self.files) - len(self.covered)
        return twice or next((file.rows - rows for file, rows in entries if file and file.rows != rows), 0)


encode_compaction = msgspec.json.Encoder().encode
decode_compaction = msgspec.json.Decoder(Compaction).decode


def in_force(records: Iterable[Compaction], seen: Collection[str]) -> tuple[list[Compacted], frozenset[str]]:
    """For a reader that has seen these landed files of the partition and version: the files to read instead of some of
    them, and which have expired. `records`: the newest first.

    A record of which the reader has not seen all covered files is too new for it: the one before holds.
    """
    expired: frozenset[str] = frozenset()
    for place, record in enumerate(records):
        if place == 0:
            expired = record.expired
        if record.covered - expired <= set(seen):
            return [e for e in record.files if e.file and not expired.issuperset(c.path for c in e.covers)], expired
    return [], expired


class Plan(msgspec.Struct, frozen=True):
    """Of one partition and version. `sources` are to be one or a few files, each with what it covers, itself where it
    has landed; `kept` stand in the next record as they do in the last."""

    partition: str
    version: int
    number: int
    sources: list[Compacted]
    kept: list[Compacted]


def plan(partition: str, version: int, landed: Iterable[DataFile], last: Compaction | None) -> Plan | None:
    """None where little would be gained. `landed`: all files of the partition and version; sources are in order of
    their place in Kafka's log."""
    covered = last.covered if last else frozenset()
    known = last.files if last else []
    files = [Compacted([Covered(f.path, f.rows)], f) for f in landed if f.path not in covered]
    sources = [entry for entry in [*known, *files] if not entry.is_large]
    if len(sources) < LEAST_FILES:
        return None
    sources.sort(key=lambda entry: place_of(entry.covers[0].path))
    kept = [entry for entry in known if entry.is_large]
    return Plan(partition, version, last.number + 1 if last else 1, sources, kept)


def is_worth_it(before: int, after: int) -> bool:
    """Of numbers of files. Else the same ones, of unlike columns, would be written again every night."""
    return 2 * after <= before


def outlived(records: Sequence[Compaction], before_ms: int) -> Iterator[Compaction]:
    """Those of a partition and version that nobody reads by any more: the next one was written before then. `records`:
    the newest first."""
    for newer, record in pairwise(records):
        if newer.at_ms <= before_ms:
            yield record


def replaced(records: Iterable[Compaction], before_ms: int) -> frozenset[str]:
    """Landed files that nobody reads any more: covered by a record that was written before then. `records`: the newest
    first."""
    return next((record.covered for record in records if record.at_ms <= before_ms), frozenset())
