"""What of the lake nobody reads any more goes: landed files that a compaction record has replaced or expired, records
that a later one has, and compacted files that no record names. All a GRACE later, and again where it was broken off."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from connections.compactions import Compactions
from connections.lake import Lake
from etl.lake_frames import read_table
from etl.lake_index import PartitionFiles, by_partition
from etl.window import micros
from fleet.compaction import GRACE, Compaction, in_force, outlived, replaced
from fleet.errors import DataError
from fleet.lake_layout import ALERTS, COMPACTED_FILE, REJECTED, Partition, compaction_path
from fleet.manifest import DataFile

FOLDERS = ("raw", REJECTED, ALERTS)


@dataclass
class Tidied:
    landed: int = 0
    """Landed files deleted, whose rows are elsewhere or have expired."""
    compacted: int = 0
    """Compacted files deleted that no record names, or none any more."""
    records: int = 0
    problems: list[str] = field(default_factory=list)
    """Compacted files that are not what their record says: what they were made from stays."""


def tidy(lake: Lake, now: datetime) -> Tidied:
    """Raises Unavailable; DataError where a manifest or a record is none."""
    before_ms = micros(now - GRACE) // 1000
    found = Tidied()
    there = {path for folder in FOLDERS for path in lake.files(folder)}
    records = Compactions(lake)  # after the files: what was committed meanwhile is named
    chains = {place: list(records.records(*place)) for place in list(records.partitions())}
    # After the records: what they cover has landed.
    landed = by_partition(f for place in lake.landed_partitions() for m in lake.manifests(*place) for f in m.files)
    named: set[str] = set()
    for (partition, version), chain in chains.items():
        if not chain:
            continue
        files = landed[partition].versions.get(version, []) if partition in landed else []
        old = _Old(lake, chain, files, there, before_ms)
        gone = old.records()
        found.records += lake.sweep(compaction_path(partition, version, record.number) for record in gone)
        named |= {e.file.path for record in chain if record not in gone for e in record.files if e.file}
        found.landed += lake.sweep(old.landed(found.problems))
    orphans = (path for path in there if path not in named and _is_older(path, before_ms))
    found.compacted += lake.sweep(orphans)
    return found


@dataclass(frozen=True)
class _Old:
    """Of a partition and version: `chain` has its records, the newest first, and `files` what manifests say landed."""

    lake: Lake
    chain: list[Compaction]
    files: list[DataFile]
    there: Collection[str]
    before_ms: int

    @property
    def seen(self) -> frozenset[str]:
        return frozenset(file.path for file in self.files)

    def records(self) -> list[Compaction]:
        """To delete. None where manifests were taken away in part: whoever reads then needs the older ones."""
        seen = self.seen
        torn = any(entry.file and entry.is_torn(seen) for entry in self.chain[0].files)
        return [] if torn else list(outlived(self.chain, self.before_ms))

    def landed(self, problems: list[str]) -> Iterable[str]:
        """To delete: what has expired, or is read from another file by whoever sees all manifests. Before the last
        other copy of its rows goes, the file that has them is read once more."""
        seen, candidates = self.seen, replaced(self.chain, self.before_ms)
        for entry in self.chain[0].files:
            paths = [path for path in entry.paths if path in candidates and path in self.there]
            if paths and entry.file:
                if not entry.is_seen(seen):
                    continue
                try:
                    read_table(self.lake, entry.file)
                except DataError as error:
                    problems.append(f"{error}; the files that it was made from stay{self._way_back()}")
                    continue
            yield from paths

    def _way_back(self) -> str:
        """Where all would be there without the newest record: how to go on without what it names."""
        held, expired = in_force(self.chain[1:], self.seen)
        newest = self.chain[0]
        files = tuple(f for f in self.files if f.path not in expired)
        before = PartitionFiles(Partition.from_key(newest.partition), files, tuple(held)).to_read
        if not all(file.path in self.there for file in before):
            return ""
        path = compaction_path(newest.partition, newest.version, newest.number)
        return f", and none is lacking: if there is no copy, delete {self.lake.url(path)}, and they are read again"


def _is_older(path: str, before_ms: int) -> bool:
    match = COMPACTED_FILE.match(path.rpartition("/")[2])
    return match is not None and int(match["written_ms"]) <= before_ms
