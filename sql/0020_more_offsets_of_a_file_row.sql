-- A row of a file with several metrics comes back as a reading for each, where the type's messages carry one each: the
-- others' offsets, in the same Kafka partition.
ALTER TABLE quarantine_replays ADD COLUMN more_offsets bigint[] NOT NULL DEFAULT '{}';
