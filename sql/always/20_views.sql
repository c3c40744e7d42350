-- Each partition's equations, computed where they are shown; `off_by` is 0 in books that balance.
CREATE OR REPLACE VIEW ledger_balance AS
SELECT l.partition, l.system, l.type, l.starts_at, l.status, l.landed, l.valid, l.quarantined, l.duplicate,
       coalesce(l.landed - l.valid - l.quarantined - l.duplicate, 0) AS rows_off_by,
       coalesce(m.values_off_by, 0) AS values_off_by
  FROM ledger l
  LEFT JOIN (SELECT partition,
                    sum(abs(known - quarantined - rolled_1m) + abs(known - quarantined - rolled_1h))::bigint AS values_off_by
               FROM ledger_metrics GROUP BY partition) m USING (partition);
