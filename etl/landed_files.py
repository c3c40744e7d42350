"""Files as they landed, one at a time, wherever their rows are now: for who reads in order of arrival.

A compacted file has its rows in order of their place in Kafka's log, in small row groups, so that those of one landed
file are found without the others.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connections.compactions import Compactions
from connections.lake import Lake
from etl.lake_frames import check_rows, damage_told, read_bytes, read_table
from fleet.compaction import Compacted, Compaction
from fleet.errors import DataError
from fleet.lake_layout import SOURCE_COLUMNS, Place, manifest_path, place_of
from fleet.manifest import DataFile

OPEN_FILES, OPEN_GROUPS = 4, 8
"""Compacted files and row groups that are kept at hand, 10 MB each: what arrives together lies in a few folders."""


class Expired(DataError):
    """The rows were deleted on purpose."""


class LandedFiles:
    """By the compaction records that are there when they are first asked for."""

    def __init__(self, lake: Lake):
        self.lake = lake
        self._records = Compactions(lake)
        self._covering = lru_cache(1000)(self._read_covering)
        self._open = lru_cache(OPEN_FILES)(self._opened)
        self._group = lru_cache(OPEN_GROUPS)(self._read_group)

    def table(self, landed: DataFile) -> pa.Table:
        """Its rows. Raises Expired; DataError as etl.lake_frames.read_table."""
        entry = self._covering(landed.partition, landed.version).get(landed.path)
        if entry is None:
            return read_table(self.lake, landed)
        file = _held(landed, entry)
        with damage_told(self.lake, file):
            table = self._slice(file, place_of(landed.path))
        check_rows(table.num_rows, self.lake, landed)
        return table

    def source(self, landed: DataFile) -> tuple[str, Compaction | None]:
        """What `table` reads: the path of the file that has its rows, and, where there is one, the newest compaction
        record of its partition. Raises Expired."""
        entry = self._covering(landed.partition, landed.version).get(landed.path)
        path = _held(landed, entry).path if entry else landed.path
        return path, self._records.last(landed.partition, landed.version)

    def file_of(self, topic: str, partition: int, offset: int) -> str | None:
        """The file that has a record; empty where none has it, as it is a heartbeat, a control record or could not be
        read; None where it has not landed yet. Raises Expired where it may be in a file that has, DataError."""
        least = manifest_path(topic, partition, offset)
        names = [name for name in self.lake.manifest_names(topic, partition) if name <= least]
        manifest = self.lake.manifest(names[-1]) if names else None
        if manifest is None or manifest.last_offset < offset:
            return None
        expired: Expired | None = None
        for file in manifest.files:
            try:
                if pc.is_in(pa.scalar(offset), value_set=self.table(file)["kafka_offset"].combine_chunks()).as_py():
                    entry = self._covering(file.partition, file.version).get(file.path)
                    return entry.file.path if entry and entry.file else file.path
            except Expired as error:
                expired = error
        if expired:
            raise expired
        return ""

    def _read_covering(self, partition: str, version: int) -> Mapping[str, Compacted]:
        """Path of a landed file → what the newest record says of it."""
        record = self._records.last(partition, version)
        return {one.path: entry for entry in record.files for one in entry.covers} if record else {}

    def _opened(self, file: DataFile) -> "_Open":
        content = pq.ParquetFile(pa.BufferReader(read_bytes(self.lake, file.path)), page_checksum_verification=True)
        groups = (content.metadata.row_group(number) for number in range(content.metadata.num_row_groups))
        return _Open(content, [_limits(group) for group in groups])

    def _read_group(self, file: DataFile, number: int) -> pa.Table:
        return self._open(file).content.read_row_group(number)

    def _slice(self, file: DataFile, place: Place) -> pa.Table:
        opened = self._open(file)
        numbers = [number for number, limits in enumerate(opened.limits) if _may_have(limits, place)]
        found = [_rows_of(self._group(file, number), place) for number in numbers]
        return pa.concat_tables(found) if found else opened.content.schema_arrow.empty_table()


def _held(landed: DataFile, entry: Compacted) -> DataFile:
    if entry.file is None:
        raise Expired(f"the readings of {landed.partition} have expired (retention.lake), and {landed.path} with them")
    return entry.file


class _Open(NamedTuple):
    content: pq.ParquetFile
    limits: list[dict[str, tuple[Any, Any]]]
    """Of each row group: column → its least and its greatest value, where the file says them."""


def _limits(group: pq.RowGroupMetaData) -> dict[str, tuple[Any, Any]]:
    found = {}
    for number in range(group.num_columns):
        column = group.column(number)
        if column.path_in_schema in SOURCE_COLUMNS and (said := column.statistics) and said.has_min_max:
            found[column.path_in_schema] = said.min, said.max
    return found


def _may_have(limits: Mapping[str, tuple[Any, Any]], place: Place) -> bool:
    wanted = (
        ("kafka_topic", place.topic, place.topic),
        ("kafka_partition", place.partition, place.partition),
        ("kafka_offset", place.first, place.last),
    )
    return all(
        column not in limits or (limits[column][0] <= last and first <= limits[column][1])
        for column, first, last in wanted
    )


def _rows_of(table: pa.Table, place: Place) -> pa.Table:
    offset = table["kafka_offset"]
    of_place = pc.and_(pc.equal(table["kafka_topic"], place.topic), pc.equal(table["kafka_partition"], place.partition))
    between = pc.and_(pc.greater_equal(offset, place.first), pc.less_equal(offset, place.last))
    return table.filter(pc.and_(of_place, between))
