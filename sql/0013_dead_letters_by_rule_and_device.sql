-- To most receivers all alerts of a rule and device are one thing: what was told of a newer alert outdates the dead
-- letters of an older one. later_told has the ids of the alerts for which that is so.
CREATE INDEX outbox_dead_by_identity ON outbox USING gin (identities) WHERE dead_at IS NOT NULL;
DROP INDEX outbox_dead_by_alert;
