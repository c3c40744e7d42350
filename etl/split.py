"""Rows into duplicate, quarantined and valid; values into known, bad and kept; all from the spec. Spark, no I/O.

- Duplicate: equal device_id, event_time, seq and set of metrics carried, and where seq is null equal values too; the
  first by append time, Kafka partition, offset stays.
- Bad value: outside its range where the spec says `quarantine` or `fail`. It is quarantined alone.
- Quarantined reading: it carried known values, and each of them is bad.
"""

from collections.abc import Iterable
from functools import reduce
from typing import TYPE_CHECKING

from pyspark.sql import functions as F
from pyspark.sql.window import Window

from etl.lake_frames import VERSION
from fleet.lake_layout import SOURCE_COLUMNS, Grain
from fleet.spec import DeviceType

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

FATE = "fate"
STARTS_AT = "starts_at"
DUPLICATE, QUARANTINED, VALID = "duplicate", "quarantined", "valid"
IDENTITY = (STARTS_AT, VERSION, "device_id", "site", "event_time", "seq", *SOURCE_COLUMNS)


def with_fates(rows: "DataFrame", spec: DeviceType, grain: Grain) -> "DataFrame":
    """Rows of lake files (see fleet.lake_layout.columns) plus STARTS_AT, the start of the row's partition, and FATE."""
    metrics = list(spec.metrics)
    rows = rows.withColumns({m: _finite(m) for m in metrics}).withColumn(STARTS_AT, F.date_trunc(grain, "event_time"))
    same = Window.partitionBy(
        "device_id",
        "event_time",
        "seq",
        F.sort_array(F.array_distinct("carried")),
        F.when(F.col("seq").isNull(), F.struct(*metrics)),
    ).orderBy("kafka_timestamp", "kafka_partition", "kafka_offset", "kafka_topic")
    known = _sum(F.col(m).isNotNull() for m in metrics)
    bad = _sum(is_bad(spec, m) for m in metrics)
    fate = (
        F.when(F.col("_place") > 1, DUPLICATE)
        .when((F.col("_known") > 0) & (F.col("_known") == F.col("_bad")), QUARANTINED)
        .otherwise(VALID)
    )
    # Every copy of a reading, and every reading of a device, comes to the same task: one shuffle for all that follows,
    # and sums in the same order at every run.
    return (
        rows.repartition("device_id")
        .withColumns({"_place": F.row_number().over(same), "_known": known, "_bad": bad})
        .withColumn(FATE, fate)
        .drop("_place", "_known", "_bad")
    )


def is_bad(spec: DeviceType, metric: str) -> "Column":
    """True or false, never null: is this known value one to be quarantined?"""
    m = spec.metrics[metric]
    if m.range is None or m.outside == "warn":
        return F.lit(False)
    return F.coalesce((F.col(metric) < m.range.low) | (F.col(metric) > m.range.high), F.lit(False))


def counts(fated: "DataFrame", spec: DeviceType) -> "DataFrame":
    """One row per partition: STARTS_AT, VERSION (the newest), landed, duplicate, quarantined, valid, and of each metric
    `known:<m>` and `bad:<m>`, counted in rows that are no duplicates."""
    fresh = F.col(FATE) != DUPLICATE
    columns = [F.max(VERSION).alias(VERSION), F.count("*").alias("landed")]
    columns += [F.count_if(F.col(FATE) == fate).alias(fate) for fate in (DUPLICATE, QUARANTINED, VALID)]
    for m in spec.metrics:
        columns.append(F.count_if(fresh & F.col(m).isNotNull()).alias(f"known:{m}"))
        columns.append(F.count_if(fresh & is_bad(spec, m)).alias(f"bad:{m}"))
    return fated.groupBy(STARTS_AT).agg(*columns)


def values(fated: "DataFrame", spec: DeviceType) -> "DataFrame":
    """The known values of rows that are no duplicates, one a row: IDENTITY, metric, value, low, high (null without a
    range), `outside` (its range, true or false) and `bad` (to be quarantined)."""
    long = (
        fated.where(F.col(FATE) != DUPLICATE)
        .select(*IDENTITY, *spec.metrics)
        .unpivot([*IDENTITY], [*spec.metrics], "metric", "value")
        .where(F.col("value").isNotNull())
    )
    ranges = {name: m.range for name, m in spec.metrics.items() if m.range is not None}
    quarantining = [name for name in ranges if spec.metrics[name].outside != "warn"]
    outside = (F.col("value") < F.col("low")) | (F.col("value") > F.col("high"))
    outside = F.coalesce(outside, F.lit(False))
    return (
        long.withColumns(
            {
                "low": _of_metric({name: r.low for name, r in ranges.items()}),
                "high": _of_metric({name: r.high for name, r in ranges.items()}),
            }
        )
        .withColumn("outside", outside)
        .withColumn("bad", F.col("outside") & F.col("metric").isin(quarantining))
    )


def bad_readings(fated: "DataFrame") -> "DataFrame":
    """IDENTITY of the readings that are quarantined whole."""
    return fated.where(F.col(FATE) == QUARANTINED).select(*IDENTITY)


def _finite(metric: str) -> "Column":
    """NaN and infinities, which ingest takes as null, would poison means. In Spark NaN is greater than infinity."""
    return F.when(F.abs(F.col(metric)) < F.lit(float("inf")), F.col(metric))


def _sum(conditions: "Iterable[Column]") -> "Column":
    return reduce(lambda a, b: a + b, [c.cast("int") for c in conditions])


def _of_metric(numbers: dict[str, float]) -> "Column":
    cases = [F.when(F.col("metric") == name, F.lit(float(number))) for name, number in numbers.items()]
    return F.coalesce(*cases, F.lit(None).cast("double"))
