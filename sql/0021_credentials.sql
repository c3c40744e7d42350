-- What devices show to be let in: see fleet/credential.py. A credential that is revoked, or that another has taken the
-- place of, has an end; none is deleted. `site` is where the device stood when it was issued: one that registers itself
-- is in `devices` only after its first reading. `revision` tells who keeps a copy what is new to it.
ALTER TABLE registry ADD COLUMN credentials bigint NOT NULL DEFAULT 0;

CREATE TABLE credentials (
    type       text        NOT NULL,
    device_id  text        NOT NULL,
    number     integer     NOT NULL,
    site       text        NOT NULL,
    token_hash bytea       NOT NULL UNIQUE,
    mqtt_hash  text        NOT NULL, -- a line of Mosquitto's password file
    issued_at  timestamptz NOT NULL,
    ends_at    timestamptz,
    revision   bigint      NOT NULL,
    PRIMARY KEY (type, device_id, number)
);
CREATE INDEX credentials_by_revision ON credentials (revision);
