"""One batch of partitions through Spark: its books, rollups, anomalies and quarantine, as Arrow tables by partition."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from connections.lake import Lake
from etl.lake_frames import VERSION, spark_frame
from etl.lake_index import PartitionFiles
from fleet.errors import DataError
from fleet.ledger import GRAINS, MetricBooks, PartitionBooks
from fleet.spec import DeviceType

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class Derived:
    """Of one partition: all that replaces what the warehouse has of it."""

    files: PartitionFiles
    books: PartitionBooks
    spec_version: int
    rollups: pa.Table
    anomalies: pa.Table
    bad_values: pa.Table
    bad_readings: pa.Table


def derive(spark: "SparkSession", lake: Lake, spec: DeviceType, partitions: Iterable[PartitionFiles]) -> list[Derived]:
    """In the order of the partitions. They are of one type; all of them are computed in one go."""
    from pyspark.sql import functions as F

    from etl import rollup, split

    wanted = list(partitions)
    grain = wanted[0].partition.grain
    fated = split.with_fates(spark_frame(spark, lake, spec, wanted), spec, grain).persist()
    values = split.values(fated, spec).persist()
    scored = rollup.scored(values, spec).persist()
    try:
        counts = {_start(row): row for row in split.counts(fated, spec).toArrow().to_pylist()}
        bad = scored.where(F.col("bad")).select(*split.IDENTITY, "metric", "value", "low", "high")
        tables = {
            "rollups": rollup.rollups(scored).toArrow(),
            "anomalies": rollup.anomalies(scored).toArrow(),
            "bad_values": bad.toArrow(),
            "bad_readings": split.bad_readings(fated).toArrow(),
        }
    finally:
        scored.unpersist()
        values.unpersist()
        fated.unpersist()
    strangers = set(counts) - {p.partition.start for p in wanted}
    if strangers:
        raise DataError(f"{spec.type}: files hold readings of {min(strangers).isoformat()}, which is another partition")
    return [_of_partition(p, spec, counts.get(p.partition.start), tables) for p in wanted]


def _of_partition(
    files: PartitionFiles, spec: DeviceType, count: Mapping[str, Any] | None, tables: Mapping[str, pa.Table]
) -> Derived:
    key, start = files.partition.key, files.partition.start
    if count is None:
        raise DataError(f"{key}: its files have no rows that Spark can read; their manifests say {files.rows:,}")
    own = {
        name: _sorted(table.filter(pc.equal(table["starts_at"], _like(table, start)))) for name, table in tables.items()
    }
    rolled = {(m, g): 0 for m in spec.metrics for g in GRAINS}
    sums = own["rollups"].group_by(["metric", "grain"]).aggregate([("count", "sum")]).to_pylist()
    rolled.update({(row["metric"], row["grain"]): row["count_sum"] for row in sums})
    metrics = tuple(
        MetricBooks(m, count[f"known:{m}"], {g: rolled[m, g] for g in GRAINS}, count[f"bad:{m}"]) for m in spec.metrics
    )
    books = PartitionBooks(key, count["landed"], count["valid"], count["quarantined"], count["duplicate"], metrics)
    return Derived(files, books, count[VERSION], **own)


def _start(row: Mapping[str, Any]) -> datetime:
    return row["starts_at"].astimezone(UTC)


def _like(table: pa.Table, moment: datetime) -> pa.Scalar:
    return pa.scalar(moment, table.schema.field("starts_at").type)


SORT_KEYS = ("grain", "metric", "device_id", "site", "bucket", "event_time", "kind", "kafka_partition", "kafka_offset")


def _sorted(table: pa.Table) -> pa.Table:
    """The same order at every run, so that a re-run stores the same rows in the same places."""
    return table.sort_by([(name, "ascending") for name in SORT_KEYS if name in table.column_names])
