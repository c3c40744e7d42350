-- Each partition's equations, computed where they are shown; `off_by` is 0 in books that balance.
CREATE OR REPLACE VIEW ledger_balance AS
SELECT l.partition, l.system, l.type, l.starts_at, l.status, l.landed, l.valid, l.quarantined, l.duplicate,
       coalesce(l.landed - l.valid - l.quarantined - l.duplicate, 0) AS rows_off_by,
       coalesce(m.values_off_by, 0) AS values_off_by
  FROM ledger l
  LEFT JOIN (SELECT partition,
                    sum(abs(known - quarantined - rolled_1m) + abs(known - quarantined - rolled_1h))::bigint AS values_off_by
               FROM ledger_metrics GROUP BY partition) m USING (partition);

-- Local days: 23 or 25 hours where the clocks change. One row for each currency: of a day in which the tariff changed its
-- own there are two, and hours without a tariff are one of theirs.
CREATE OR REPLACE VIEW energy_days AS
SELECT site, device_type, device_id, (hour AT TIME ZONE time_zone)::date AS day, count(*) AS hours,
       sum(watt_hours) AS watt_hours, sum(cost) AS cost, currency
  FROM energy_hours
 GROUP BY site, device_type, device_id, (hour AT TIME ZONE time_zone)::date, currency;
