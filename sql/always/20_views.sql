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

-- Audits that overlap, each moment once: the last that looked at it says what it is. See docs/decisions/0052.
-- First the rows that later ones do not cover wholly; of each record that was audited, the last row that covers it is among
-- them. By offsets, as audits begin and end with a file of the lake; those of a topic that was made anew begin anew, so by time
-- as well.
CREATE OR REPLACE VIEW parity_last AS
SELECT p.*
  FROM parity p
 WHERE NOT coalesce(
         int8range(p.first_offset, p.end_offset) <@
         (SELECT range_agg(int8range(later.first_offset, later.end_offset))
            FROM parity later
           WHERE later.system = p.system AND later.type = p.type AND later.kafka_partition = p.kafka_partition
             AND later.audited_at > p.audited_at AND later.starts_at < p.ends_at AND later.ends_at > p.starts_at),
         false);

-- A difference stands until a later audit has looked at the record that caused it, and says itself what it found.
CREATE OR REPLACE VIEW parity_differences_standing AS
SELECT d.*
  FROM parity_differences d
  JOIN parity_last p USING (system, type, kafka_partition, starts_at, ends_at)
 WHERE NOT EXISTS (
         SELECT FROM parity later
          WHERE later.system = d.system AND later.type = d.type AND later.kafka_partition = d.kafka_partition
            AND later.audited_at > p.audited_at AND later.starts_at < d.ends_at AND later.ends_at > d.starts_at
            AND later.first_offset <= d.source_offset AND later.end_offset > d.source_offset);

-- What audits say together: those rows, with what stands of their differences. One that found nothing, within an earlier one,
-- has but replaced differences of that. Of more than 10,000 differences of a row not all are listed; the others stand with it.
CREATE OR REPLACE VIEW parity_standing AS
SELECT p.system, p.type, p.kafka_partition, p.starts_at, p.ends_at, p.readings, p.published, p.same,
       p.explained - listed.explained + standing.explained AS explained,
       p.unexplained - listed.unexplained + standing.unexplained AS unexplained
  FROM parity_last p
 CROSS JOIN LATERAL (
         SELECT count(*) FILTER (WHERE d.explained) AS explained, count(*) FILTER (WHERE NOT d.explained) AS unexplained
           FROM parity_differences d
          WHERE (d.system, d.type, d.kafka_partition, d.starts_at, d.ends_at)
              = (p.system, p.type, p.kafka_partition, p.starts_at, p.ends_at)) listed
 CROSS JOIN LATERAL (
         SELECT count(*) FILTER (WHERE d.explained) AS explained, count(*) FILTER (WHERE NOT d.explained) AS unexplained
           FROM parity_differences_standing d
          WHERE (d.system, d.type, d.kafka_partition, d.starts_at, d.ends_at)
              = (p.system, p.type, p.kafka_partition, p.starts_at, p.ends_at)) standing
 WHERE p.explained + p.unexplained > 0
    OR NOT EXISTS (
         SELECT FROM parity_last earlier
          WHERE earlier.system = p.system AND earlier.type = p.type AND earlier.kafka_partition = p.kafka_partition
            AND earlier.audited_at < p.audited_at AND earlier.starts_at < p.ends_at AND earlier.ends_at > p.starts_at
            AND earlier.first_offset <= p.first_offset AND earlier.end_offset >= p.end_offset);
