-- What the alert service said, from the topic alerts.transitions, each transition once. The history sink writes rows
-- and its positions in one transaction.
CREATE TABLE alert_transitions (
    transition_id text        NOT NULL,
    alert_id      text        NOT NULL,
    number        integer     NOT NULL, -- within the alert, from 1
    system        text        NOT NULL,
    type          text        NOT NULL,
    rule          text        NOT NULL,
    device_id     text        NOT NULL,
    site          text        NOT NULL,
    "to"          text        NOT NULL
        CHECK ("to" IN ('firing', 'escalated', 'deescalated', 'resolved', 'flapping', 'settled')),
    severity      text        NOT NULL,
    reason        text,
    event_time    timestamptz NOT NULL,
    detected_at   timestamptz NOT NULL,
    since         timestamptz NOT NULL,
    starts_at     timestamptz NOT NULL,
    title         text        NOT NULL,
    annotations   jsonb       NOT NULL,
    labels        jsonb       NOT NULL,
    values        jsonb       NOT NULL,
    spec_version  integer     NOT NULL,
    flapping      boolean     NOT NULL,
    source_partition integer  NOT NULL, -- of the system's topic of readings: the record that caused it
    source_offset    bigint   NOT NULL,
    PRIMARY KEY (transition_id, event_time)
);
SELECT create_hypertable('alert_transitions', by_range('event_time', INTERVAL '30 days'), create_default_indexes => false);
CREATE INDEX alert_transitions_by_time ON alert_transitions (system, event_time DESC);
CREATE INDEX alert_transitions_by_alert ON alert_transitions (alert_id, number);

-- One row an alert: what its newest transition left it as.
CREATE TABLE alerts (
    alert_id     text        PRIMARY KEY,
    system       text        NOT NULL,
    type         text        NOT NULL,
    rule         text        NOT NULL,
    device_id    text        NOT NULL,
    site         text        NOT NULL,
    title        text        NOT NULL,
    severity     text        NOT NULL,
    since        timestamptz NOT NULL,
    starts_at    timestamptz NOT NULL,
    resolved_at  timestamptz, -- null: it is active
    reason       text,
    flapping     boolean     NOT NULL,
    annotations  jsonb       NOT NULL,
    labels       jsonb       NOT NULL,
    values       jsonb       NOT NULL,
    number       integer     NOT NULL, -- of the newest transition
    event_time   timestamptz NOT NULL, -- and its time
    detected_at  timestamptz NOT NULL
);
CREATE INDEX alerts_active ON alerts (system, severity) WHERE resolved_at IS NULL;
CREATE INDEX alerts_by_start ON alerts (system, starts_at DESC);

CREATE TABLE history_offsets (
    kafka_topic     text        NOT NULL,
    kafka_partition integer     NOT NULL,
    next_offset     bigint      NOT NULL CHECK (next_offset >= 0),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kafka_topic, kafka_partition)
);
