"""The queries of the dashboards but for metrics over time (fleet.metric_sql). `$__…` is a macro of Grafana's, `$site`
and `$device` are variables of the dashboard, `{…}` is filled in here from the specs. Each has a bound in time, but
those of a state: alerts that are active, the registry, how far landing is. `{only}` is empty, or a condition on `type`
(of_types).
"""

from collections.abc import Iterable

HEARD = """\
WITH heard AS (
  SELECT d.system, d.type, d.device_id, d.site, max(metric.stale) AS stale, max(reading.at) AS last,
         (sum(recent.count) / 5)::bigint AS per_minute
    FROM devices d
    JOIN (VALUES {metrics}) AS metric (type, name, stale) USING (type)
    LEFT JOIN LATERAL (
           SELECT event_time AS at FROM readings
            WHERE type = d.type AND metric = metric.name AND device_id = d.device_id AND $__timeFilter(event_time)
            ORDER BY event_time DESC LIMIT 1) reading ON true
   CROSS JOIN LATERAL (
           SELECT count(*) FROM readings
            WHERE type = d.type AND metric = metric.name AND device_id = d.device_id
              AND event_time BETWEEN $__timeTo()::timestamptz - INTERVAL '5 minutes' AND $__timeTo()) recent
   WHERE d.retired_at IS NULL
   GROUP BY 1, 2, 3, 4
), device AS (
  SELECT *, stale IS NOT NULL AND (last IS NULL OR last < $__timeTo()::timestamptz - stale) AS is_silent FROM heard
)
"""
DEVICES = """\
SELECT count(*) AS devices, count(*) FILTER (WHERE is_silent) AS silent, sum(per_minute)::bigint AS "values a minute"
  FROM device WHERE site IN ($site)"""
SILENT = """\
SELECT device_id AS device, type, site, last AS "last reading",
       extract(epoch FROM $__timeTo()::timestamptz - last)::double precision AS "silent for"
  FROM device WHERE is_silent AND site IN ($site) ORDER BY last NULLS FIRST, device_id LIMIT 100"""

UNMET = """\
SELECT $__timeGroupAlias(validated_at, $__interval, 0),
       type || ': ' || coalesce(nullif(one->>'column', ''), 'the table') AS metric,
       sum(greatest((one->>'unexpected')::bigint, 1))::bigint AS "values"
  FROM validations CROSS JOIN LATERAL jsonb_array_elements(unmet) one
 WHERE {of_system} AND $__timeFilter(validated_at)
 GROUP BY 1, 2 ORDER BY 1, 2"""

ACTIVE_COUNTS = """\
SELECT count(*) FILTER (WHERE severity = 'critical') AS critical,
       count(*) FILTER (WHERE severity = 'warning') AS warning,
       count(*) FILTER (WHERE severity = 'info') AS info
  FROM alerts
 WHERE system = '{system}'{only} AND site IN ($site) AND resolved_at IS NULL AND starts_at <= $__timeTo()"""
ACTIVE = """\
SELECT severity, title, device_id AS device, site, starts_at AS since
  FROM alerts WHERE system = '{system}'{only} AND site IN ($site) AND resolved_at IS NULL AND starts_at <= $__timeTo()
 ORDER BY array_position(ARRAY['critical', 'warning', 'info'], severity), starts_at DESC LIMIT 100"""
FIRED = """\
SELECT $__timeGroupAlias(event_time, $__interval, 0), replace(rule, '_', ' ') AS metric, count(*) AS fired
  FROM alert_transitions
 WHERE system = '{system}'{only} AND site IN ($site) AND "to" = 'firing' AND $__timeFilter(event_time)
 GROUP BY 1, 2 ORDER BY 1, 2"""
FIRED_BY_RULE = """\
SELECT replace(rule, '_', ' ') AS alert, count(transition_id) AS fired
  FROM (VALUES {rules}) AS known (type, rule)
  LEFT JOIN (SELECT type, rule, transition_id FROM alert_transitions
              WHERE system = '{system}' AND site IN ($site) AND "to" = 'firing' AND $__timeFilter(event_time)) told
 USING (type, rule)
 GROUP BY type, rule ORDER BY 2 DESC, 1"""
# Alerts that were active at any time of the range: their regions begin before it where they did.
ANNOTATION = """\
SELECT starts_at AS time, coalesce(resolved_at, $__timeTo()::timestamptz) AS timeend, title AS text,
       severity || ',' || rule AS tags
  FROM alerts
 WHERE system = '{system}' AND device_id = '$device' AND starts_at <= $__timeTo()
   AND (resolved_at IS NULL OR resolved_at >= $__timeFrom())
 ORDER BY starts_at DESC LIMIT 100"""

BAD_DATA = """\
SELECT count(*) FILTER (WHERE what = 'value') AS "bad values", count(*) FILTER (WHERE what = 'reading') AS quarantined,
       count(*) FILTER (WHERE what = 'dead_letter') AS rejected
  FROM quarantine WHERE {of_system} AND $__timeFilter(at)"""
BAD_DATA_BY_REASON = """\
SELECT $__timeGroupAlias(at, $__interval, 0), replace(reason, '_', ' ') AS metric, count(*) AS count
  FROM quarantine WHERE {of_system} AND what <> 'reading' AND $__timeFilter(at) GROUP BY 1, 2 ORDER BY 1, 2"""
# A reading is late that came, in the order of the log, after one of the same device that was measured more than the
# type's lateness later: rules pass over it, and over some more, as what came of other devices of its partition counts
# there too. What only came again is not late. {metrics}: type, metric, lateness. One metric
# says it of a type, and readings of {span} at most are gone through.
LATE = """\
SELECT $__timeGroupAlias(event_time, $__interval, 0), count(*) FILTER (WHERE is_late) AS late
  FROM devices d
  JOIN (VALUES {metrics}) AS known (type, metric, lateness) USING (type)
 CROSS JOIN LATERAL (
         SELECT event_time, min(kafka_offset) > min(min(kafka_offset)) OVER newer AS is_late
           FROM readings
          WHERE type = d.type AND metric = known.metric AND device_id = d.device_id AND $__timeFilter(event_time)
            AND event_time >= $__timeTo()::timestamptz - INTERVAL '{span}'
          GROUP BY kafka_topic, kafka_partition, event_time
         WINDOW newer AS (PARTITION BY kafka_topic, kafka_partition ORDER BY event_time DESC
                          RANGE BETWEEN UNBOUNDED PRECEDING
                                    AND known.lateness + INTERVAL '1 microsecond' PRECEDING)) reading
 WHERE d.retired_at IS NULL AND d.site IN ($site)
 GROUP BY 1 ORDER BY 1"""
ANOMALIES = """\
SELECT $__timeGroupAlias(event_time, $__interval, 0), kind AS metric, count(*) AS anomalies
  FROM anomalies WHERE {of_system} AND $__timeFilter(event_time) GROUP BY 1, 2 ORDER BY 1, 2"""
BALANCE = """\
SELECT (coalesce(sum(abs(rows_off_by) + values_off_by), 0) + count(*) FILTER (WHERE status = 'failed'))::bigint AS books
  FROM ledger_balance WHERE {of_system} AND starts_at BETWEEN $__timeFrom()::timestamptz - {folder} AND $__timeTo()"""
BOOKS = """\
SELECT partition, status, landed, valid, quarantined, duplicate, rows_off_by AS "rows off by",
       values_off_by AS "values off by"
  FROM ledger_balance WHERE {of_system} AND starts_at BETWEEN $__timeFrom()::timestamptz - {folder} AND $__timeTo()
 ORDER BY starts_at DESC, partition LIMIT 100"""

LANDED = """\
SELECT kafka_topic AS topic, kafka_partition AS partition, landed_to AS landed, end_offset AS "end",
       end_offset - landed_to AS "not landed", missing, checked_at AS "looked at"
  FROM ledger_topics WHERE checked_at <= $__timeTo() ORDER BY 1, 2"""
RUNS = """\
SELECT started_at AS started, status, extract(epoch FROM finished_at - started_at)::double precision AS took,
       cardinality(partitions) AS partitions, run_id AS run
  FROM etl_runs WHERE $__timeFilter(started_at) ORDER BY started_at DESC LIMIT 50"""
PARITY = """\
SELECT starts_at AS "from", ends_at AS "to", system, type,
       CASE WHEN sum(explained + unexplained) = 0 THEN 100
            ELSE 100.0 * sum(same) / sum(same + explained + unexplained) END::double precision AS parity,
       sum(readings)::bigint AS readings, sum(published)::bigint AS published, sum(same)::bigint AS same,
       sum(explained)::bigint AS explained, sum(unexplained)::bigint AS unexplained
  FROM parity_standing WHERE ends_at BETWEEN $__timeFrom()::timestamptz - INTERVAL '7 days' AND $__timeTo()
 GROUP BY starts_at, ends_at, system, type ORDER BY ends_at DESC, parity, system, type LIMIT 100"""
PARITY_DIFFERENCES = """\
SELECT event_time AS "time", system, device_id AS device, rule, "to", difference, cause, detail
  FROM parity_differences_standing WHERE ends_at BETWEEN $__timeFrom()::timestamptz - INTERVAL '7 days' AND $__timeTo()
 ORDER BY explained, event_time DESC LIMIT 100"""

DEVICE_VALUES = """\
SELECT metric.title AS metric, round(newest.value::numeric, 2)::text || metric.symbol AS value,
       newest.event_time AS "measured at", d.site, d.registered_at AS "known since"
  FROM devices d
  JOIN (VALUES {titles}) AS metric (type, name, title, symbol) USING (type)
 CROSS JOIN LATERAL (
         SELECT value, event_time FROM readings
          WHERE type = d.type AND metric = metric.name AND device_id = d.device_id AND $__timeFilter(event_time)
          ORDER BY event_time DESC LIMIT 1) newest
 WHERE d.device_id = '$device' ORDER BY 1"""
DEVICE_ALERTS = """\
SELECT severity, title, starts_at AS started, resolved_at AS resolved,
       extract(epoch FROM coalesce(resolved_at, $__timeTo()::timestamptz) - starts_at)::double precision AS lasted
  FROM alerts
 WHERE system = '{system}' AND device_id = '$device' AND starts_at <= $__timeTo()
   AND (resolved_at IS NULL OR resolved_at >= $__timeFrom())
 ORDER BY starts_at DESC LIMIT 50"""

# What was estimated last of each minute: after another champion, of the same minute by both, the newer one.
ESTIMATES = """\
SELECT $__timeGroupAlias(at, $__interval, NULL), avg(truth) AS truth, avg(value) AS estimate
  FROM (SELECT DISTINCT ON (site, device_id, at) at, truth, value FROM predictions
         WHERE name = '{model}' AND site IN ($site) AND $__timeFilter(at)
         ORDER BY site, device_id, at, scored_at DESC) newest
 GROUP BY 1 ORDER BY 1"""
# `since` is of minutes in the range that the model was not trained on.
MODELS = """\
SELECT model_id AS model, CASE WHEN champion THEN 'champion' ELSE '' END AS state, algorithm, trained_at AS trained,
       trained_to AS "on data to", models.accuracy AS "held out: accuracy", f1 AS "held out: F1",
       since.minutes AS "since: minutes", since.accuracy AS "since: accuracy", since.error AS "since: off by", verdict
  FROM models
 CROSS JOIN LATERAL (
         SELECT count(*) AS minutes, avg((value = truth)::int)::double precision AS accuracy,
                avg(abs(value - truth)) AS error
           FROM predictions p
          WHERE p.model_id = models.model_id AND p.at > models.trained_to AND truth IS NOT NULL
            AND site IN ($site) AND $__timeFilter(at)) since
 WHERE name = '{model}' AND trained_at <= $__timeTo() ORDER BY models.champion DESC, trained_at DESC LIMIT 20"""

# One row a system: each of the four parts is counted by itself.
SYSTEMS = """\
SELECT system, devices, silent, per_minute AS "values a minute", coalesce(critical, 0) AS critical,
       coalesce(warning, 0) AS warning, coalesce(info, 0) AS info, coalesce(quarantined, 0) AS quarantined,
       coalesce(rejected, 0) AS rejected, coalesce(off_by, 0)::bigint AS books
  FROM (VALUES {systems}) AS known (system)
  LEFT JOIN (SELECT system, count(*) AS devices, count(*) FILTER (WHERE is_silent) AS silent,
                    sum(per_minute)::bigint AS per_minute FROM device GROUP BY 1) counted USING (system)
  LEFT JOIN (SELECT system, count(*) FILTER (WHERE severity = 'critical') AS critical,
                    count(*) FILTER (WHERE severity = 'warning') AS warning,
                    count(*) FILTER (WHERE severity = 'info') AS info
               FROM alerts WHERE resolved_at IS NULL AND starts_at <= $__timeTo() GROUP BY 1) active USING (system)
  LEFT JOIN (SELECT system, count(*) FILTER (WHERE what = 'value') AS quarantined,
                    count(*) FILTER (WHERE what = 'dead_letter') AS rejected
               FROM quarantine WHERE $__timeFilter(at) GROUP BY 1) bad USING (system)
  LEFT JOIN (SELECT system, sum(abs(rows_off_by) + values_off_by) + count(*) FILTER (WHERE status = 'failed') AS off_by
               FROM ledger_balance
              WHERE starts_at BETWEEN $__timeFrom()::timestamptz - INTERVAL '31 days' AND $__timeTo()
              GROUP BY 1) books USING (system)
 ORDER BY system"""
ALL_ACTIVE_COUNTS = ACTIVE_COUNTS.replace("system = '{system}'{only} AND site IN ($site) AND ", "")
ALL_FIRED = """\
SELECT $__timeGroupAlias(event_time, $__interval, 0), system AS metric, count(*) AS fired
  FROM alert_transitions WHERE "to" = 'firing' AND $__timeFilter(event_time) GROUP BY 1, 2 ORDER BY 1, 2"""
ROLLED = """\
SELECT $__timeGroupAlias(bucket, $__interval, 0), system AS metric, sum(count)::bigint AS values
  FROM rollups
 WHERE grain = CASE WHEN $__interval_ms < 3600000 THEN '1m' ELSE '1h' END AND $__timeFilter(bucket)
 GROUP BY 1, 2 ORDER BY 1, 2"""
OWN_COUNTS = """\
SELECT coalesce(sum(value) FILTER (WHERE metric = 'late'), 0) AS late,
       coalesce(sum(value) FILTER (WHERE metric = 'duplicates'), 0) AS duplicates,
       coalesce(sum(value) FILTER (WHERE metric = 'rejects'), 0) AS unreadable
  FROM readings
 WHERE type = 'weir_component' AND metric IN ('late', 'duplicates', 'rejects') AND $__timeFilter(event_time)"""

SITES = "SELECT DISTINCT site FROM devices WHERE system = '{system}' AND registered_at <= $__timeTo() ORDER BY 1"
DEVICE_IDS = """\
SELECT device_id FROM devices
 WHERE system = '{system}'{only} AND site IN ($site) AND registered_at <= $__timeTo()
 GROUP BY 1 ORDER BY length(device_id), device_id"""


def of_types(types: Iterable[str]) -> str:
    """For `{only}`."""
    return f" AND type IN ({', '.join(map(literal, types))})"


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def values(rows: Iterable[Iterable[str]]) -> str:
    """Rows of SQL expressions, for `VALUES`."""
    return ", ".join(f"({', '.join(row)})" for row in rows)
