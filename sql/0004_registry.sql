-- The registry of devices: one writer at a time. Whoever changes it first locks this row, so that revisions rise in the
-- order of commits, and who has seen revision n has seen all below it. It begins with the epoch in milliseconds: a
-- registry that is made anew goes on above one whose control records are still in Kafka's log.
CREATE TABLE registry (
    only_row   boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    revision   bigint      NOT NULL,
    changed_at timestamptz NOT NULL
);
INSERT INTO registry (revision, changed_at) VALUES ((extract(epoch FROM now()) * 1000)::bigint, now());

CREATE TABLE sites (
    system    text NOT NULL,
    site      text NOT NULL,
    time_zone text NOT NULL DEFAULT 'UTC',
    PRIMARY KEY (system, site)
);
INSERT INTO sites (system, site) SELECT DISTINCT system, site FROM devices;

-- A time zone is the site's, not the device's. `revision` is that of the last change.
ALTER TABLE devices
    DROP COLUMN time_zone,
    ADD COLUMN registered_by text NOT NULL DEFAULT 'operator' CHECK (registered_by IN ('operator', 'self')),
    ADD COLUMN revision bigint NOT NULL DEFAULT 0,
    ADD FOREIGN KEY (system, site) REFERENCES sites;
ALTER TABLE devices ALTER COLUMN registered_by DROP DEFAULT, ALTER COLUMN revision DROP DEFAULT;
CREATE INDEX devices_by_revision ON devices (revision);

-- The log of changes, written with them in one transaction, and what of it Kafka has. `key` null: for every partition;
-- `except_key`: not for the partition of this key.
CREATE TABLE control_records (
    revision     bigint      PRIMARY KEY,
    kafka_topic  text        NOT NULL,
    key          text,
    except_key   text,
    record       text        NOT NULL, -- JSON, as in fleet.control
    published_at timestamptz
);
CREATE INDEX control_records_waiting ON control_records (kafka_topic, revision) WHERE published_at IS NULL;
