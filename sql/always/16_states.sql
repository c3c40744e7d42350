-- When a state of each device of a type changed within [starts, ends), in the order of event time; a number is true if it
-- is not 0. The value before is looked for a day back, and false where there is none: what is false at first is no change.
CREATE OR REPLACE FUNCTION state_changes(of_type text, of_metric text, starts timestamptz, ends timestamptz)
RETURNS TABLE (at timestamptz, site text, device_id text, is_on boolean) LANGUAGE sql STABLE AS $$
    SELECT said.event_time, said.site, d.device_id, said.is_on
      FROM devices d
     CROSS JOIN LATERAL (
             SELECT known.event_time, known.site, known.value <> 0 AS is_on,
                    lag(known.value <> 0, 1, false) OVER (ORDER BY known.event_time, known.kafka_offset) AS before
               FROM ((SELECT r.event_time, r.site, r.value, r.kafka_offset FROM readings r
                       WHERE r.type = of_type AND r.metric = of_metric AND r.device_id = d.device_id
                         AND r.event_time >= starts - INTERVAL '1 day' AND r.event_time < starts AND r.value IS NOT NULL
                       ORDER BY r.event_time DESC, r.kafka_offset DESC LIMIT 1)
                      UNION ALL
                     SELECT r.event_time, r.site, r.value, r.kafka_offset FROM readings r
                      WHERE r.type = of_type AND r.metric = of_metric AND r.device_id = d.device_id
                        AND r.event_time >= starts AND r.event_time < ends AND r.value IS NOT NULL) known) said
     WHERE d.type = of_type AND said.event_time >= starts AND said.is_on <> said.before
$$;

-- Which of a type's devices at a site said so at that moment; null where none was heard since `moment - stale`.
CREATE OR REPLACE FUNCTION saying_so(of_type text, of_metric text, of_site text, moment timestamptz, stale interval)
RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN count(*) > 0
                THEN coalesce(array_agg(d.device_id ORDER BY d.device_id) FILTER (WHERE newest.value <> 0), '{}') END
      FROM devices d
     CROSS JOIN LATERAL (
             SELECT r.value FROM readings r
              WHERE r.type = of_type AND r.metric = of_metric AND r.device_id = d.device_id
                AND r.event_time >= moment - stale AND r.event_time <= moment AND r.value IS NOT NULL
              ORDER BY r.event_time DESC, r.kafka_offset DESC LIMIT 1) newest
     WHERE d.type = of_type AND d.site = of_site
$$;
