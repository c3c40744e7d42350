"""A compaction record says where the rows of landed files are now: in fewer, larger files, or, if expired, nowhere.

Manifests and the files that they name stay what they are: which readings landed. Beside them stand, for each partition
and spec version, records with rising numbers, each created only if absent and each covering all that the one before it
covered, so that the last alone says what holds. What nobody needs any more is deleted a `GRACE` later.
"""

from collections import Counter
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
"""Of a topic. Fewer small ones are not worth writing their rows again."""


class Covered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A landed file, as its manifest has it."""

    path: str
    rows: int


class Compacted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Landed files, all of one topic, and the one that has their rows; None: they have expired, and their topics do not
    matter. Manifests are moved away by topic, and read by topic; so an entry is either seen or not, but by who has
    marks from before it was made."""

    covers: list[Covered]
    file: DataFile | None = None

    @property
    def paths(self) -> list[str]:
        return [one.path for one in self.covers]

    @property
    def topic(self) -> str:
        return place_of(self.covers[0].path).topic

    @property
    def is_large(self) -> bool:
        return self.file is None or 2 * self.file.rows >= MAX_ROWS or 2 * self.file.bytes >= MAX_BYTES

    def is_seen(self, seen: Collection[str]) -> bool:
        return all(path in seen for path in self.paths)

    def is_torn(self, seen: Collection[str]) -> bool:
        """Seen in part."""
        return any(path in seen for path in self.paths) and not self.is_seen(seen)


class Compaction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`partition` is the key of a fleet.lake_layout.Partition; `at_ms` is when it was written."""

    partition: str
    version: int
    number: int
    at_ms: int
    files: list[Compacted]

    @property
    def covered(self) -> frozenset[str]:
        return frozenset(path for entry in self.files for path in entry.paths)

    @property
    def expired(self) -> frozenset[str]:
        return frozenset(path for entry in self.files if entry.file is None for path in entry.paths)

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

    An entry holds for who has seen all that it covers, and is nothing to who has seen none of it, as it has marks from
    before, wants other topics, or the topic's manifests were moved away. One that is seen in part is too new, or torn:
    for the files that it covers the record before is asked. Whatever the records say, no file is covered twice by what
    is returned, nor one that was not seen.
    """
    left: set[str] = set()
    expired: frozenset[str] = frozenset()
    held: list[Compacted] = []
    for place, record in enumerate(records):
        if place == 0:
            expired = record.expired
            left = set(seen) - expired
        torn = False
        for entry in record.files:
            if entry.file is None:
                continue
            if entry.is_seen(left):
                held.append(entry)
                left.difference_update(entry.paths)
            else:
                torn = torn or entry.is_torn(left)
        if not torn:
            break
    return held, expired


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
    their place in Kafka's log, of each topic enough of them or none. What the last record says of files that are not
    among `landed`, as their manifests were moved away, stands as it is: they may come back."""
    landed = list(landed)
    covered = last.covered if last else frozenset()
    known = last.files if last else []
    there = {f.path for f in landed}
    files = [Compacted([Covered(f.path, f.rows)], f) for f in landed if f.path not in covered]
    small = [entry for entry in [*known, *files] if not entry.is_large and entry.is_seen(there)]
    number = Counter(entry.topic for entry in small)
    sources = [entry for entry in small if number[entry.topic] >= LEAST_FILES]
    if not sources:
        return None
    sources.sort(key=lambda entry: place_of(entry.covers[0].path))
    kept = [entry for entry in known if entry not in sources]
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
