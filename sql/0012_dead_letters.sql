-- A dead letter tells how an alert was. Of which of its alerts the receiver was told later, so that it is not sent again
-- as if it were so now.
ALTER TABLE outbox ADD COLUMN later_told text[] NOT NULL DEFAULT '{}';
CREATE INDEX outbox_dead_by_alert ON outbox USING gin ((notification->'alerts') jsonb_path_ops) WHERE dead_at IS NOT NULL;
