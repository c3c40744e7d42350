-- Dead letters that have become readings: where each stood in Kafka's log, and which reading came of it. The rows of
-- `quarantine` are made anew whenever their hour is processed; these stay.
CREATE TABLE quarantine_replays (
    kafka_topic     text        NOT NULL, -- of the dead letter
    kafka_partition integer     NOT NULL,
    kafka_offset    bigint      NOT NULL,
    at              timestamptz NOT NULL DEFAULT now(),
    replay_id       text        NOT NULL, -- of the command or the DAG's run
    system          text        NOT NULL,
    type            text        NOT NULL,
    device_id       text        NOT NULL,
    event_time      timestamptz NOT NULL,
    lake_partition  text        NOT NULL, -- that the reading belongs to
    to_topic        text        NOT NULL,
    to_partition    integer     NOT NULL,
    to_offset       bigint      NOT NULL,
    examined_at     timestamptz,          -- null: what it would have fired is not yet in late_alerts
    PRIMARY KEY (kafka_topic, kafka_partition, kafka_offset)
);
CREATE INDEX quarantine_replays_by_replay ON quarantine_replays (replay_id);
CREATE INDEX quarantine_replays_to_examine ON quarantine_replays (type) WHERE examined_at IS NULL;

-- Alerts that would have fired, had what came back been good when it came. Nobody was told, and nobody will be.
CREATE TABLE late_alerts (
    system      text        NOT NULL,
    type        text        NOT NULL,
    rule        text        NOT NULL,
    device_id   text        NOT NULL,
    site        text        NOT NULL,
    severity    text        NOT NULL,
    starts_at   timestamptz NOT NULL,
    fired_at    timestamptz NOT NULL,
    resolved_at timestamptz,          -- null: it was active when the readings looked at ended
    replay_id   text        NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (type, rule, device_id, starts_at)
);
