"""Kafka's records as rollups of a minute, in DataFrame calls of Spark that run on a stream and on a table alike.

What a reading is, a bad value and a duplicate, is what the contract and the batch's kernel say. Here it stands once
more, as expressions made from the specs, and tests hold it against both.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from fleet.catalog import System
from fleet.channels import LEVEL, MARK_HEADER, RETURNED
from fleet.contract import EARLIEST_US, LATEST_US, MAX_FUTURE_US
from fleet.spec import DeviceType

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

GRAIN = "1 minute"
WATERMARK = "spark.watermarkDelayMs"
"""By this key in a column's metadata Spark knows it for the one that the watermark is about."""
NUMBER = r"(BIGINT|FLOAT|DOUBLE|DECIMAL\(\d+, ?\d+\))"
VALUE = rf"`?[a-z][a-z0-9_]*`?: ({NUMBER}|VOID)"
FORM = (
    rf"\AOBJECT<end: BIGINT, record: OBJECT<device_id: STRING, device_type: STRING, event_time: {NUMBER},"
    rf" (seq: (BIGINT|VOID), )?site: STRING, values: OBJECT<{VALUE}(, {VALUE})*>, version: BIGINT>>\z"
)
"""A canonical reading, as Spark describes a JSON document's types: these keys, no others, and numbers as numbers. Spark
reads a document and passes over what comes after it; so that nothing does, the record stands inside another one."""
RECORD = (
    "device_id string, device_type string, site string, event_time double, seq bigint, version int,"
    " values map<string, double>"
)
KEYS = ("type", "site", "device_id", "metric")
FIGURES = ("count", "mean", "min", "max", "stddev", "last", "spec_version")


def readings(records: "DataFrame", system: System) -> "DataFrame":
    """A row for each record of the system's topic, with headers. `kind`: `mark` (heartbeats and control records),
    `unreadable`, `reading`. Of readings: type, device_id, site, event_time, version, values (metric → number), and
    `identity`, by which duplicates of one device and time are known. Of all: clock, partition, offset."""
    from pyspark.sql import functions as F

    marks = F.filter("headers", lambda header: header["key"] == MARK_HEADER)
    mark = F.when(F.size("headers") > 0, F.get(marks, F.lit(0))["value"])
    is_reading = mark.isNull() | mark.isin(bytearray(b"reading"), bytearray(RETURNED))
    text = F.col("value").cast("string")
    form = F.schema_of_variant(F.try_parse_json(F.concat(F.lit('{"record":'), text, F.lit(',"end":0}'))))
    # What is not of the form is not parsed: of one half of it something might come. A generator, here of one row, is
    # what Spark does not merge with what follows: it would parse the record anew for each column, 300 µs in all.
    read = F.from_json(F.when(is_reading & form.rlike(FORM), text), RECORD)
    time_us = F.rint(F.col("event_time") * 1000).try_cast("bigint").alias("time_us")
    flat = records.select("partition", "offset", "timestamp", is_reading.alias("is_reading"), F.inline(F.array(read)))
    event_time = F.timestamp_micros("time_us")
    return flat.select("*", time_us).select(
        F.when(~F.col("is_reading"), "mark").when(_allowed(system), "reading").otherwise("unreadable").alias("kind"),
        F.col("device_type").alias("type"), "device_id", "site", "version", "values", _identity().alias("identity"),
        event_time.alias("event_time"), F.least(event_time, "timestamp").alias("clock"), "partition", "offset",
    )  # fmt: skip


def _allowed(system: System) -> "Column":
    """As fleet.contract.Intake.read_record decides, of what has the form."""
    from pyspark.sql import functions as F

    level = rf"\A(?:{LEVEL.pattern})\z"
    known = F.lit(False)
    for spec in system.types:
        metrics = F.array(*map(F.lit, spec.metrics))
        of_type = F.col("version").between(1, spec.version) & (
            F.size(F.array_except(F.map_keys("values"), metrics)) == 0
        )
        known = F.when(F.col("device_type") == spec.type, of_type).otherwise(known)
    appended_us = F.unix_micros("timestamp")
    return (
        known
        & ~_contains("values", float("inf"))
        & ~_contains("values", float("-inf"))
        & F.col("device_id").rlike(level)
        & F.col("site").rlike(level)
        & F.col("time_us").between(EARLIEST_US, LATEST_US - 1)
        & (F.col("time_us") <= appended_us + MAX_FUTURE_US)
    )


def _contains(values: str, number: float) -> "Column":
    from pyspark.sql import functions as F

    return F.coalesce(F.array_contains(F.map_values(values), F.lit(number)), F.lit(False))


def _identity() -> "Column":
    """The metrics carried and seq, or without seq their values."""
    from pyspark.sql import functions as F

    carried = F.array_join(F.sort_array(F.map_keys("values")), ",")
    values = F.to_json(F.sort_array(F.map_entries("values")))
    return F.concat_ws("|", carried, F.coalesce(F.col("seq").cast("string"), values))


def with_watermark(rows: "DataFrame", lateness: timedelta) -> "DataFrame":
    """The rows with `event_time` as the column that may be late. The watermark follows `clock`, the lesser of event
    time and append time: one device whose clock is ahead would else make all others late. Spark watches the column
    that `withWatermark` names, and drops by whichever is marked."""
    from pyspark.sql import functions as F

    milliseconds = lateness // timedelta(milliseconds=1)
    names = [name for name in rows.columns if name not in ("clock", "event_time")]
    marked = F.col("event_time").alias("event_time", metadata={WATERMARK: milliseconds})
    return rows.withWatermark("clock", f"{milliseconds} milliseconds").select(*names, marked)


def distinct(rows: "DataFrame") -> "DataFrame":
    """Without duplicates. The time is part of the key, so each is forgotten when the watermark has passed it: who comes
    after that is late."""
    return rows.dropDuplicates(["type", "device_id", "event_time", "identity"])


def rollups(rows: "DataFrame", system: System) -> "DataFrame":
    """bucket, type, site, device_id, metric, count, mean, min, max, stddev, last, spec_version of values that are known
    and not bad."""
    from pyspark.sql import functions as F

    values = rows.select("*", F.explode("values").alias("metric", "value")).where(
        F.col("value").isNotNull() & ~_bad(system.types)
    )
    position = F.struct("event_time", "partition", "offset")
    return (
        values.groupBy(F.window("event_time", GRAIN).alias("window"), *KEYS)
        .agg(
            F.count("value").alias("count"), F.avg("value").alias("mean"), F.min("value").alias("min"),
            F.max("value").alias("max"), F.stddev_samp("value").alias("stddev"),
            F.max_by("value", position).alias("last"), F.max("version").alias("spec_version"),
        )
        .select(F.col("window.start").alias("bucket"), *KEYS, *FIGURES)
    )  # fmt: skip


def _bad(types: Iterable[DeviceType]) -> "Column":
    """Outside a range whose values are quarantined."""
    from pyspark.sql import functions as F

    found = F.lit(False)
    for spec in types:
        for name, metric in spec.metrics.items():
            if metric.range and metric.outside != "warn":
                inside = F.col("value").between(metric.range.low, metric.range.high)
                found = found | ((F.col("type") == spec.type) & (F.col("metric") == name) & ~inside)
    return found


def live_rollups(records: "DataFrame", system: System, begins_at: datetime, name: str) -> "DataFrame":
    """All of it on a stream: what the buckets from `begins_at` on have become. The query's progress tells under `name`
    how many records, readings and unreadable ones there were."""
    from pyspark.sql import functions as F

    kinds = [F.count_if(F.col("kind") == kind).alias(told) for kind, told in COUNTED.items()]
    rows = readings(records, system).observe(name, F.count(F.lit(1)).alias("records"), *kinds)
    lateness = max(spec.lateness for spec in system.types)
    wanted = rows.where((F.col("kind") == "reading") & (F.col("event_time") >= F.lit(begins_at)))
    return rollups(distinct(with_watermark(wanted, lateness)), system)


COUNTED = {"reading": "readings", "unreadable": "unreadable"}
"""Kind of record → the name of its count."""
