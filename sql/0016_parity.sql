-- What the rules say of the landed log beside what was published of it: a row for each span that was audited (a day, if
-- nobody asked for another), device type and Kafka partition. An audit of the same span replaces its rows.
CREATE TABLE parity (
    system          text        NOT NULL,
    type            text        NOT NULL,
    kafka_partition integer     NOT NULL, -- of readings
    starts_at       timestamptz NOT NULL, -- append times
    ends_at         timestamptz NOT NULL,
    first_offset    bigint      NOT NULL,
    end_offset      bigint      NOT NULL, -- after the last
    begun           text        NOT NULL CHECK (begun IN ('log', 'state', 'warm_up')), -- what the rules began with
    readings        bigint      NOT NULL,
    published       bigint      NOT NULL, -- transitions
    same            bigint      NOT NULL, -- of them: as the rules say
    explained       bigint      NOT NULL, -- differences
    unexplained     bigint      NOT NULL,
    audited_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (system, starts_at, ends_at, type, kafka_partition)
);
CREATE INDEX parity_by_end ON parity (ends_at);

-- The differences, of each row above at most 10,000, the unexplained first.
CREATE TABLE parity_differences (
    system          text        NOT NULL,
    type            text        NOT NULL,
    kafka_partition integer     NOT NULL,
    starts_at       timestamptz NOT NULL,
    ends_at         timestamptz NOT NULL,
    transition_id   text        NOT NULL,
    alert_id        text        NOT NULL,
    rule            text        NOT NULL,
    device_id       text        NOT NULL,
    "to"            text        NOT NULL,
    event_time      timestamptz NOT NULL,
    source_offset   bigint      NOT NULL, -- of the record that caused it
    difference      text        NOT NULL CHECK (difference IN ('only_published', 'only_evaluated', 'unlike', 'doubled')),
    cause           text        NOT NULL,
    explained       boolean     NOT NULL,
    detail          text        NOT NULL
);
CREATE INDEX parity_differences_by_span ON parity_differences (system, starts_at, ends_at);
