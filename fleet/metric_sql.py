"""The queries of a metric over time. `$__…` is a macro of Grafana's, `$site` and `$device` are variables of the
dashboard, `{…}` is filled in here from the specs.

The distance of two points says which table answers: below a minute (up to some three hours) `readings`, from a minute
on the rollups of a minute, from an hour on those of an hour. PostgreSQL sees the comparison of two constants, and
leaves the other table alone. Rollups come with the batch job, every quarter of an hour: the minutes since are those of
the stream job, where it runs.

Devices come from the registry, each with a look-up of its own: no index of `readings` begins with the time.
"""

OF_DEVICE = """\
WITH of_device AS (
  SELECT d.device_id, point.*
    FROM devices d
   CROSS JOIN LATERAL (
           SELECT $__timeGroupAlias(event_time, $__interval, NULL), {of_readings} AS value
             FROM readings
            WHERE $__interval_ms < 60000 AND $__timeFilter(event_time)
              AND type = '{type}' AND metric = '{metric}' AND device_id = d.device_id
            GROUP BY 1
            UNION ALL
           SELECT $__timeGroupAlias(bucket, $__interval, NULL), {of_rollups}
             FROM (SELECT bucket, count, mean, max, last
                     FROM rollups
                    WHERE $__interval_ms >= 60000 AND $__timeFilter(bucket)
                      AND grain = CASE WHEN $__interval_ms < 3600000 THEN '1m' ELSE '1h' END
                      AND type = '{type}' AND metric = '{metric}' AND device_id = d.device_id
                    UNION ALL
                   SELECT bucket, count, mean, max, last
                     FROM rollups_live
                    WHERE $__interval_ms BETWEEN 60000 AND 3599999 AND $__timeFilter(bucket)
                      AND type = '{type}' AND metric = '{metric}' AND device_id = d.device_id
                      AND bucket > coalesce((
                            SELECT max(bucket) FROM rollups
                             WHERE grain = '1m' AND $__timeFilter(bucket)
                               AND type = '{type}' AND metric = '{metric}' AND device_id = d.device_id
                          ), '-infinity')) rolled
            GROUP BY 1) point
   WHERE d.type = '{type}' AND d.site IN ($site)
)
"""
"""One value a device and point; NULL makes Grafana show where there is none."""
MEAN = {"of_readings": "avg(value)", "of_rollups": "sum(mean * count) / sum(count)"}
MOST = {"of_readings": "max(value)", "of_rollups": "max(max)"}
LAST = {"of_readings": "last(value, event_time)", "of_rollups": "last(last, bucket)"}

BAND = """\
SELECT time,
       percentile_cont(0.1) WITHIN GROUP (ORDER BY value) AS p10,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY value) AS median,
       percentile_cont(0.9) WITHIN GROUP (ORDER BY value) AS p90,
       avg(value) FILTER (WHERE device_id = '$device') AS device
  FROM of_device GROUP BY 1 ORDER BY 1"""
SHARE = """\
SELECT time, avg(value) AS "all devices", avg(value) FILTER (WHERE device_id = '$device') AS device
  FROM of_device GROUP BY 1 ORDER BY 1"""
# A fall is a reset and counts from zero, as in a rule's `rate`. What came while nothing was heard is nobody's: no bar.
GROWTH = """\
, step AS (
  SELECT time, device_id, value, lag(value) OVER of_one AS before, time - lag(time) OVER of_one AS since
    FROM of_device WHERE value IS NOT NULL WINDOW of_one AS (PARTITION BY device_id ORDER BY time)
), growth AS (
  SELECT time, device_id, CASE WHEN value >= before THEN value - before ELSE value END AS value
    FROM step WHERE since <= 2 * $__interval_ms * INTERVAL '1 millisecond'
)
SELECT time, sum(value) AS "all devices", sum(value) FILTER (WHERE device_id = '$device') AS device
  FROM growth GROUP BY 1 ORDER BY 1"""
EACH = """\
SELECT time, device_id AS metric, value FROM of_device ORDER BY 1, 2"""
