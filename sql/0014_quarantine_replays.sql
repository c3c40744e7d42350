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
    PRIMARY KEY (kafka_topic, kafka_partition, kafka_offset)
);
