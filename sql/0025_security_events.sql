-- Security events (doors, motion, smoke, tampering, coming and going, alerts), each with what was so at its time. Readings
-- are kept for days; what they say of a home's safety stays here as long as rollups. Written by the batch role from
-- readings and alert_transitions, a span at a time, in place of what it had of that span; no key, as a state may change
-- twice within one event time.
CREATE TABLE security_events (
    at         timestamptz NOT NULL, -- event time
    system     text        NOT NULL,
    site       text        NOT NULL,
    type       text        NOT NULL,
    device_id  text        NOT NULL,
    name       text        NOT NULL, -- the metric, or of an alert its rule
    event      text        NOT NULL, -- opened, closed, …; of an alert: firing, resolved, …
    severity   text,                 -- of an alert
    title      text,                 -- of an alert
    local_time timestamp   NOT NULL, -- in the site's time zone
    at_home    text[]                -- presence devices that said so; null: none was known
);
SELECT create_hypertable('security_events', by_range('at', INTERVAL '30 days'), create_default_indexes => false);
CREATE INDEX security_events_by_time ON security_events (system, at DESC);

-- Up to when they are written; later ones are still to be read from `readings`.
CREATE TABLE security_kept (
    system  text        PRIMARY KEY,
    kept_to timestamptz NOT NULL
);
