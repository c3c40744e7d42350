"""What of the lake nobody reads any more goes: landed files that a compaction record has replaced or expired, records
that a later one has, and compacted files that no record names. All a GRACE later, and again where it was broken off."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from connections.compactions import Compactions
from connections.lake import Lake
from etl.lake_frames import read_table
from etl.window import micros
from fleet.compaction import GRACE, Compaction, outlived, replaced
from fleet.errors import DataError
from fleet.lake_layout import ALERTS, COMPACTED_FILE, REJECTED, compaction_path

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
    """Raises Unavailable; DataError where a record is none."""
    before_ms = micros(now - GRACE) // 1000
    found = Tidied()
    there = {path for folder in FOLDERS for path in lake.files(folder)}
    records = Compactions(lake)  # after the files: what was committed meanwhile is named
    named: set[str] = set()
    for partition, version in list(records.partitions()):
        chain = list(records.records(partition, version))
        if not chain:
            continue
        gone = list(outlived(chain, before_ms))
        found.records += lake.sweep(compaction_path(partition, version, record.number) for record in gone)
        named |= {e.file.path for record in chain if record not in gone for e in record.files if e.file}
        found.landed += lake.sweep(_replaced(lake, chain, there, before_ms, found.problems))
    orphans = (path for path in there if path not in named and _is_older(path, before_ms))
    found.compacted += lake.sweep(orphans)
    return found


def _replaced(
    lake: Lake, chain: list[Compaction], there: Collection[str], before_ms: int, problems: list[str]
) -> Iterable[str]:
    """Landed files to delete. Before the last other copy of its rows goes, the file that has them is read once more."""
    candidates = replaced(chain, before_ms)
    for entry in chain[0].files:
        paths = [one.path for one in entry.covers if one.path in candidates and one.path in there]
        if paths and entry.file:
            try:
                read_table(lake, entry.file)
            except DataError as error:
                problems.append(f"{error}; the files that it was made from stay")
                continue
        yield from paths


def _is_older(path: str, before_ms: int) -> bool:
    match = COMPACTED_FILE.match(path.rpartition("/")[2])
    return match is not None and int(match["written_ms"]) <= before_ms
