-- Recent raw readings in long form, one row per reading and metric it carried (null: sent as null), written by the
-- live sink in one transaction with its Kafka positions. That transaction is what makes a row stand here once: no
-- unique key, which would double the cost of each insert.
CREATE TABLE readings (
    event_time      timestamptz      NOT NULL,
    system          text             NOT NULL,
    type            text             NOT NULL,
    site            text             NOT NULL,
    device_id       text             NOT NULL,
    metric          text             NOT NULL,
    value           double precision,
    seq             bigint,
    kafka_topic     text             NOT NULL,
    kafka_partition integer          NOT NULL,
    kafka_offset    bigint           NOT NULL
);
SELECT create_hypertable('readings', by_range('event_time', INTERVAL '1 day'), create_default_indexes => false);
CREATE INDEX readings_by_series ON readings (type, metric, device_id, event_time DESC);

CREATE TABLE live_offsets (
    kafka_topic     text        NOT NULL,
    kafka_partition integer     NOT NULL,
    next_offset     bigint      NOT NULL CHECK (next_offset >= 0),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kafka_topic, kafka_partition)
);

-- The registry: what is known of a device beside what it says.
CREATE TABLE devices (
    type          text        NOT NULL,
    device_id     text        NOT NULL,
    system        text        NOT NULL,
    site          text        NOT NULL,
    room          text,
    time_zone     text        NOT NULL DEFAULT 'UTC',
    params        jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(params) = 'object'),
    registered_at timestamptz NOT NULL DEFAULT now(),
    retired_at    timestamptz,
    PRIMARY KEY (type, device_id)
);
