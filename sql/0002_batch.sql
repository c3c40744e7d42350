-- What the batch job derives from the lake. Everything of one partition (a type's readings of one interval, key as in
-- fleet.lake_layout.Partition) is replaced in one transaction.

CREATE TABLE rollups (
    bucket       timestamptz      NOT NULL,
    grain        text             NOT NULL CHECK (grain IN ('1m', '1h')),
    system       text             NOT NULL,
    type         text             NOT NULL,
    site         text             NOT NULL,
    device_id    text             NOT NULL,
    metric       text             NOT NULL,
    count        bigint           NOT NULL CHECK (count > 0),
    mean         double precision NOT NULL,
    min          double precision NOT NULL,
    max          double precision NOT NULL,
    stddev       double precision,          -- of the sample; null below two values
    last         double precision NOT NULL, -- by event time, ties to the greater Kafka position
    anomalies    integer          NOT NULL, -- values of the bucket with any anomaly
    spec_version integer          NOT NULL, -- the newest in the partition
    PRIMARY KEY (type, metric, grain, device_id, site, bucket)
);
SELECT create_hypertable('rollups', by_range('bucket', INTERVAL '7 days'), create_default_indexes => false);
CREATE INDEX rollups_by_partition ON rollups (type, bucket);

CREATE TABLE anomalies (
    event_time      timestamptz      NOT NULL,
    system          text             NOT NULL,
    type            text             NOT NULL,
    site            text             NOT NULL,
    device_id       text             NOT NULL,
    metric          text             NOT NULL,
    kind            text             NOT NULL CHECK (kind IN ('range', 'zscore')),
    value           double precision NOT NULL,
    score           double precision NOT NULL, -- range: distance to the nearer bound, in the metric's unit; zscore: robust z
    low             double precision NOT NULL, -- the limits it broke
    high            double precision NOT NULL,
    spec_version    integer          NOT NULL, -- of the spec that the reading was written by
    kafka_topic     text             NOT NULL,
    kafka_partition integer          NOT NULL,
    kafka_offset    bigint           NOT NULL,
    PRIMARY KEY (type, event_time, metric, device_id, kind, kafka_topic, kafka_partition, kafka_offset)
);
SELECT create_hypertable('anomalies', by_range('event_time', INTERVAL '7 days'), create_default_indexes => false);

-- what: 'value', one bad value of a reading that lives; 'reading', all of whose known values were bad (its values stand
-- here too); 'dead_letter', a message that is no reading, with its bytes.
CREATE TABLE quarantine (
    at              timestamptz NOT NULL, -- event time; of a dead letter the time it was appended to Kafka
    partition       text        NOT NULL,
    what            text        NOT NULL CHECK (what IN ('value', 'reading', 'dead_letter')),
    reason          text        NOT NULL,
    detail          text        NOT NULL,
    system          text        NOT NULL,
    type            text        NOT NULL,
    site            text,
    device_id       text,
    metric          text,
    value           double precision,
    seq             bigint,
    spec_version    integer     NOT NULL,
    kafka_topic     text        NOT NULL,
    kafka_partition integer     NOT NULL,
    kafka_offset    bigint      NOT NULL,
    source          text,                 -- of a dead letter: the MQTT topic, or topic/partition/offset
    payload         bytea,
    CHECK ((what = 'value') = (metric IS NOT NULL)),
    CHECK ((what = 'dead_letter') = (payload IS NOT NULL))
);
SELECT create_hypertable('quarantine', by_range('at', INTERVAL '7 days'), create_default_indexes => false);
CREATE INDEX quarantine_by_partition ON quarantine (partition, at);

-- The books: one row per partition of the lake, as it was last processed. A partition whose validation failed keeps the
-- figures of what is loaded (null when nothing ever was) and says why.
CREATE TABLE ledger (
    partition    text        PRIMARY KEY,
    system       text        NOT NULL,
    type         text        NOT NULL,
    starts_at    timestamptz NOT NULL,
    ends_at      timestamptz NOT NULL,
    status       text        NOT NULL CHECK (status IN ('loaded', 'failed')),
    failure      text        NOT NULL DEFAULT '',
    files        integer,              -- data files that were read, and the sum over their paths and row counts
    files_digest text,
    landed       bigint,
    valid        bigint,
    quarantined  bigint,
    duplicate    bigint,
    anomalies    bigint,
    rollups      bigint,               -- rows of either grain
    spec_version integer,
    run_id       text        NOT NULL,
    processed_at timestamptz NOT NULL DEFAULT now(),
    CHECK (status = 'failed' OR landed = valid + quarantined + duplicate)
);
CREATE INDEX ledger_by_time ON ledger (system, starts_at);

-- Known values of each metric: those that were counted in rollups of either grain, and those quarantined.
CREATE TABLE ledger_metrics (
    partition   text   NOT NULL REFERENCES ledger ON DELETE CASCADE,
    metric      text   NOT NULL,
    known       bigint NOT NULL,
    rolled_1m   bigint NOT NULL,
    rolled_1h   bigint NOT NULL,
    quarantined bigint NOT NULL,
    PRIMARY KEY (partition, metric)
);

-- Dead letters by the hour they were appended in.
CREATE TABLE rejects (
    partition text   NOT NULL REFERENCES ledger ON DELETE CASCADE,
    reason    text   NOT NULL,
    system    text   NOT NULL,
    type      text   NOT NULL,
    rows      bigint NOT NULL,
    PRIMARY KEY (partition, reason, system, type)
);

-- What landing wrote of each Kafka partition, as the last reconciliation found it; end_offset is Kafka's own.
CREATE TABLE ledger_topics (
    kafka_topic     text        NOT NULL,
    kafka_partition integer     NOT NULL,
    first_offset    bigint      NOT NULL,
    landed_to       bigint      NOT NULL, -- the offset after the last that is in a manifest
    end_offset      bigint,               -- null: Kafka was not asked
    rows            bigint      NOT NULL,
    unreadable      bigint      NOT NULL,
    heartbeats      bigint      NOT NULL,
    controls        bigint      NOT NULL,
    missing         bigint      NOT NULL,
    checked_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kafka_topic, kafka_partition)
);

-- Each validation by Great Expectations: of several small partitions together, or of one in pieces of a million rows.
-- One that failed is repeated for each partition alone, so that only the bad one is held back.
CREATE TABLE validations (
    run_id       text        NOT NULL,
    type         text        NOT NULL,
    piece        text        NOT NULL, -- the partitions' times, and the number of the piece
    system       text        NOT NULL,
    partitions   text[]      NOT NULL,
    spec_version integer     NOT NULL,
    success      boolean     NOT NULL, -- nothing that fails a partition failed; warnings may stand in `unmet`
    rows         bigint      NOT NULL,
    evaluated    integer     NOT NULL,
    unmet        jsonb       NOT NULL, -- [{expectation, column, severity, unexpected, observed}]
    data_docs    text        NOT NULL,
    validated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, type, piece)
);
CREATE INDEX validations_by_time ON validations (type, validated_at DESC);

-- Each run of the batch job. `manifests` says what of the lake it saw: {"topic/partition": offset after the last};
-- `partitions` what it set out to process.
CREATE TABLE etl_runs (
    run_id      text        PRIMARY KEY,
    status      text        NOT NULL CHECK (status IN ('running', 'succeeded', 'failed')),
    request     jsonb       NOT NULL,
    manifests   jsonb       NOT NULL,
    partitions  text[]      NOT NULL,
    figures     jsonb       NOT NULL DEFAULT '{}',
    started_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
