"""What the lake holds, as its manifests say: the data files of each partition, up to a mark in each Kafka partition.

A run pins its marks when it starts, so that all its tasks see the same files however long they wait.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from connections.lake import Lake
from fleet.channels import TRANSITIONS
from fleet.lake_layout import Partition
from fleet.manifest import DataFile, Manifest

Marks = Mapping[str, int]
"""`topic/partition` → the offset after the last that belongs to the run."""


@dataclass(frozen=True)
class PartitionFiles:
    """The files of one partition, in order of path."""

    partition: Partition
    files: tuple[DataFile, ...]

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        """As they are in the lake, compressed."""
        return sum(file.bytes for file in self.files)

    @property
    def versions(self) -> dict[int, list[DataFile]]:
        """By spec version, oldest first."""
        found: dict[int, list[DataFile]] = {}
        for file in sorted(self.files, key=lambda f: (f.version, f.path)):
            found.setdefault(file.version, []).append(file)
        return found

    @property
    def digest(self) -> str:
        """Equal exactly when the same files with the same rows are read."""
        text = "\n".join(f"{file.path} {file.rows}" for file in self.files)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class LakeIndex:
    manifests: Mapping[tuple[str, int], list[Manifest]]
    """(topic, Kafka partition) → in order of offset."""

    @property
    def marks(self) -> dict[str, int]:
        return {f"{t}/{p}": found[-1].last_offset + 1 for (t, p), found in self.manifests.items() if found}

    @property
    def partitions(self) -> dict[str, PartitionFiles]:
        return by_partition(f for found in self.manifests.values() for m in found for f in m.files)


def by_partition(files: Iterable[DataFile]) -> dict[str, PartitionFiles]:
    """Key of a partition → its files; in order of key."""
    grouped: dict[str, list[DataFile]] = {}
    for file in files:
        grouped.setdefault(file.partition, []).append(file)
    return {
        key: PartitionFiles(Partition.from_key(key), tuple(sorted(grouped[key], key=lambda f: f.path)))
        for key in sorted(grouped)
    }


def read_index(lake: Lake, marks: Marks | None = None) -> LakeIndex:
    """All manifests of readings and dead letters, or those below the marks. Raises DataError where one does not add
    up."""
    found = {}
    for topic, partition in lake.landed_partitions():
        if topic == TRANSITIONS:  # nothing is computed from alerts
            continue
        mark = None if marks is None else marks.get(f"{topic}/{partition}", 0)
        manifests = [m for m in lake.manifests(topic, partition) if mark is None or m.last_offset < mark]
        if manifests:
            found[topic, partition] = manifests
    return LakeIndex(found)
