"""Polars doing by hand what Weir's batch does with landed readings; asked and answered as duckdb_rollups.py."""

import json
import sys
import time

import polars as pl

asked = json.loads(sys.argv[1])
ranges = asked["ranges"]
PARTITION = {"hour": "1h", "day": "1d"}[asked["partition"]]


def rolled_up(folder: str) -> tuple[int, int, float]:
    kept = [pl.when(pl.col(m).is_between(low, high)).then(pl.col(m)) for m, (low, high) in ranges.items()]
    fresh = (
        pl.scan_parquet(f"{folder}/*.parquet", hive_partitioning=False)
        .with_columns(carried=pl.col("carried").list.join(","))
        .sort("kafka_timestamp", "kafka_partition", "kafka_offset")
        .unique(["device_id", "event_time", "seq", "carried", *ranges], keep="first")
        .with_columns(kept)
        .select("device_id", "site", "event_time", "kafka_offset", *ranges)
        .sort("event_time", "kafka_offset")
        .collect(engine="streaming")
    )
    rollups, count, total = 0, 0, 0.0
    for metric in ranges:
        series = ("device_id", pl.col("event_time").dt.truncate(PARTITION))
        away = (pl.col("value") - pl.col("value").median().over(series)).abs()
        scored = (
            fresh.lazy()
            .select("device_id", "site", "event_time", value=pl.col(metric))
            .drop_nulls("value")
            .with_columns(away=away)
            .with_columns(unusual=pl.col("away") > 5 * 1.4826 * pl.col("away").median().over(series))
            .collect()
        )
        for grain in ("1m", "1h"):
            rolled = (
                scored.lazy()
                .group_by("device_id", "site", pl.col("event_time").dt.truncate(grain))
                .agg(
                    n=pl.len(), mean=pl.col("value").mean(), least=pl.col("value").min(), most=pl.col("value").max(),
                    deviation=pl.col("value").std(), last=pl.col("value").last(), anomalies=pl.col("unusual").sum(),
                )
                .collect()
            )  # fmt: skip
            rollups += rolled.height
            count += int(rolled["n"].sum())
            total += float((rolled["n"] * rolled["mean"]).sum())
    return rollups, count, total


began = time.perf_counter()
rollups, count, total = map(sum, zip(*map(rolled_up, asked["folders"]), strict=True))
took = time.perf_counter() - began
print(json.dumps({"seconds": took, "rollups": rollups, "count": count, "sum": total}))
