"""DuckDB doing by hand what Weir's batch does with landed readings: duplicates dropped, values out of range left out,
robust z-scores per device and partition, rollups by minute and hour with the number of unusual values.

    python duckdb_rollups.py '{"folders": [of each partition], "ranges": {metric: [low, high]}, "partition": "hour"}'

Partition by partition, as a day at once is more than Polars has memory for. Prints as JSON: seconds, rollups, and count
and sum of their values.
"""

import json
import sys
import time

import duckdb

asked = json.loads(sys.argv[1])
ranges = asked["ranges"]

SHARED = (
    "CREATE OR REPLACE TEMP TABLE shared AS SELECT device_id, event_time FROM {files} GROUP BY ALL HAVING count(*) > 1"
)
FRESH = """
CREATE OR REPLACE TEMP TABLE fresh AS WITH
alone AS (SELECT * FROM {files} ANTI JOIN shared USING (device_id, event_time)),
first AS (
  SELECT * FROM {files} SEMI JOIN shared USING (device_id, event_time)
  QUALIFY row_number() OVER (
    PARTITION BY device_id, event_time, seq, array_to_string(carried, ','), {metrics}
    ORDER BY kafka_timestamp, kafka_partition, kafka_offset
  ) = 1
)
SELECT device_id, site, event_time, {kept}, kafka_offset FROM (FROM alone UNION ALL FROM first)
"""
SCORED = """
CREATE OR REPLACE TEMP TABLE scored AS WITH
v AS (
  SELECT device_id, site, event_time, kafka_offset, {metric} AS value, date_trunc('{partition}', event_time) AS part
  FROM fresh WHERE {metric} IS NOT NULL
),
middle AS (SELECT device_id, part, median(value) AS median, 1.4826 * mad(value) AS sigma FROM v GROUP BY ALL)
SELECT v.*, abs(value - median) > 5 * sigma AS unusual FROM v JOIN middle USING (device_id, part)
"""
ROLLED = """
CREATE OR REPLACE TEMP TABLE rolled AS SELECT device_id, site, date_trunc('{grain}', event_time) AS bucket,
  count(*) AS n, avg(value) AS mean, min(value) AS least, max(value) AS most, stddev_samp(value) AS deviation,
  arg_max(value, (event_time, kafka_offset)) AS last, count(*) FILTER (unusual) AS anomalies
FROM scored GROUP BY ALL
"""


def rolled_up() -> tuple[int, int, float]:
    db = duckdb.connect()
    db.execute("SET threads = 2; SET memory_limit = '14GB'; SET preserve_insertion_order = false; SET TimeZone = 'UTC'")
    kept = ", ".join(f"CASE WHEN {m} BETWEEN {low} AND {high} THEN {m} END AS {m}" for m, (low, high) in ranges.items())
    rollups, count, total = 0, 0, 0.0
    for folder in asked["folders"]:
        files = f"read_parquet('{folder}/*.parquet', hive_partitioning = false)"
        db.execute(SHARED.format(files=files))
        db.execute(FRESH.format(kept=kept, files=files, metrics=", ".join(ranges)))
        for metric in ranges:
            db.execute(SCORED.format(metric=metric, partition=asked["partition"]))
            for grain in ("minute", "hour"):
                db.execute(ROLLED.format(grain=grain))
                found = db.execute("SELECT count(*), sum(n), sum(n * mean) FROM rolled").fetchone()
                assert found is not None
                rollups, count, total = rollups + found[0], count + int(found[1]), total + found[2]
    return rollups, count, total


began = time.perf_counter()
rollups, count, total = rolled_up()
took = time.perf_counter() - began
print(json.dumps({"seconds": took, "rollups": rollups, "count": count, "sum": total}))
