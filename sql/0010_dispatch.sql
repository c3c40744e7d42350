-- The dispatcher: from transitions to messages. It writes its position, how each alert stands with each receiver, what is
-- to be sent and what is held back in one transaction; docs/decisions/0025 says why.
CREATE TABLE dispatch_offsets (
    kafka_topic     text        NOT NULL,
    kafka_partition integer     NOT NULL,
    next_offset     bigint      NOT NULL CHECK (next_offset >= 0),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kafka_topic, kafka_partition)
);

-- Whoever begins takes the next epoch, and writes only while it is the last.
CREATE TABLE dispatcher (
    only_row boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch    bigint      NOT NULL DEFAULT 0,
    began_at timestamptz -- when the first one began: what is much older was for nobody
);
INSERT INTO dispatcher DEFAULT VALUES;

-- Alerts under way (fleet.standing.AlertSoFar) and storms (fleet.storm.Group).
CREATE TABLE dispatch_alerts (
    alert_id text  PRIMARY KEY,
    so_far   jsonb NOT NULL
);
CREATE TABLE dispatch_groups (
    receiver text  NOT NULL,
    kind     text  NOT NULL,
    system   text  NOT NULL,
    type     text  NOT NULL,
    rule     text  NOT NULL,
    site     text  NOT NULL,
    so_far   jsonb NOT NULL,
    PRIMARY KEY (receiver, kind, system, type, rule, site)
);

-- Messages to be sent, in the order of their ids for each receiver, rule and device; one that was sent is gone from here.
CREATE TABLE outbox (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    notification_id text        NOT NULL UNIQUE,
    receiver        text        NOT NULL,
    kind            text        NOT NULL,
    identities      text[]      NOT NULL, -- rule and device of each alert: what a receiver keeps one state of
    notification    jsonb       NOT NULL,
    created_at      timestamptz NOT NULL,
    tried_since     timestamptz NOT NULL, -- from which giving up counts
    due_at          timestamptz NOT NULL,
    attempts        integer     NOT NULL DEFAULT 0,
    problem         text,
    dead_at         timestamptz -- not sent, and not tried again unless somebody says so
);
CREATE INDEX outbox_waiting ON outbox (receiver, due_at, id) WHERE dead_at IS NULL;
CREATE INDEX outbox_by_identity ON outbox USING gin (identities) WHERE dead_at IS NULL;
CREATE INDEX outbox_dead ON outbox (dead_at) WHERE dead_at IS NOT NULL;

-- What became of it: sent, dead, or held back and why. A row a message; of what is held, a row an alert and receiver.
CREATE TABLE notifications (
    at              timestamptz NOT NULL,
    outcome         text        NOT NULL CHECK (outcome IN ('sent', 'held', 'dead')),
    cause           text        NOT NULL, -- of held: see fleet.standing.Cause; else empty
    note            text        NOT NULL, -- which silence, which window; what the receiver said
    receiver        text        NOT NULL,
    kind            text        NOT NULL,
    notification_id text        NOT NULL, -- of held, empty
    alert_id        text        NOT NULL, -- of a digest and of what is about no alert, empty, and so the next ones
    transition_id   text        NOT NULL,
    system          text        NOT NULL,
    type            text        NOT NULL,
    rule            text        NOT NULL,
    device_id       text        NOT NULL,
    site            text        NOT NULL,
    severity        text        NOT NULL,
    summary         text        NOT NULL,
    attempts        integer     NOT NULL
);
SELECT create_hypertable('notifications', by_range('at', INTERVAL '30 days'), create_default_indexes => false);
CREATE INDEX notifications_by_outcome ON notifications (outcome, at DESC);
CREATE INDEX notifications_by_alert ON notifications (alert_id, at);

CREATE TABLE dispatch_receivers (
    name          text        PRIMARY KEY,
    kind          text        NOT NULL,
    gone_at       timestamptz, -- it wants no more, until somebody switches it on
    failing_since timestamptz,
    problem       text,
    sent_at       timestamptz, -- the last time that something reached it
    heartbeat_at  timestamptz
);

-- Silences as Alertmanager last told them; they go on without it.
CREATE TABLE dispatch_silences (
    silence_id text  PRIMARY KEY,
    silence    jsonb NOT NULL
);

-- What an operator asks of the dispatcher, and what it answered.
CREATE TABLE dispatch_requests (
    id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    what    text        NOT NULL CHECK (what IN ('acknowledge', 'resend', 'test')),
    subject text        NOT NULL, -- an alert, a dead letter or `receiver:NAME`
    by      text        NOT NULL,
    comment text        NOT NULL DEFAULT '',
    made_at timestamptz NOT NULL DEFAULT now(),
    done_at timestamptz,
    answer  text
);
CREATE INDEX dispatch_requests_open ON dispatch_requests (id) WHERE done_at IS NULL;
