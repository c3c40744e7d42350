"""Anomalies and rollups of the values that etl.split gives. Spark, no I/O."""

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from etl.lake_frames import VERSION
from etl.split import STARTS_AT
from fleet.spec import DeviceType

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Z_LIMIT = 5.0
"""Robust z-score from which a value is an anomaly. Of normally distributed values one in 1.7 million lies beyond 5;
at the usual 3.5 it would be one in 2,100, that is dozens an hour of a hundred healthy sensors."""
MIN_VALUES = 20
"""Of a device's metric in one partition; of fewer, the median says too little."""
MAD_TO_SIGMA = 1.4826
"""Median absolute deviation → standard deviation of a normal distribution."""
MEAN_DEVIATION_TO_SIGMA = 1.2533
"""Mean absolute deviation → the same; used where more than half of the values are equal, so that the MAD is 0."""
ROLLUP_COLUMNS = ("count", "mean", "min", "max", "stddev", "last", "anomalies")


def scored(values: "DataFrame", spec: DeviceType) -> "DataFrame":
    """Values plus `z` (null where there is no score: a state, a counter, too few values, or all of them equal),
    `z_low` and `z_high` (the values at the limits), and `unusual`: |z| is beyond Z_LIMIT. Median and deviation are of
    the device's metric over the partition, without bad values; the order of rows is fixed, so that sums are too."""
    series = [STARTS_AT, "device_id", "metric"]
    gauges = [name for name, metric in spec.metrics.items() if metric.kind == "gauge"]
    sample = F.when(~F.col("bad") & F.col("metric").isin(gauges), F.col("value"))
    sampled = values.withColumn("_sample", sample)
    # Aggregates joined back, not windows: a window evaluates a percentile anew for each of its rows.
    centres = (
        sampled.where(F.col("_sample").isNotNull())
        .groupBy(*series)
        .agg(F.count("*").alias("_n"), F.median("_sample").alias("_median"))
        .where(F.col("_n") >= MIN_VALUES)
        .drop("_n")
    )
    centred = sampled.join(F.broadcast(centres), series, "left")
    deviation = F.abs(F.col("_sample") - F.col("_median"))
    spreads = (
        centred.where(deviation.isNotNull())
        .groupBy(*series)
        .agg(F.median(deviation).alias("_mad"), F.mean(deviation).alias("_mean_deviation"))
    )
    sigma = F.when(F.col("_mad") > 0, F.col("_mad") * MAD_TO_SIGMA).when(
        F.col("_mean_deviation") > 0, F.col("_mean_deviation") * MEAN_DEVIATION_TO_SIGMA
    )
    return (
        centred.join(F.broadcast(spreads), series, "left")
        .withColumn("_sigma", sigma)
        .withColumns(
            {
                "z": (F.col("_sample") - F.col("_median")) / F.col("_sigma"),
                "z_low": F.col("_median") - Z_LIMIT * F.col("_sigma"),
                "z_high": F.col("_median") + Z_LIMIT * F.col("_sigma"),
            }
        )
        .withColumn("unusual", F.coalesce(F.abs("z") > Z_LIMIT, F.lit(False)))
        .drop("_sample", "_median", "_mad", "_mean_deviation", "_sigma")
    )


def rollups(scored_values: "DataFrame") -> "DataFrame":
    """STARTS_AT, bucket, grain (`1m`, `1h`), site, device_id, metric and ROLLUP_COLUMNS, of values that are not bad."""
    buckets = F.array(
        F.struct(F.lit("1m").alias("grain"), F.date_trunc("minute", "event_time").alias("bucket")),
        F.struct(F.lit("1h").alias("grain"), F.date_trunc("hour", "event_time").alias("bucket")),
    )
    value = F.col("value")
    return (
        scored_values.where(~F.col("bad"))
        .withColumn("_bucket", F.explode(buckets))
        .groupBy(STARTS_AT, "device_id", "metric", "site", F.col("_bucket.bucket"), F.col("_bucket.grain"))
        .agg(
            F.count("*").alias("count"),
            F.mean(value).alias("mean"),
            F.min(value).alias("min"),
            F.max(value).alias("max"),
            F.stddev_samp(value).alias("stddev"),
            F.max_by(value, F.struct("event_time", "kafka_partition", "kafka_offset")).alias("last"),
            F.count_if(F.col("unusual") | F.col("outside")).cast("int").alias("anomalies"),
        )
    )


def anomalies(scored_values: "DataFrame") -> "DataFrame":
    """One row for each value and kind: `range` (outside the spec's range, kept or quarantined) and `zscore`."""
    value, low, high = F.col("value"), F.col("low"), F.col("high")
    distance = F.when(value < low, low - value).otherwise(value - high)
    kinds = F.array_compact(
        F.array(
            F.when(F.col("outside"), _kind("range", distance, low, high)),
            F.when(F.col("unusual"), _kind("zscore", F.col("z"), F.col("z_low"), F.col("z_high"))),
        )
    )
    return (
        scored_values.where(F.col("outside") | F.col("unusual"))
        .withColumn("_kind", F.explode(kinds))
        .select(
            STARTS_AT, "event_time", "site", "device_id", "metric", "_kind.kind", "value", "_kind.score", "_kind.low",
            "_kind.high", F.col(VERSION), "kafka_topic", "kafka_partition", "kafka_offset",
        )
    )  # fmt: skip


def _kind(name: str, score, low, high):  # type: ignore[no-untyped-def]
    return F.struct(F.lit(name).alias("kind"), score.alias("score"), low.alias("low"), high.alias("high"))
