-- A SenML pack, a dead letter of several readings, may come back into several partitions of the lake: the others'.
ALTER TABLE quarantine_replays ADD COLUMN more_partitions text[] NOT NULL DEFAULT '{}';
