"""Data files of the lake as Arrow tables and Spark frames, with what the files promise checked."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC
from functools import reduce
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connections.lake import Lake, arrow_schema
from etl.lake_index import PartitionFiles
from fleet.errors import DataError
from fleet.lake_layout import REJECTED_COLUMNS, ColumnType, Partition, columns
from fleet.manifest import DataFile
from fleet.spec import DeviceType

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SPARK_TYPES: dict[ColumnType, str] = {
    "string": "string", "int32": "int", "int64": "bigint", "double": "double", "timestamp_us": "timestamp",
    "timestamp_ms": "timestamp", "strings": "array<string>", "binary": "binary", "bool": "boolean",
}  # fmt: skip
VERSION = "spec_version"


def spark_schema(spec: DeviceType) -> str:
    """The columns of the type's files as Spark's DDL."""
    return ", ".join(f"`{name}` {SPARK_TYPES[kind]}" for name, kind in columns(spec).items())


def spark_frame(
    spark: "SparkSession", lake: Lake, spec: DeviceType, partitions: Iterable[PartitionFiles]
) -> "DataFrame":
    """All rows of the partitions, with the version each was written by. Metrics that a version lacked are null."""
    from pyspark.sql import functions as F

    files: dict[int, list[str]] = {}
    for p in partitions:
        for version, found in p.versions.items():
            files.setdefault(version, []).extend(lake.url(file.path) for file in found)
    frames = [
        spark.read.schema(spark_schema(spec)).parquet(*_for_spark(urls)).withColumn(VERSION, F.lit(version))
        for version, urls in sorted(files.items())
    ]
    return reduce(lambda a, b: a.unionByName(b), frames)


def _for_spark(urls: list[str]) -> list[str]:
    """Spark reads S3 by Hadoop's s3a."""
    return [f"s3a://{url.removeprefix('s3://')}" if url.startswith("s3://") else url for url in urls]


def arrow_tables(lake: Lake, spec: DeviceType, partition: PartitionFiles) -> Iterator[pa.Table]:
    """Each file as a table with the type's present columns.

    A metric that no reading of a file carried may be missing in it, and is null: the type may have got it later. Raises
    DataError where a file is not what its manifest and its place say: unreadable, other columns or types, another
    number of rows, or times outside the partition.
    """
    schema = arrow_schema(columns(spec))
    for file in partition.files:
        table = read_table(lake, file)
        _check_columns(table.schema, schema, file, current=file.version == spec.version)
        _check_carried(table, schema, file)
        _check_times(table, partition.partition, file)
        arrays = [table[f.name] if f.name in table.column_names else pa.nulls(table.num_rows, f.type) for f in schema]
        yield pa.Table.from_arrays(arrays, schema=schema)


REJECTS_AT_ONCE = 64
"""Rows; MQTT's largest packet is 1 MiB."""


def reject_batches(
    lake: Lake, partition: PartitionFiles, names: Iterable[str] = tuple(REJECTED_COLUMNS)
) -> Iterator[pa.RecordBatch]:
    """Dead letters in small batches, with these columns, file by file. Raises DataError as arrow_tables."""
    schema, wanted = arrow_schema(REJECTED_COLUMNS), list(names)
    for file in partition.files:
        with _damage_told(lake, file):
            found = pq.ParquetFile(pa.BufferReader(lake.read(file.path)))
            _check_rows(found.metadata.num_rows, lake, file)
            _check_columns(found.schema_arrow, schema, file, current=True)
            for batch in found.iter_batches(REJECTS_AT_ONCE, columns=wanted):
                yield batch.select(wanted)


def read_table(lake: Lake, file: DataFile) -> pa.Table:
    """As it is. Raises DataError where it is not there, no Parquet, or has another number of rows."""
    with _damage_told(lake, file):
        table = pq.read_table(pa.BufferReader(lake.read(file.path)), partitioning=None)
    _check_rows(table.num_rows, lake, file)
    return table


@contextmanager
def _damage_told(lake: Lake, file: DataFile) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{lake.url(file.path)} is in a manifest and not in the lake") from None
    except pa.ArrowException as error:
        raise DataError(f"{lake.url(file.path)} is no Parquet file that can be read: {error}") from error


def _check_rows(found: int, lake: Lake, file: DataFile) -> None:
    if found != file.rows:
        raise DataError(f"{lake.url(file.path)} has {found:,} rows, its manifest says {file.rows:,}")


def _check_columns(found: pa.Schema, wanted: pa.Schema, file: DataFile, current: bool) -> None:
    """A metric, the only kind of double, may be missing."""
    for field in wanted:
        place = found.get_field_index(field.name)
        if place < 0:
            if field.type != pa.float64():
                raise DataError(f"{file.path}: column {field.name!r} is missing")
        elif found.field(place).type != field.type:
            raise DataError(f"{file.path}: column {field.name!r} is {found.field(place).type}, expected {field.type}")
    extra = sorted(set(found.names) - set(wanted.names))
    if extra and current:
        raise DataError(f"{file.path}: column {extra[0]!r} is none of version {file.version} of the type")


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
