"""An hour and a half of a device type in all tables that the dashboards read."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from fleet.anomaly import KINDS
from fleet.catalog import Catalog
from fleet.model import MODELS

END = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
START = END - timedelta(minutes=90)
DEVICES = {"weather_station": 20, "room_node": 8, "weir_component": 5, "meter": 3}
OTHERS = 4
"""Devices of each other type."""

LOADED = END - timedelta(minutes=15)
"""The batch job's last run: what came since is the stream job's alone."""

GONE = "gone"
"""A rule that had alerts, of a type that has no rule any more."""

# Values go from 0 to 40, but for a meter's energy, which grows by one a second: d1's begins anew after an hour. d2 is
# away for ten minutes, and all fall silent two minutes before the end. What d3 measured in the first of those ten came
# ten minutes late, what d4 did came twice. What the stream job says of minutes that the batch job has loaded is far
# off: nobody is to ask it.
OF_TYPE = """
INSERT INTO sites VALUES ('{system}', 'here') ON CONFLICT DO NOTHING;

INSERT INTO devices (type, device_id, system, site, registered_at, registered_by, revision)
SELECT '{type}', 'd' || n, '{system}', 'here', '{start}', 'operator', 0 FROM generate_series(1, {devices}) n;

INSERT INTO readings
SELECT at, '{system}', '{type}', 'here', 'd' || n, metric,
       CASE WHEN metric <> 'energy' THEN mod(extract(epoch FROM at)::bigint * n, 41)
            WHEN n = 1 AND at >= '{reset}' THEN extract(epoch FROM at - '{reset}')
            ELSE extract(epoch FROM at - '{start}') END,
       NULL, 't', 0,
       10 * extract(epoch FROM at - '{start}')::bigint
         + CASE WHEN n = 3 AND at >= '{away}' AND at < '{away}'::timestamptz + INTERVAL '1 minute' THEN 6000 ELSE 0 END
  FROM generate_series('{start}'::timestamptz, '{end}'::timestamptz - INTERVAL '2 minutes', '{cadence} s') at,
       generate_series(1, {devices}) n, unnest(ARRAY{metrics}) metric
 WHERE n <> 2 OR at NOT BETWEEN '{away}' AND '{away}'::timestamptz + INTERVAL '10 minutes';

INSERT INTO rollups
SELECT time_bucket(width, event_time), grain, system, type, site, device_id, metric, count(value), avg(value),
       min(value), max(value), stddev_samp(value), last(value, event_time), 0, 1
  FROM readings, (VALUES ('1m', INTERVAL '1 minute'), ('1h', INTERVAL '1 hour')) AS of (grain, width)
 WHERE type = '{type}' GROUP BY 1, 2, 3, 4, 5, 6, 7;

INSERT INTO rollups_live
SELECT bucket, system, type, site, device_id, metric, count, mean + wrong, min, max + wrong, stddev, last + wrong, 1
  FROM rollups, LATERAL (SELECT CASE WHEN bucket < '{loaded}' THEN 1e6 ELSE 0 END) AS of (wrong)
 WHERE type = '{type}' AND grain = '1m' AND bucket >= '{loaded}'::timestamptz - INTERVAL '15 minutes';
DELETE FROM rollups WHERE type = '{type}' AND grain = '1m' AND bucket >= '{loaded}';

INSERT INTO readings
SELECT event_time, system, type, site, device_id, metric, value, seq, kafka_topic, kafka_partition, kafka_offset + 6000
  FROM readings
 WHERE type = '{type}' AND device_id = 'd4' AND event_time >= '{away}'
   AND event_time < '{away}'::timestamptz + INTERVAL '1 minute';

INSERT INTO ledger (partition, system, type, starts_at, ends_at, status, landed, valid, quarantined, duplicate, run_id,
                    processed_at)
SELECT '{system}/{type}/' || at, '{system}', '{type}', at, at + INTERVAL '1 hour', 'loaded', 5, 3, 1, 1, 'r',
       at + INTERVAL '2 hours'
  FROM generate_series(date_trunc('hour', '{start}'::timestamptz), '{end}', '1 hour') at;

INSERT INTO quarantine (at, partition, what, reason, detail, system, type, metric, value, spec_version, kafka_topic,
                        kafka_partition, kafka_offset)
SELECT at, 'p', 'value', 'out_of_range', '', '{system}', '{type}', 'm', 1, 1, 't', 0, 0
  FROM generate_series('{start}'::timestamptz, '{end}', '1 minute') at;

INSERT INTO validations
SELECT 'r', '{type}', at::text, '{system}', ARRAY['p'], 1, true, 5, 3,
       '[{{"column": "m", "unexpected": 2}}, {{"column": "", "unexpected": 0}}]',
       '', at
  FROM generate_series('{start}'::timestamptz, '{end}', '15 minutes') at;

INSERT INTO anomalies
SELECT at, '{system}', '{type}', 'here', 'd1', 'm', kind, 1, 1, 0, 0, 1, 't', 0, 0
  FROM generate_series('{start}'::timestamptz, '{end}', '1 minute') at, unnest(ARRAY{kinds}) kind;
"""

# One alert that was over before the end, and one that is active; and what each device's said every minute.
OF_RULE = """
INSERT INTO alerts (alert_id, system, type, rule, device_id, site, title, severity, since, starts_at, resolved_at,
                    flapping, annotations, labels, values, number, event_time, detected_at)
SELECT '{type}{rule}' || starts, '{system}', '{type}', '{rule}', 'd1', 'here', 'a title', 'warning', starts, starts,
       ends, false, '{{}}', '{{}}', '{{}}', 1, starts, starts
  FROM (VALUES ('{start}'::timestamptz, '{end}'::timestamptz - INTERVAL '20 minutes'),
               ('{end}', NULL)) AS of (starts, ends);

INSERT INTO alert_transitions
SELECT '{type}{rule}' || at || n, 'a', 1, '{system}', '{type}', '{rule}', 'd' || n, 'here', 'firing', 'warning', NULL,
       at, at, at, at, 'a title', '{{}}', '{{}}', '{{}}', 1, false, 0, 0
  FROM generate_series('{start}'::timestamptz, '{end}', '1 minute') at, generate_series(1, {devices}) n;
"""

# A champion and one before it, which both estimated the last hour.
OF_MODEL = """
INSERT INTO models (model_id, name, system, type, sha256, algorithm, libraries, features, code_version, spec_version,
                    data_digest, trained_from, trained_to, trained_on, holdout_from, holdout_to, accuracy, f1, metrics,
                    verdict, champion, trained_at, promoted_at)
SELECT 'm' || n, '{name}', '{system}', '{type}', 's' || n, 'a', '{{}}', '{{f}}', 'c', 1, 'd', '{start}',
       '{start}'::timestamptz + INTERVAL '20 minutes', 20, '{start}'::timestamptz + INTERVAL '30 minutes', '{end}', 0.9,
       0.8, '{{}}', 'better', n = 2, '{start}'::timestamptz + n * INTERVAL '1 minute', '{start}'
  FROM generate_series(1, 2) n;

INSERT INTO predictions
SELECT at, 'm' || n, '{name}', '{system}', '{type}', 'here', '', n, 2, at + n * INTERVAL '1 minute'
  FROM generate_series('{end}'::timestamptz - INTERVAL '1 hour', '{end}', '1 minute') at, generate_series(1, 2) n;
"""

# Of four weeks each hour's energy of plugs, and of a meter before them: 100, 200, 300, 400 and 1,200 Wh; and of a home
# without a meter. Energy that nobody is charged with: an outage of the meter and a plug, and a counter that jumped. A
# command. Security events, as the last run of their DAG left them.
OF_HOME = """
INSERT INTO energy_hours (site, device_type, device_id, hour, watt_hours, cost, currency)
SELECT site, type, device, hour, watt_hours, watt_hours * 0.0003, 'EUR'
  FROM (SELECT 'here' AS site, 'smart_plug' AS type, 'd' || n AS device, 100 * n AS watt_hours
          FROM generate_series(1, {others}) n
        UNION ALL VALUES ('here', 'energy_meter', 'd1', 1200), ('there', 'smart_plug', 'd1', 50)) measured,
       generate_series('{end}'::timestamptz - INTERVAL '28 days', '{end}', '1 hour') hour;
-- d3 uses ten times as much on Mondays, which the last day is not; d4 did so for one week. Each drew 100 W from two to
-- four in the night, and 10 n W in the first quarter of each hour. All are fridges.
UPDATE energy_hours SET watt_hours = 10 * watt_hours
 WHERE (device_type, device_id, site) = ('smart_plug', 'd3', 'here') AND extract(isodow FROM hour) = 1
    OR (device_type, device_id, site) = ('smart_plug', 'd4', 'here')
       AND hour BETWEEN '{end}'::timestamptz - INTERVAL '16 days' AND '{end}'::timestamptz - INTERVAL '9 days';
UPDATE devices SET params = '{{"fridge": 1}}' WHERE type = 'smart_plug';
INSERT INTO rollups
SELECT at, '1m', 'home', 'smart_plug', 'here', 'd' || n, 'power', 12,
       CASE WHEN extract(minute FROM at) < 15 THEN 10 * n ELSE 100 END, 0, 100, 0, 100, 0, 1
  FROM generate_series('{end}'::timestamptz - INTERVAL '10 hours', '{end}'::timestamptz - INTERVAL '8 hours 1 minute',
                       '1 minute') at, generate_series(1, {others}) n;
INSERT INTO energy_unattributed (site, device_type, device_id, starts_at, ends_at, watt_hours, reason)
VALUES ('here', 'smart_plug', 'd2', '{away}', '{away}'::timestamptz + INTERVAL '10 minutes', 600, 'gap'),
       ('here', 'energy_meter', 'd1', '{away}', '{away}'::timestamptz + INTERVAL '10 minutes', 900, 'gap'),
       ('here', 'energy_meter', 'd1', '{away}', '{away}'::timestamptz + INTERVAL '1 minute', 15229e3, 'implausible'),
       ('here', 'energy_meter', 'd1', '{away}', '{end}'::timestamptz + INTERVAL '1 minute', 70, 'gap');
INSERT INTO commands (command_id, system, type, device_id, site, command, via, by, requested_at, expires_at, state)
VALUES ('c', 'home', 'lamp', 'd1', 'here', 'on', 'cli', 'ann', '{away}', '{end}', 'obeyed');
INSERT INTO security_events (at, system, site, type, device_id, name, event, local_time, at_home)
SELECT at, 'home', 'here', 'door_sensor', 'd1', 'open', 'opened', at AT TIME ZONE 'UTC', '{{d1}}'
  FROM generate_series('{start}'::timestamptz, '{end}'::timestamptz - INTERVAL '11 minutes', '1 minute') at;
INSERT INTO security_kept VALUES ('home', '{end}'::timestamptz - INTERVAL '10 minutes');
"""

ONCE = """
INSERT INTO etl_runs VALUES ('r', 'succeeded', '{{}}', '{{}}', '{{a,b}}', '{{}}', '{end}', '{end}');
INSERT INTO ledger_topics VALUES ('t', 0, 0, 5, 7, 5, 0, 0, 0, 0, '{end}');
INSERT INTO parity VALUES ('grid', 'meter', 0, '{end}'::timestamptz - INTERVAL '1 day', '{end}', 0, 9, 'log', 9, 4, 3,
       1, 0);
INSERT INTO parity_differences VALUES ('grid', 'meter', 0, '{end}'::timestamptz - INTERVAL '1 day', '{end}', 't', 'a',
       'much', 'd1', 'firing', '{end}', 4, 'only_published', 'hole', true, '');
"""


def scripts(catalog: Catalog) -> Iterator[str]:
    times = {
        "start": START,
        "end": END,
        "loaded": LOADED,
        "reset": START + timedelta(hours=1),
        "away": START + timedelta(minutes=45),
    }
    for spec in catalog:
        assert spec.cadence != "event"
        devices = DEVICES.get(spec.type, OTHERS)
        of = {"system": spec.system, "type": spec.type, "devices": devices, "metrics": list(spec.metrics),
              "kinds": list(KINDS), "cadence": spec.cadence.total_seconds(), **times}  # fmt: skip
        yield OF_TYPE.format(**of)
        for rule in [one.id for one in spec.alerts] or [GONE]:
            yield OF_RULE.format(**of, rule=rule)
        for model in MODELS.values():
            if model.type == spec.type:
                yield OF_MODEL.format(**of, name=model.name)
    yield OF_HOME.format(**times, others=OTHERS)
    yield ONCE.format(**times)
    yield "ANALYZE"
