"""The compaction records of a lake: what holds of a partition, and the commit of a new one."""

from collections.abc import Iterator
from functools import cache

from connections.lake import Lake
from fleet.compaction import Compaction, decode_compaction, encode_compaction
from fleet.errors import DataError
from fleet.lake_layout import COMPACTED, COMPACTION_NAME, compaction_folder, compaction_path


class Compactions:
    """Those that are there when they are first asked for. What these say is readable for a fleet.compaction.GRACE."""

    def __init__(self, lake: Lake):
        self.lake = lake
        self._numbers = cache(self._listed)
        self._read = cache(self._record)

    def records(self, partition: str, version: int) -> Iterator[Compaction]:
        """The newest first. Raises DataError where one does not add up or is no record."""
        system, type_name, _ = partition.split("/")
        for number in self._numbers(system, type_name).get((partition, version), ()):
            record = self._read(partition, version, number)
            if record is not None:
                yield record

    def last(self, partition: str, version: int) -> Compaction | None:
        return next(self.records(partition, version), None)

    def partitions(self) -> Iterator[tuple[str, int]]:
        """(partition, version) of all that have records."""
        for system in self.lake.names(COMPACTED):
            for type_name in self.lake.names(f"{COMPACTED}/{system}"):
                yield from self._numbers(system, type_name)

    def commit(self, record: Compaction) -> bool:
        """False where another writer was first. Raises DataError if it does not add up."""
        if record.imbalance():
            raise DataError(f"refusing to commit {record}: off by {record.imbalance()} rows")
        path = compaction_path(record.partition, record.version, record.number)
        return self.lake.put_if_absent(path, encode_compaction(record))

    def _listed(self, system: str, type_name: str) -> dict[tuple[str, int], list[int]]:
        found: dict[tuple[str, int], list[int]] = {}
        for name in reversed(self.lake.names(compaction_folder(system, type_name))):
            if match := COMPACTION_NAME.match(name):
                key = f"{system}/{type_name}/{match['start']}", int(match["version"])
                found.setdefault(key, []).append(int(match["number"]))
        return found

    def _record(self, partition: str, version: int, number: int) -> Compaction | None:
        """None where it was removed, as nobody needs it any more, since the names were read."""
        path = compaction_path(partition, version, number)
        try:
            record = decode_compaction(self.lake.read(path))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DataError(f"{self.lake.url(path)} is no compaction record: {error}") from error
        if record.imbalance():
            raise DataError(f"{self.lake.url(path)} does not add up: off by {record.imbalance()} rows")
        return record
