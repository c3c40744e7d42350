-- Commands to devices: what was asked for, by whom and why, and what became of it. A row is asked for by an operator or by
-- a rule's action and moved by the commander alone; docs/decisions/0043 says how.
CREATE TABLE commands (
    command_id    text        PRIMARY KEY, -- the same again is the same command
    system        text        NOT NULL,
    type          text        NOT NULL,
    device_id     text        NOT NULL,
    site          text        NOT NULL, -- of a rule's, the alert's
    command       text        NOT NULL,
    args          jsonb       NOT NULL DEFAULT '{}',
    sets          jsonb       NOT NULL DEFAULT '{}', -- metric and wanted value, by the spec when it was sent
    via           text        NOT NULL CHECK (via IN ('cli', 'http', 'rule')),
    by            text        NOT NULL, -- a person; of a rule, its id
    why           text        NOT NULL DEFAULT '',
    alert_id      text,       -- of a rule's, and so the next two
    transition_id text,
    rule_type     text,
    requested_at  timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    state         text        NOT NULL DEFAULT 'requested'
                  CHECK (state IN ('requested', 'sent', 'delivered', 'obeyed', 'refused', 'expired')),
    reason        text        NOT NULL DEFAULT '',
    changed_at    timestamptz NOT NULL DEFAULT now(),
    sent_at       timestamptz -- the first try
);
CREATE INDEX commands_under_way ON commands (state) WHERE state IN ('requested', 'sent', 'delivered');
CREATE INDEX commands_by_device ON commands (type, device_id, requested_at DESC);
CREATE INDEX commands_by_time ON commands (requested_at DESC);
CREATE INDEX commands_by_alert ON commands (alert_id) WHERE alert_id IS NOT NULL;

-- Each state that a command came to, once. Written by the table itself: who moves a command cannot leave it out.
CREATE TABLE command_history (
    command_id text        NOT NULL,
    state      text        NOT NULL,
    at         timestamptz NOT NULL,
    reason     text        NOT NULL,
    PRIMARY KEY (command_id, state)
);

CREATE FUNCTION note_command() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO command_history VALUES (NEW.command_id, NEW.state, NEW.changed_at, NEW.reason) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER note_command AFTER INSERT OR UPDATE OF state ON commands
    FOR EACH ROW EXECUTE FUNCTION note_command();

-- How far the commander has read the transitions of alerts.
CREATE TABLE command_offsets (
    kafka_topic     text        NOT NULL,
    kafka_partition integer     NOT NULL,
    next_offset     bigint      NOT NULL CHECK (next_offset >= 0),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kafka_topic, kafka_partition)
);
