-- Alerts that fired while their rule had as many active in the partition as its type's max_active_alerts.
ALTER TABLE alert_transitions ADD COLUMN capped boolean NOT NULL DEFAULT false;
ALTER TABLE alerts ADD COLUMN capped boolean NOT NULL DEFAULT false;
