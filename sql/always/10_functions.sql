-- Retention runs with the owner's rights, because only a hypertable's owner may drop its chunks; the callers are the
-- batch role alone, and the tables are named here, not by the caller.

CREATE OR REPLACE FUNCTION expire_type(
    of_type text, readings_before timestamptz, rollups_before timestamptz,
    OUT readings_deleted bigint, OUT rollups_live_deleted bigint, OUT rollups_deleted bigint, OUT anomalies_deleted bigint,
    OUT quarantine_deleted bigint, OUT energy_hours_deleted bigint
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    DELETE FROM readings WHERE type = of_type AND event_time < readings_before;
    GET DIAGNOSTICS readings_deleted = ROW_COUNT;
    DELETE FROM rollups_live WHERE type = of_type AND bucket < readings_before;
    GET DIAGNOSTICS rollups_live_deleted = ROW_COUNT;
    DELETE FROM rollups WHERE type = of_type AND bucket < rollups_before;
    GET DIAGNOSTICS rollups_deleted = ROW_COUNT;
    DELETE FROM anomalies WHERE type = of_type AND event_time < rollups_before;
    GET DIAGNOSTICS anomalies_deleted = ROW_COUNT;
    DELETE FROM quarantine WHERE type = of_type AND what <> 'dead_letter' AND at < rollups_before;
    GET DIAGNOSTICS quarantine_deleted = ROW_COUNT;
    DELETE FROM energy_hours WHERE device_type = of_type AND hour < rollups_before;
    GET DIAGNOSTICS energy_hours_deleted = ROW_COUNT;
    DELETE FROM energy_pieces WHERE device_type = of_type AND hour < rollups_before;
    DELETE FROM energy_unattributed WHERE device_type = of_type AND ends_at < rollups_before;
    DELETE FROM energy_ends WHERE device_type = of_type AND last_at < rollups_before;
END $$;

-- Of the registry's log what Kafka has had for long; what waits stays, however old.
CREATE OR REPLACE FUNCTION expire_control_records(published_before timestamptz)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    deleted bigint;
BEGIN
    DELETE FROM control_records WHERE published_at < published_before;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END $$;

-- Of the dispatcher what nobody will ask for again: dead letters and answered requests. What waits stays, however old.
CREATE OR REPLACE FUNCTION expire_dispatches(
    ended_before timestamptz, OUT dead_letters_deleted bigint, OUT requests_deleted bigint
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    DELETE FROM outbox WHERE dead_at < ended_before;
    GET DIAGNOSTICS dead_letters_deleted = ROW_COUNT;
    DELETE FROM dispatch_requests WHERE done_at < ended_before;
    GET DIAGNOSTICS requests_deleted = ROW_COUNT;
END $$;

-- Commands that have ended, and their history.
CREATE OR REPLACE FUNCTION expire_commands(asked_before timestamptz)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    deleted bigint;
BEGIN
    WITH old AS (
        DELETE FROM commands WHERE requested_at < asked_before AND state IN ('obeyed', 'refused', 'expired')
        RETURNING command_id
    ), history AS (
        DELETE FROM command_history h USING old WHERE h.command_id = old.command_id
    )
    SELECT count(*) INTO deleted FROM old;
    RETURN deleted;
END $$;

-- Whole chunks at once, where every type's time is over: cheap, and what gives the disk back.
CREATE OR REPLACE FUNCTION expire_chunks(readings_before timestamptz, rollups_before timestamptz)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    dropped bigint;
BEGIN
    SELECT (SELECT count(*) FROM drop_chunks('readings', older_than => readings_before))
         + (SELECT count(*) FROM drop_chunks('rollups_live', older_than => readings_before))
         + (SELECT count(*) FROM drop_chunks('rollups', older_than => rollups_before))
         + (SELECT count(*) FROM drop_chunks('anomalies', older_than => rollups_before))
         + (SELECT count(*) FROM drop_chunks('quarantine', older_than => rollups_before))
         + (SELECT count(*) FROM drop_chunks('notifications', older_than => rollups_before))
         + (SELECT count(*) FROM drop_chunks('predictions', older_than => rollups_before))
         + (SELECT count(*) FROM drop_chunks('security_events', older_than => rollups_before))
      INTO dropped;
    RETURN dropped;
END $$;
