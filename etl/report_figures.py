"""Reads a report's figures from the warehouse. All bounds are [start, end), by event time, but for the books and
audits, whose spans overlap it; the same rows always give the same figures."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from connections.warehouse import Reader
from etl.report_energy import energy_of
from etl.window import Window
from fleet.catalog import System
from fleet.report import (
    PAST,
    SILENT,
    AlertKind,
    Books,
    Coverage,
    Device,
    Figures,
    Latency,
    Parity,
    Series,
    Validation,
    Worst,
    step_of,
)
from fleet.standing import rank

SHOWN = 10
# Of each device's first and last hour the minutes, by the index; whole hours where the minutes are gone.
MINUTE = """\
FROM rollups m WHERE m.type = d.type AND m.metric = ANY(heard.metrics) AND m.grain = '1m' AND m.device_id = d.device_id
                  AND m.site = ANY(heard.sites) AND m.bucket >= <hour> AND m.bucket < <hour> + INTERVAL '1 hour'"""
HEARD = f"""\
SELECT d.type, d.device_id, d.site, d.registered_at,
       coalesce(heard.times, 0)::bigint AS times, coalesce(heard.said, 0)::bigint AS said,
       coalesce((SELECT min(m.bucket) {MINUTE.replace("<hour>", "heard.first")}), heard.first) AS first,
       coalesce((SELECT max(m.bucket) {MINUTE.replace("<hour>", "heard.last")}), heard.last) AS last
  FROM devices d
  LEFT JOIN (SELECT type, device_id, min(first) AS first, max(last) AS last, max(times) AS times, sum(said) AS said,
                    array_agg(DISTINCT metric) AS metrics, array_agg(DISTINCT site) AS sites
               FROM (SELECT type, device_id, site, metric, min(bucket) AS first, max(bucket) AS last,
                            sum(count) AS said,
                            sum(sum(count)) OVER (PARTITION BY type, device_id, metric) AS times
                       FROM rollups
                      WHERE type = ANY(:types) AND grain = '1h' AND bucket >= :start AND bucket < :end
                      GROUP BY 1, 2, 3, 4) of_metric
              GROUP BY 1, 2) heard USING (type, device_id)
 WHERE d.system = :system AND d.type = ANY(:types) AND (d.registered_at < :end OR heard.first IS NOT NULL)
   AND (d.retired_at IS NULL OR d.retired_at >= :end)
 ORDER BY d.type, d.device_id"""  # noqa: S608
# A partition that is not over has what had come when it was processed.
LOADED = "SELECT max(least(ends_at, processed_at)) AS at FROM ledger WHERE system = :system AND status = 'loaded'"
# What fell silent before the span was not heard in it.
UNHEARD = """\
SELECT DISTINCT type, device_id FROM alert_transitions fired
 WHERE system = :system AND concat_ws('.', type, rule) = ANY(:no_data) AND "to" = 'firing'
   AND event_time >= :start AND event_time < :end
   AND NOT EXISTS (SELECT FROM alert_transitions ended
                    WHERE ended.alert_id = fired.alert_id AND ended."to" = 'resolved' AND ended.event_time < :end)"""
VALUES = """\
SELECT time_bucket(:step, bucket) AS at, type AS name, sum(count)::bigint AS value FROM rollups
 WHERE type = ANY(:types) AND grain = '1h' AND bucket >= :start AND bucket < :end GROUP BY 1, 2 ORDER BY 1, 2"""
ALERTS = """\
SELECT fired.type, fired.rule, array_agg(DISTINCT fired.severity) AS severities, count(*) AS fired,
       count(*) FILTER (WHERE ended.at IS NULL) AS open,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM ended.at - fired.event_time)::double precision)
         FILTER (WHERE ended.at IS NOT NULL) AS median
  FROM alert_transitions fired
  LEFT JOIN (SELECT alert_id, min(event_time) AS at FROM alert_transitions
              WHERE system = :system AND "to" = 'resolved' AND event_time >= :start AND event_time < :end
              GROUP BY 1) ended USING (alert_id)
 WHERE fired.system = :system AND fired."to" = 'firing' AND fired.event_time >= :start AND fired.event_time < :end
 GROUP BY 1, 2 ORDER BY 1, 2"""
ALERTS_BY_STEP = """\
SELECT time_bucket(:step, event_time) AS at, severity AS name, count(*) AS value FROM alert_transitions
 WHERE system = :system AND "to" = 'firing' AND event_time >= :start AND event_time < :end
 GROUP BY 1, 2 ORDER BY 1, 2"""
WORST = """\
SELECT type, device_id, site, count(*) AS alerts, array_agg(DISTINCT rule ORDER BY rule) AS rules FROM alert_transitions
 WHERE system = :system AND "to" = 'firing' AND event_time >= :start AND event_time < :end
 GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3 LIMIT :shown"""
ANOMALIES = """\
SELECT kind AS name, count(*) AS value FROM anomalies
 WHERE system = :system AND type = ANY(:types) AND event_time >= :start AND event_time < :end GROUP BY 1 ORDER BY 1"""
ODDEST = """\
SELECT type, device_id, site, metric, count(*) AS anomalies FROM anomalies
 WHERE system = :system AND type = ANY(:types) AND event_time >= :start AND event_time < :end
 GROUP BY 1, 2, 3, 4 ORDER BY 5 DESC, 1, 2, 3, 4 LIMIT :shown"""
EVENTS = """\
SELECT event, count(*) AS times, count(*) FILTER (WHERE at_home = '{}') AS alone FROM security_events
 WHERE system = :system AND severity IS NULL AND at >= :start AND at < :end GROUP BY 1 ORDER BY 1"""
COMMANDS = """\
SELECT state AS name, count(*) AS value FROM commands
 WHERE system = :system AND requested_at >= :start AND requested_at < :end GROUP BY 1 ORDER BY 1"""
QUANTILES = """\
percentile_cont((SELECT array_agg(n / 100.0::double precision ORDER BY n) FROM generate_series(0, 100) n))
         WITHIN GROUP (ORDER BY seconds) FILTER (WHERE live) AS quantiles"""
DETECTION = """\
SELECT count(*) FILTER (WHERE live) AS count, count(*) FILTER (WHERE NOT live) AS past, <quantiles>
  FROM (SELECT extract(epoch FROM detected_at - event_time)::double precision AS seconds,
               detected_at - event_time < :past AS live
          FROM alert_transitions WHERE system = :system AND event_time >= :start AND event_time < :end) measured"""
# The first message of a transition that came to anybody; a message may be sent for three days.
NOTIFICATION = """\
SELECT count(*) FILTER (WHERE live) AS count, count(*) FILTER (WHERE NOT live) AS past, <quantiles>
  FROM (SELECT extract(epoch FROM min(told.at) - min(t.event_time))::double precision AS seconds,
               min(t.detected_at - t.event_time) < :past AS live
          FROM notifications told JOIN alert_transitions t USING (transition_id)
         WHERE told.outcome = 'sent' AND told.at >= :start AND told.at < CAST(:end AS timestamptz) + INTERVAL '3 days'
           AND told.kind IN ('firing', 'escalated', 'deescalated', 'resolved')
           AND t.system = :system AND t.event_time >= :start AND t.event_time < :end
         GROUP BY transition_id) measured"""
BOOKS = """\
SELECT count(*) AS partitions, count(*) FILTER (WHERE b.status = 'failed') AS failed,
       coalesce(sum(b.landed), 0)::bigint AS landed, coalesce(sum(b.valid), 0)::bigint AS valid,
       coalesce(sum(b.quarantined), 0)::bigint AS quarantined, coalesce(sum(b.duplicate), 0)::bigint AS duplicate,
       coalesce(sum(abs(b.rows_off_by) + b.values_off_by), 0)::bigint AS off_by
  FROM ledger_balance b JOIN ledger l USING (partition)
 WHERE b.system = :system AND l.starts_at < :end AND l.ends_at > :start"""
QUARANTINE = """\
SELECT reason AS name, count(*) AS value FROM quarantine
 WHERE system = :system AND what = :what AND at >= :start AND at < :end GROUP BY 1 ORDER BY 1"""
VALIDATION = """\
SELECT count(*) AS pieces, count(*) FILTER (WHERE success) AS passed, coalesce(sum(rows), 0)::bigint AS rows,
       coalesce(sum(evaluated), 0)::bigint AS expectations
  FROM validations WHERE system = :system AND validated_at >= :start AND validated_at < :end"""
UNMET = """\
SELECT concat_ws(' ', type || '.' || coalesce(nullif(one->>'column', ''), 'table'), one->>'expectation') AS name,
       sum(greatest((one->>'unexpected')::bigint, 1))::bigint AS value
  FROM validations CROSS JOIN LATERAL jsonb_array_elements(unmet) one
 WHERE system = :system AND validated_at >= :start AND validated_at < :end GROUP BY 1 ORDER BY 1"""
VALIDATED = """\
SELECT time_bucket(:step, validated_at) AS at, CASE WHEN success THEN 'passed' ELSE 'failed' END AS name,
       count(*) AS value
  FROM validations WHERE system = :system AND validated_at >= :start AND validated_at < :end
 GROUP BY 1, 2 ORDER BY 1, 2"""
# By the books: a partition stands where it begins, so each share is of what it is counted in.
SHARES = """\
SELECT at, name, (100 * sum(part) / sum(whole))::double precision AS value
  FROM (SELECT time_bucket(:step, greatest(l.starts_at, CAST(:start AS timestamptz))) AS at, of.name, of.part, of.whole
          FROM ledger l
          LEFT JOIN (SELECT partition, sum(known) AS known, sum(quarantined) AS quarantined,
                            sum(greatest(known - quarantined - least(rolled_1m, rolled_1h), 0)) AS missing
                       FROM ledger_metrics GROUP BY 1) m USING (partition)
         CROSS JOIN LATERAL (VALUES ('values quarantined', m.quarantined, m.known),
                                    ('values not in the rollups', m.missing, m.known),
                                    ('messages rejected', 0, l.landed)) AS of (name, part, whole)
         WHERE l.system = :system AND l.starts_at < :end AND l.ends_at > :start
         UNION ALL
        SELECT time_bucket(:step, at), 'messages rejected', 1, 1
          FROM quarantine WHERE system = :system AND what = 'dead_letter' AND at >= :start AND at < :end) counted
 GROUP BY 1, 2 HAVING sum(whole) > 0 ORDER BY 1, 2"""
PARITY = """\
SELECT count(DISTINCT (starts_at, ends_at)) AS audits, coalesce(sum(same), 0)::bigint AS same,
       coalesce(sum(explained), 0)::bigint AS explained, coalesce(sum(unexplained), 0)::bigint AS unexplained
  FROM parity_standing WHERE system = :system AND starts_at < :end AND ends_at > :start"""


class _Asked:
    """Queries about one system and span."""

    def __init__(self, reader: Reader, system: System, start: datetime, end: datetime, step: timedelta):
        self.reader = reader
        self.known: dict[str, Any] = {
            "system": system.name, "types": [spec.type for spec in system.types], "start": start, "end": end,
            "step": step, "shown": SHOWN, "past": PAST,
            "no_data": [f"{spec.type}.{rule.id}" for spec in system.types for rule in spec.alerts if rule.no_data],
        }  # fmt: skip

    def rows(self, sql: str, **more: Any) -> list[dict[str, Any]]:
        return self.reader.rows(sql, **{name: v for name, v in (self.known | more).items() if f":{name}" in sql})

    def counts(self, sql: str, **more: Any) -> dict[str, int]:
        return {row["name"]: row["value"] for row in self.rows(sql, **more)}

    def series(self, sql: str) -> dict[str, Series]:
        found: dict[str, Series] = defaultdict(list)
        for row in self.rows(sql):
            found[row["name"]].append((row["at"], float(row["value"])))
        return dict(found)

    def latency(self, sql: str) -> Latency:
        (row,) = self.rows(sql.replace("<quantiles>", QUANTILES))
        return Latency(row["count"], tuple(row["quantiles"] or ()), row["past"])

    def has(self, table: str) -> bool:
        return bool(self.reader.rows("SELECT FROM pg_tables WHERE tablename = :table", table=table))


def whole_hours(window: Window) -> tuple[datetime, datetime]:
    """Rollups are by the hour: the span is as well. The window has both ends."""
    assert window.start is not None
    assert window.end is not None
    start = window.start.replace(minute=0, second=0, microsecond=0)
    end = window.end.replace(minute=0, second=0, microsecond=0)
    return start, end if end == window.end else end + timedelta(hours=1)


def figures_of(reader: Reader, system: System, window: Window) -> Figures:
    """All queries should see one moment (Warehouse.snapshot)."""
    start, end = whole_hours(window)
    asked = _Asked(reader, system, start, end, step_of(end - start))
    heard = asked.rows(HEARD)
    known_to = min(end, asked.rows(LOADED)[0]["at"] or end)
    events = asked.rows(EVENTS)
    return Figures(
        system.name,
        start,
        end,
        asked.known["step"],
        coverage=coverage(system, heard, start, known_to),
        silent=silent(heard, known_to, {(row["type"], row["device_id"]) for row in asked.rows(UNHEARD)}),
        values=asked.series(VALUES),
        alerts=[_alerts(row) for row in asked.rows(ALERTS)],
        alerts_by_step=asked.series(ALERTS_BY_STEP),
        worst=[Worst(_device(row), row["alerts"], tuple(row["rules"])) for row in asked.rows(WORST)],
        anomalies=asked.counts(ANOMALIES),
        oddest=[(_device(row), row["metric"], row["anomalies"]) for row in asked.rows(ODDEST)],
        events={row["event"]: (row["times"], row["alone"]) for row in events},
        commands=asked.counts(COMMANDS) if asked.has("commands") else {},
        energy=energy_of(reader, system, start, end, asked.known["step"]) if asked.has("energy_hours") else None,
        detection=asked.latency(DETECTION),
        notification=asked.latency(NOTIFICATION),
        books=Books(**asked.rows(BOOKS)[0]),
        bad_values=asked.counts(QUARANTINE, what="value"),
        rejected=asked.counts(QUARANTINE, what="dead_letter"),
        shares=asked.series(SHARES),
        validation=Validation(**asked.rows(VALIDATION)[0], unmet=asked.counts(UNMET)),
        validated=asked.series(VALIDATED),
        parity=Parity(**asked.rows(PARITY)[0]),
    )


def coverage(system: System, heard: Sequence[dict[str, Any]], start: datetime, end: datetime) -> list[Coverage]:
    """A device is expected from when it was registered, or first heard, to the end: readings are loaded up to there."""
    found = []
    for spec in system.types:
        rows = [row for row in heard if row["type"] == spec.type]
        if not rows:
            continue
        expected = None
        if isinstance(spec.cadence, timedelta):
            expected = sum(max(0, (end - max(start, _began(row))) // spec.cadence) for row in rows)
        times = sum(row["times"] for row in rows)
        readings = sum(row["said"] for row in rows) if spec.adapter.form == "feature" else times
        found.append(Coverage(spec.type, len(rows), readings, times, expected))
    return found


def _began(row: dict[str, Any]) -> datetime:
    """When it was registered, or the minute in which it was first heard, where that was over by then."""
    registered, first = row["registered_at"], row["first"]
    return registered if first is None or registered < first + timedelta(minutes=1) else first


def silent(
    heard: Sequence[dict[str, Any]], end: datetime, unheard: Collection[tuple[str, str]] = ()
) -> list[tuple[Device, datetime | None]]:
    """The longest silent first. `unheard`: (type, device) of whose silence an alert is under way."""
    gone = [
        row for row in heard
        if row["last"] is None or row["last"] < end - SILENT or (row["type"], row["device_id"]) in unheard
    ]  # fmt: skip
    gone.sort(key=lambda row: (row["last"] is not None, row["last"], row["type"], row["device_id"]))
    return [(_device(row), row["last"]) for row in gone]


def _alerts(row: dict[str, Any]) -> AlertKind:
    worst = max(row["severities"], key=rank)
    return AlertKind(row["type"], row["rule"], worst, row["fired"], row["open"], row["median"])


def _device(row: dict[str, Any]) -> Device:
    return Device(row["type"], row["device_id"], row["site"])
