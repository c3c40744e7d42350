"""What the lake holds, as its manifests say: the data files of each partition, up to a mark in each Kafka partition.

A run pins its marks when it starts, so that all its tasks see the same files however long they wait.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from connections.compactions import Compactions
from connections.lake import Lake
from fleet.channels import TRANSITIONS
from fleet.compaction import Compacted, in_force
from fleet.lake_layout import Partition
from fleet.manifest import DataFile, Manifest

Marks = Mapping[str, int]
"""`topic/partition` → the offset after the last that belongs to the run."""


@dataclass(frozen=True)
class PartitionFiles:
    """The files of one partition as they landed, in order of path; `compacted`: those that have the rows of some of
    them now. What is the same rows is the same partition, however often it is compacted."""

    partition: Partition
    files: tuple[DataFile, ...]
    compacted: tuple[Compacted, ...] = ()

    @property
    def to_read(self) -> tuple[DataFile, ...]:
        """Files that have all rows, each once."""
        covered = {one.path for entry in self.compacted for one in entry.covers}
        found = [entry.file for entry in self.compacted if entry.file]
        return (*sorted(found, key=lambda f: f.path), *(f for f in self.files if f.path not in covered))

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        """As they are in the lake, compressed."""
        return sum(file.bytes for file in self.to_read)

    @property
    def versions(self) -> dict[int, list[DataFile]]:
        """Landed files by spec version, oldest first."""
        found: dict[int, list[DataFile]] = {}
        for file in sorted(self.files, key=lambda f: (f.version, f.path)):
            found.setdefault(file.version, []).append(file)
        return found

    @property
    def digest(self) -> str:
        """Equal exactly when the same files with the same rows have landed."""
        text = "\n".join(f"{file.path} {file.rows}" for file in self.files)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class LakeIndex:
    manifests: Mapping[tuple[str, int], list[Manifest]]
    """(topic, Kafka partition) → in order of offset."""
    partitions: Mapping[str, PartitionFiles] = field(default_factory=dict)
    """Key → what has not expired, in order of key."""
    expired: Mapping[str, int] = field(default_factory=dict)
    """Key → rows that have expired. What landed after that is a partition of its own."""

    @property
    def marks(self) -> dict[str, int]:
        return {f"{t}/{p}": found[-1].last_offset + 1 for (t, p), found in self.manifests.items() if found}


def by_partition(files: Iterable[DataFile]) -> dict[str, PartitionFiles]:
    """Key of a partition → its files; in order of key."""
    grouped: dict[str, list[DataFile]] = {}
    for file in files:
        grouped.setdefault(file.partition, []).append(file)
    return {
        key: PartitionFiles(Partition.from_key(key), tuple(sorted(grouped[key], key=lambda f: f.path)))
        for key in sorted(grouped)
    }


def read_index(lake: Lake, marks: Marks | None = None, topics: Collection[str] | None = None) -> LakeIndex:
    """All manifests of these topics, or those below the marks, and where the rows of their files are now. `topics` None
    is all of readings and dead letters. Raises DataError where a manifest or a compaction record does not add up."""
    found = {}
    for topic, partition in lake.landed_partitions():
        if topic not in topics if topics is not None else topic == TRANSITIONS:  # nothing is computed from alerts
            continue
        mark = None if marks is None else marks.get(f"{topic}/{partition}", 0)
        manifests = [m for m in lake.manifests(topic, partition) if mark is None or m.last_offset < mark]
        if manifests:
            found[topic, partition] = manifests
    records, partitions, expired = Compactions(lake), {}, {}
    for key, landed in by_partition(f for some in found.values() for m in some for f in m.files).items():
        here, gone = _as_compacted(landed, records)
        if here.files:
            partitions[key] = here
        if gone:
            expired[key] = gone
    return LakeIndex(found, partitions, expired)


def _as_compacted(landed: PartitionFiles, records: Compactions) -> tuple[PartitionFiles, int]:
    """And how many of its rows have expired."""
    compacted: list[Compacted] = []
    gone: set[str] = set()
    for version, files in landed.versions.items():
        held, expired = in_force(records.records(landed.partition.key, version), {f.path for f in files})
        compacted += held
        gone |= expired
    here = tuple(f for f in landed.files if f.path not in gone)
    return PartitionFiles(landed.partition, here, tuple(compacted)), landed.rows - sum(f.rows for f in here)
