"""Data files of the lake as Arrow tables and Spark frames, with what the files promise checked."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connections.lake import UNIT, Lake, arrow_schema
from etl import fetch_task
from etl.lake_index import PartitionFiles
from fleet.errors import DataError
from fleet.lake_layout import COMPACTED_FILE, REJECTED_COLUMNS, Partition, columns
from fleet.manifest import DataFile
from fleet.spec import DeviceType

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

VERSION = "spec_version"


FETCHERS = 16
"""Tasks among which the files of an S3 lake are divided to be fetched: each file takes tens of milliseconds."""
PATH = r"raw/system=[^/]+/type=.*$"
"""Of a data file, relative to the lake, in Spark's name for it."""


def file_frame(spark: "SparkSession", lake: Lake, wanted: pa.Table) -> "DataFrame":
    """Its rows, in no order, each with the whole `content` of its `file` (the path of a data file in the lake)."""
    from pyspark import cloudpickle
    from pyspark.sql import functions as F

    paths = dict.fromkeys(wanted["file"].to_pylist())
    signed = {lake.url(path): lake.signed_address(path) for path in paths}
    if None in signed.values():
        found = spark.read.format("binaryFile").load(list(signed))
    else:
        # Spark's own way to S3 wants 700 MB of jars, and the keys in each worker: see docs/decisions/0040.
        cloudpickle.register_pickle_by_value(fetch_task)
        addresses = spark.createDataFrame(pa.table([list(signed), list(signed.values())], ["path", "address"]))
        found = addresses.repartition(min(len(signed), FETCHERS)).mapInArrow(fetch_task.fetch, fetch_task.FETCHED)
    files = found.select(F.regexp_extract("path", PATH, 0).alias("file"), "content")
    return files.join(F.broadcast(spark.createDataFrame(wanted)), "file")


def arrow_tables(
    lake: Lake,
    spec: DeviceType,
    partition: PartitionFiles,
    dictionaries: Sequence[str] = (),
    read: Callable[[DataFile], pa.Table] | None = None,
) -> Iterator[pa.Table]:
    """Each file as a table with the type's present columns, some of its texts as dictionaries: a number a row. `read`
    instead of read_table.

    A metric that no reading of a file carried may be missing in it, and is null: the type may have got it later. Raises
    DataError where a file is not what its manifest and its place say: unreadable, other columns, types or units,
    another number of rows, or times outside the partition; and where its version is newer than the type.
    """
    schema = arrow_schema(columns(spec))
    for file in partition.to_read:
        _check_version(spec, file)
        table = read(file) if read else read_table(lake, file, dictionaries)
        with damage_told(lake, file):
            _check_units(table.schema, spec, file)
            _check_columns(table.schema, schema, file, current=file.version == spec.version)
            _check_carried(table, schema, file)
            _check_times(table, partition.partition, file)
        arrays = [table[f.name] if f.name in table.column_names else pa.nulls(table.num_rows, f.type) for f in schema]
        yield pa.table(arrays, names=schema.names)


REJECTS_AT_ONCE = 64
"""Rows; MQTT's largest packet is 1 MiB."""


def reject_batches(
    lake: Lake, partition: PartitionFiles, names: Iterable[str] = tuple(REJECTED_COLUMNS)
) -> Iterator[pa.RecordBatch]:
    """Dead letters in small batches, with these columns, file by file. Raises DataError as arrow_tables."""
    schema, wanted = arrow_schema(REJECTED_COLUMNS), list(names)
    for file in partition.to_read:
        data = read_bytes(lake, file.path)
        with damage_told(lake, file):
            found = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
            check_rows(found.metadata.num_rows, lake, file)
            _check_columns(found.schema_arrow, schema, file, current=True)
            read = 0
            for batch in found.iter_batches(REJECTS_AT_ONCE, columns=wanted):
                read += batch.num_rows
                yield batch.select(wanted)
            check_rows(read, lake, file)


RESTORE = "put the file back from a copy of the lake; until then its partition stays as it was last loaded"


def read_table(lake: Lake, file: DataFile, dictionaries: Sequence[str] = ()) -> pa.Table:
    """As it is. Raises DataError where it is not there, no Parquet, or has another number of rows."""
    data = read_bytes(lake, file.path)
    with damage_told(lake, file):
        table = pq.read_table(
            pa.BufferReader(data), partitioning=None, read_dictionary=dictionaries, page_checksum_verification=True
        )
        check_rows(table.num_rows, lake, file)
    return table


def read_bytes(lake: Lake, path: str) -> bytes:
    """Of a file that a manifest or a compaction record names. Raises DataError where it is not there."""
    try:
        return lake.read(path)
    except FileNotFoundError:
        raise _gone(lake, path) from None


def check_there(lake: Lake, paths: Iterable[str]) -> None:
    """As read_bytes, of files that others will read."""
    folders: dict[str, set[str]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        if folder not in folders:
            folders[folder] = set(lake.names(folder))
        if name not in folders[folder]:
            raise _gone(lake, path)


def _gone(lake: Lake, path: str) -> DataError:
    by = "compaction record" if COMPACTED_FILE.match(path.rpartition("/")[2]) else "manifest"
    return DataError(f"{lake.url(path)} is in a {by} and not in the lake; {RESTORE}")


@contextmanager
def damage_told(lake: Lake, file: DataFile) -> Iterator[None]:
    """Of bytes that are there. Arrow tells damage as its own error, as the system's where a codec finds it, or as none
    until a name is asked for."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        told = str(error).partition("\n")[0]
        raise DataError(f"{lake.url(file.path)} is no Parquet file that can be read: {told}; {RESTORE}") from error


def check_rows(found: int, lake: Lake, file: DataFile) -> None:
    if found != file.rows:
        raise DataError(f"{lake.url(file.path)} has {found:,} rows, its manifest says {file.rows:,}")


def _check_version(spec: DeviceType, file: DataFile) -> None:
    """Who reads by an older spec would drop what it does not know."""
    if file.version > spec.version:
        raise DataError(
            f"{file.path} is of version {file.version} of {spec.type}, and its spec is version {spec.version} now; put"
            f" back the spec that was, or give the present one a version above {file.version}"
        )


def _check_units(found: pa.Schema, spec: DeviceType, file: DataFile) -> None:
    """Files from before units were written down say none, and are believed."""
    for name, metric in spec.metrics.items():
        place = found.get_field_index(name)
        said = (found.field(place).metadata or {}).get(UNIT) if place >= 0 else None
        if said is not None and said.decode() != metric.unit:
            raise DataError(
                f"{file.path}: {name} is in {said.decode()} (version {file.version}), and in {metric.unit} by the"
                f" spec of {spec.type} now; a metric keeps its unit: put it back, and add the new one by another name"
            )


def _check_columns(found: pa.Schema, wanted: pa.Schema, file: DataFile, current: bool) -> None:
    """A metric, the only kind of double, may be missing."""
    for field in wanted:
        place = found.get_field_index(field.name)
        if place < 0:
            if field.type != pa.float64():
                raise DataError(f"{file.path}: column {field.name!r} is missing")
        elif _plain(found.field(place).type) != field.type:
            raise DataError(f"{file.path}: column {field.name!r} is {found.field(place).type}, expected {field.type}")
    extra = sorted(set(found.names) - set(wanted.names))
    if extra and current:
        raise DataError(f"{file.path}: column {extra[0]!r} is none of version {file.version} of the type")


def _plain(kind: pa.DataType) -> pa.DataType:
    """Without dictionaries."""
    if pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _check_carried(table: pa.Table, wanted: pa.Schema, file: DataFile) -> None:
    """What some reading brought has its column. To be asked after _check_columns."""
    missing = [name for name in wanted.names if name not in table.column_names]
    carried = set(pc.unique(pc.list_flatten(table["carried"])).to_pylist()) if missing else set()
    for name in missing:
        if name in carried:
            raise DataError(f"{file.path}: column {name!r} is missing")


def _check_times(table: pa.Table, partition: Partition, file: DataFile) -> None:
    limits = pc.min_max(table["event_time"]).as_py()
    for moment in limits.values():
        if moment is not None and not partition.start <= moment.astimezone(UTC) < partition.end:
            raise DataError(f"{file.path}: holds a reading of {moment.isoformat()}, which is not of {partition.key}")
