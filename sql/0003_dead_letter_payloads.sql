-- Of a dead letter's bytes the warehouse keeps the first 64 KiB, and of all of them the length and the SHA-256: the lake
-- has them whole, and a flood of large ones must not fill this disk too.
ALTER TABLE quarantine ADD COLUMN payload_bytes bigint, ADD COLUMN payload_sha256 bytea;
UPDATE quarantine SET payload_bytes = octet_length(payload), payload_sha256 = sha256(payload) WHERE what = 'dead_letter';
ALTER TABLE quarantine ADD CONSTRAINT quarantine_payload_check CHECK (
    (what = 'dead_letter') = (payload_bytes IS NOT NULL) AND (what = 'dead_letter') = (payload_sha256 IS NOT NULL)
    AND (what <> 'dead_letter' OR octet_length(payload) <= 65536 OR octet_length(payload) = payload_bytes)
);
