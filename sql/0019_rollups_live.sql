-- Rollups of a minute while it lasts, by the Structured Streaming job: what `rollups` will say of the grain 1m, without
-- anomalies, which take a whole partition to see. One row is the whole bucket as far as it is known: written again, it is
-- replaced, never added to.
CREATE TABLE rollups_live (
    bucket       timestamptz      NOT NULL,
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
    spec_version integer          NOT NULL, -- the newest in the bucket
    PRIMARY KEY (type, metric, device_id, site, bucket)
);
SELECT create_hypertable('rollups_live', by_range('bucket', INTERVAL '1 day'), create_default_indexes => false);

-- How far the job is, a row a system, written in one transaction with the rows of a batch; the counts follow it.
CREATE TABLE stream_progress (
    system     text        PRIMARY KEY,
    begins_at  timestamptz NOT NULL,            -- no bucket before it
    checkpoint text,                            -- the id of Spark's; null before the first batch
    batch      bigint      NOT NULL DEFAULT -1, -- the last whose rows are in rollups_live
    counted    bigint      NOT NULL DEFAULT -1, -- the last whose records are in what follows
    records    bigint      NOT NULL DEFAULT 0,  -- all that was read, heartbeats and control records too
    readings   bigint      NOT NULL DEFAULT 0,
    unreadable bigint      NOT NULL DEFAULT 0,
    duplicate  bigint      NOT NULL DEFAULT 0,  -- of the readings
    late       bigint      NOT NULL DEFAULT 0,  -- of the readings: older than the watermark; `rollups` has them
    lost       bigint      NOT NULL DEFAULT 0,  -- offsets that were gone from Kafka before they were read
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- It is made anew, with a column more, by sql/always.
DROP FUNCTION IF EXISTS expire_type(text, timestamptz, timestamptz);
