"""The queries of the areas' pages: what is so now, energy, rooms. As in fleet.panel_sql, `{…}` is filled in from the
specs. What is so now is at most five minutes old at the end of the range."""

RECENT = "event_time BETWEEN $__timeTo()::timestamptz - INTERVAL '5 minutes' AND $__timeTo()"

# {types}: type, its title, the metric that says its state, how its values are called, after what silence it is silent.
# For how it was before, readings of two hours at most are gone through.
STATES = """\
SELECT d.device_id AS device, known.title AS what, d.site, d.room,
       CASE WHEN state.at IS NULL OR state.at < $__timeTo()::timestamptz - known.stale THEN 'silent'
            WHEN state.value <> 0 THEN known.is_on ELSE known.is_off END AS state,
       (SELECT event_time FROM readings
         WHERE type = d.type AND metric = known.metric AND device_id = d.device_id AND $__timeFilter(event_time)
           AND event_time >= $__timeTo()::timestamptz - INTERVAL '2 hours' AND (value <> 0) <> (state.value <> 0)
         ORDER BY event_time DESC LIMIT 1) AS "otherwise until",
       CASE WHEN tamper.value <> 0 THEN 'tampered with' ELSE '' END AS tamper,
       battery.value AS battery, state.at AS "last reading"
  FROM devices d
  JOIN (VALUES {types}) AS known (type, title, metric, is_on, is_off, stale) USING (type)
  LEFT JOIN LATERAL (
          SELECT event_time AS at, value FROM readings
           WHERE type = d.type AND metric = known.metric AND device_id = d.device_id AND $__timeFilter(event_time)
             AND value IS NOT NULL
           ORDER BY event_time DESC LIMIT 1) state ON true
  LEFT JOIN LATERAL (
          SELECT value FROM readings
           WHERE type = d.type AND metric = 'tamper' AND device_id = d.device_id AND <recent> AND value IS NOT NULL
           ORDER BY event_time DESC LIMIT 1) tamper ON true
  LEFT JOIN LATERAL (
          SELECT value FROM readings
           WHERE type = d.type AND metric = 'battery' AND device_id = d.device_id AND <recent> AND value IS NOT NULL
           ORDER BY event_time DESC LIMIT 1) battery ON true
 WHERE d.retired_at IS NULL AND d.site IN ($site)
 ORDER BY d.site, known.title, d.device_id LIMIT 200""".replace("<recent>", RECENT)

# {metrics}: type, metric, its place among them, its title and symbol, and how 1 and 0 of a state are called, else null.
VALUES_NOW = """\
SELECT d.device_id AS device, d.type, d.site, d.room,
       string_agg(CASE WHEN known.is_on IS NULL
                       THEN known.title || ' ' || round(newest.value::numeric, 1) || known.symbol
                       WHEN newest.value <> 0 THEN known.is_on ELSE known.is_off END,
                  ', ' ORDER BY known.place) AS state,
       max(newest.event_time) AS "last reading"
  FROM devices d
  JOIN (VALUES {metrics}) AS known (type, metric, place, title, symbol, is_on, is_off) USING (type)
 CROSS JOIN LATERAL (
         SELECT value, event_time FROM readings
          WHERE type = d.type AND metric = known.metric AND device_id = d.device_id AND <recent> AND value IS NOT NULL
          ORDER BY event_time DESC LIMIT 1) newest
 WHERE d.retired_at IS NULL AND d.site IN ($site)
 GROUP BY d.site, d.type, d.device_id, d.room
 ORDER BY d.site, d.type, d.device_id LIMIT 200""".replace("<recent>", RECENT)

EVENTS = """\
SELECT at AS "time", to_char(local_time, 'HH24:MI') AS local, site, device_id AS device,
       coalesce(title || ': ' || event, event) AS event, severity,
       CASE WHEN at_home IS NULL THEN 'not known' WHEN at_home = '{{}}' THEN 'nobody'
            ELSE array_to_string(at_home, ', ') END AS "at home"
  FROM ({log}) happened
 WHERE site IN ($site) ORDER BY at DESC, device_id, name LIMIT 200"""
EVENTS_OVER_TIME = """\
SELECT $__timeGroupAlias(at, $__interval, 0), CASE WHEN title IS NULL THEN event ELSE 'alert ' || event END AS metric,
       count(*) AS events
  FROM ({log}) happened WHERE site IN ($site) GROUP BY 1, 2 ORDER BY 1, 2"""

POWERS = """\
WITH power AS (
  SELECT d.type, known.title, d.device_id, d.site, d.room, newest.value, newest.event_time
    FROM devices d
    JOIN (VALUES {powers}) AS known (type, metric, title) USING (type)
   CROSS JOIN LATERAL (
           SELECT value, event_time FROM readings
            WHERE type = d.type AND metric = known.metric AND device_id = d.device_id AND <recent> AND value IS NOT NULL
            ORDER BY event_time DESC LIMIT 1) newest
   WHERE d.retired_at IS NULL AND d.site IN ($site)
)
""".replace("<recent>", RECENT)
POWER_SUMS = "SELECT {sums} FROM power"
POWER_SUM = 'sum(value) FILTER (WHERE type = {type}) AS "{title}"'
POWER_TABLE = """\
SELECT device_id AS device, title AS what, site, room, value AS power,
       value / nullif(sum(value) OVER (PARTITION BY type, site), 0) AS share, event_time AS "last reading"
  FROM power ORDER BY title, value DESC, device_id LIMIT 100"""
TOTAL = """\
SELECT time, sum(value) AS "all devices", sum(value) FILTER (WHERE device_id = '$device') AS device
  FROM of_device GROUP BY 1 ORDER BY 1"""
"""After metric_sql.OF_DEVICE."""

# Hours in which nothing was measured are empty, not 0.
ENERGY_BY_TYPE = """\
SELECT $__timeGroupAlias(hour, $__interval, NULL), replace(device_type, '_', ' ') AS metric, sum(watt_hours) AS energy
  FROM energy_hours WHERE device_type IN ({types}) AND site IN ($site) AND $__timeFilter(hour)
 GROUP BY 1, 2 ORDER BY 1, 2"""
# As fleet.consumption has it: of the types that measure at a site that which measured most counts for all of it. Its
# device is no appliance where it is the only one of its type, and others are measured behind it.
APPLIANCES = """\
WITH used AS (
  SELECT site, device_type, device_id, sum(watt_hours) AS energy, count(*) AS hours,
         CASE WHEN count(DISTINCT currency) < 2 THEN sum(cost) END AS cost, min(currency) AS currency
    FROM energy_hours WHERE device_type IN ({types}) AND site IN ($site) AND $__timeFilter(hour)
   GROUP BY 1, 2, 3
), home AS (
  SELECT DISTINCT ON (site) site, device_type AS counting, sum(energy) AS whole, count(*) AS devices,
         count(*) OVER (PARTITION BY site) AS types
    FROM used GROUP BY site, device_type ORDER BY site, sum(energy) DESC, device_type DESC
), appliance AS (
  SELECT used.*, whole FROM used JOIN home USING (site) WHERE device_type <> counting OR devices > 1 OR types = 1
)"""
ENERGY_BY_DEVICE = """\
<appliances>, most AS (
  SELECT device_type, site, device_id FROM appliance ORDER BY energy DESC, site, device_id LIMIT 8
)
SELECT $__timeGroupAlias(hour, $__interval, NULL), coalesce(m.device_id, 'others') AS metric, sum(watt_hours) AS energy
  FROM energy_hours JOIN appliance USING (device_type, site, device_id)
  LEFT JOIN most m USING (device_type, site, device_id)
 WHERE $__timeFilter(hour) GROUP BY 1, 2 ORDER BY 1, 2""".replace("<appliances>", APPLIANCES)
# What `weir energy hogs` says (fleet.consumption), but for how unusual it is. Hours are by their place in the local
# week; week 0 is the range, 1 the seven days before it. {kinds}: type, a param that says what appliance a device is, or
# null; who has none of its type's has no peers. {powers}: type, metric or null.
HOGS = """\
<appliances>, ranked AS (
  SELECT * FROM appliance ORDER BY energy DESC, site, device_id LIMIT 50
), measured AS (
  SELECT site, device_type, device_id, hours, watt_hours, mod(extract(epoch FROM local)::bigint, 604800) AS slot,
         greatest(0, ceil(extract(epoch FROM begun - local) / 604800)) AS week
    FROM ranked JOIN energy_hours USING (site, device_type, device_id)
   CROSS JOIN LATERAL (SELECT hour AT TIME ZONE time_zone AS local,
                              $__timeFrom()::timestamptz AT TIME ZONE time_zone AS begun) there
   WHERE hour BETWEEN $__timeFrom()::timestamptz - INTERVAL '{days} days' AND $__timeTo()
), meant AS (
  SELECT site, device_type, device_id, slot, count(*) AS times FROM measured WHERE week = 0 GROUP BY 1, 2, 3, 4
), usual AS (
  SELECT site, device_type, device_id, percentile_cont(0.5) WITHIN GROUP (ORDER BY mean) AS mean
    FROM (SELECT site, device_type, device_id, sum(times * watt_hours) / sum(times) AS mean
            FROM measured JOIN meant USING (site, device_type, device_id, slot)
           WHERE week > 0
           GROUP BY site, device_type, device_id, hours, week HAVING sum(times) >= {least_known} * hours) before
   GROUP BY 1, 2, 3 HAVING count(*) >= {least_weeks}
), kind AS (
  SELECT d.site, d.type AS device_type, d.device_id,
         CASE WHEN bool_and(known.param IS NULL) THEN ''
              ELSE string_agg(known.param, ', ' ORDER BY known.param)
                   FILTER (WHERE (d.params ->> known.param)::float8 <> 0) END AS kind
    FROM devices d JOIN (VALUES {kinds}) AS known (type, param) USING (type)
   GROUP BY 1, 2, 3
)
SELECT a.device_id AS device, a.site, energy, energy / nullif(whole, 0) AS "share of its home",
       energy / hours / nullif(usual.mean, 0) AS "times its usual",
       energy / nullif(peers.median, 0) AS "times its peers", standby.watts AS standby, cost, currency
  FROM ranked a
  LEFT JOIN usual USING (site, device_type, device_id)
  LEFT JOIN LATERAL (
          SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY other.energy) AS median
            FROM kind own
            JOIN kind alike USING (device_type, kind)
            JOIN used other ON (other.site, other.device_type, other.device_id)
                             = (alike.site, alike.device_type, alike.device_id)
           WHERE (own.site, own.device_type, own.device_id) = (a.site, a.device_type, a.device_id)
             AND (alike.site, alike.device_id) <> (a.site, a.device_id)
          HAVING count(*) >= {least_peers}) peers ON true
  LEFT JOIN LATERAL (
          SELECT percentile_cont({quantile}) WITHIN GROUP (ORDER BY mean) AS watts
            FROM rollups r
            JOIN (VALUES {powers}) AS known (type, metric) USING (type, metric)
            LEFT JOIN sites s ON (s.system, s.site) = (r.system, r.site)
           WHERE type = a.device_type AND grain = '1m' AND r.device_id = a.device_id AND r.site = a.site
             AND $__timeFilter(bucket) AND bucket >= $__timeTo()::timestamptz - INTERVAL '7 days'
             AND extract(hour FROM bucket AT TIME ZONE coalesce(time_zone, 'UTC')) < {night_hours}
          HAVING count(*) >= {least_minutes}) standby ON true
 ORDER BY energy DESC, a.site, a.device_id""".replace("<appliances>", APPLIANCES)
COST = """\
SELECT replace(device_type, '_', ' ') AS what, site, sum(watt_hours) AS energy, sum(cost) AS cost, currency
  FROM energy_hours WHERE device_type IN ({types}) AND site IN ($site) AND $__timeFilter(hour)
 GROUP BY device_type, site, currency ORDER BY device_type, cost DESC NULLS LAST, site LIMIT 100"""
COST_OVER_TIME = """\
SELECT $__timeGroupAlias(hour, $__interval, NULL),
       replace(device_type, '_', ' ') || coalesce(', ' || currency, '') AS metric, sum(cost) AS cost
  FROM energy_hours WHERE device_type IN ({types}) AND site IN ($site) AND $__timeFilter(hour)
 GROUP BY 1, 2 ORDER BY 1, 2"""
UNATTRIBUTED = """\
SELECT device_id AS device, site, starts_at AS "from", ends_at AS "to",
       CASE WHEN reason <> 'implausible' THEN watt_hours END AS energy,
       replace(reason, '_', ' ') AS reason
  FROM energy_unattributed
 WHERE device_type IN ({types}) AND site IN ($site) AND ends_at >= $__timeFrom() AND starts_at <= $__timeTo()
 ORDER BY starts_at DESC, site, device_id LIMIT 100"""

COMMANDS = """\
SELECT requested_at AS asked, device_id AS device, site, command, state, by, via, reason, changed_at AS "since"
  FROM commands WHERE system = '{system}' AND site IN ($site) AND $__timeFilter(requested_at)
 ORDER BY requested_at DESC, device_id LIMIT 100"""

# Comfort is by the limits of the type's rule, and a device's own. The corner: sql/always/15_climate.sql.
ROOMS = """\
WITH air AS (
  SELECT d.type, d.device_id, d.site, d.room, known.is_outside, celsius.value AS celsius, humidity.value AS humidity,
         least(celsius.event_time, humidity.event_time) AS at,
         coalesce((d.params ->> 'coldest')::float8, known.coldest) AS coldest,
         coalesce((d.params ->> 'warmest')::float8, known.warmest) AS warmest,
         coalesce((d.params ->> 'driest')::float8, known.driest) AS driest,
         coalesce((d.params ->> 'dampest')::float8, known.dampest) AS dampest
    FROM devices d
    JOIN (VALUES {types}) AS known (type, is_outside, coldest, warmest, driest, dampest) USING (type)
   CROSS JOIN LATERAL (
           SELECT value, event_time FROM readings
            WHERE type = d.type AND metric = 'temperature' AND device_id = d.device_id AND <recent>
              AND value IS NOT NULL
            ORDER BY event_time DESC LIMIT 1) celsius
   CROSS JOIN LATERAL (
           SELECT value, event_time FROM readings
            WHERE type = d.type AND metric = 'humidity' AND device_id = d.device_id AND <recent> AND value IS NOT NULL
            ORDER BY event_time DESC LIMIT 1) humidity
   WHERE d.retired_at IS NULL AND d.site IN ($site)
), room AS (
  SELECT *, dew_point_celsius(celsius, humidity) AS dew_point,
         CASE WHEN NOT is_outside THEN corner_humidity_percent(
           celsius, humidity, avg(celsius) FILTER (WHERE is_outside) OVER (PARTITION BY site)) END AS corner
    FROM air
)
SELECT device_id AS device, site, coalesce(room, CASE WHEN is_outside THEN 'outside' END) AS room,
       celsius AS temperature, humidity, dew_point AS "dew point",
       CASE WHEN is_outside THEN '' WHEN celsius < coldest THEN 'cold' WHEN celsius > warmest THEN 'hot'
            WHEN humidity < driest THEN 'dry' WHEN humidity > dampest THEN 'humid' ELSE 'comfortable' END AS comfort,
       corner AS "coldest corner", at AS "last reading"
  FROM room ORDER BY site, is_outside, device_id LIMIT 200""".replace("<recent>", RECENT)
# The mean of all rooms at each site would hide the one with mould: the worst of each site is shown.
CORNERS = """\
SELECT inside.time, inside.site AS metric,
       max(corner_humidity_percent(inside.celsius, inside.humidity, outside.celsius)) AS "coldest corner"
  FROM (SELECT $__timeGroupAlias(bucket, $__interval, NULL), site, type, device_id,
               avg(mean) FILTER (WHERE metric = 'temperature') AS celsius,
               avg(mean) FILTER (WHERE metric = 'humidity') AS humidity
          FROM rollups
         WHERE type IN ({inside}) AND metric IN ('temperature', 'humidity') AND site IN ($site)
           AND grain = CASE WHEN $__interval_ms < 3600000 THEN '1m' ELSE '1h' END AND $__timeFilter(bucket)
         GROUP BY 1, 2, 3, 4) inside
  JOIN (SELECT $__timeGroupAlias(bucket, $__interval, NULL), site, avg(mean) AS celsius
          FROM rollups
         WHERE type IN ({outside}) AND metric = 'temperature' AND site IN ($site)
           AND grain = CASE WHEN $__interval_ms < 3600000 THEN '1m' ELSE '1h' END AND $__timeFilter(bucket)
         GROUP BY 1, 2) outside USING (time, site)
 GROUP BY 1, 2 ORDER BY 1, 2"""
