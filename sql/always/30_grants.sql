-- One writer for each table. The roles are made by whoever runs the server; see stack/ and docker/.
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM weir_live, weir_history, weir_dispatcher, weir_commander, weir_batch, weir_registry, weir_stream, weir_operator, weir_reader;
REVOKE EXECUTE ON FUNCTION expire_type, expire_chunks, expire_control_records, expire_dispatches, expire_commands FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO weir_live, weir_history, weir_dispatcher, weir_commander, weir_batch, weir_registry, weir_stream, weir_operator, weir_reader;

GRANT SELECT, INSERT ON readings TO weir_live;
GRANT SELECT, INSERT, UPDATE, DELETE ON live_offsets TO weir_live;

GRANT SELECT, INSERT, UPDATE, DELETE ON rollups_live, stream_progress TO weir_stream;

GRANT SELECT, INSERT ON alert_transitions TO weir_history;
GRANT SELECT, INSERT, UPDATE ON alerts, history_offsets TO weir_history;
GRANT SELECT ON ledger_balance, etl_runs, parity_standing TO weir_history; -- it reports whether the books balance

GRANT SELECT, INSERT, UPDATE, DELETE
   ON dispatch_offsets, dispatch_alerts, dispatch_groups, outbox, dispatch_receivers, dispatch_silences
   TO weir_dispatcher;
GRANT SELECT, UPDATE ON dispatcher, dispatch_requests TO weir_dispatcher;
GRANT INSERT ON notifications TO weir_dispatcher;
GRANT SELECT ON devices TO weir_dispatcher; -- how many there are at a site

GRANT SELECT, INSERT, UPDATE ON commands, command_offsets TO weir_commander;
GRANT SELECT ON devices TO weir_commander; -- where a device stands, and which there are at a site

GRANT SELECT ON readings, live_offsets, devices, sites, ledger_balance TO weir_batch;
GRANT SELECT, INSERT, UPDATE, DELETE
   ON rollups, anomalies, quarantine, ledger, ledger_metrics, rejects, ledger_topics, validations, etl_runs
   TO weir_batch;
GRANT SELECT, INSERT, UPDATE ON quarantine_replays TO weir_batch;
GRANT SELECT, INSERT ON late_alerts TO weir_batch;
GRANT SELECT, INSERT, UPDATE ON inbox_files TO weir_batch;
GRANT SELECT, INSERT, DELETE ON parity, parity_differences TO weir_batch;
GRANT SELECT ON parity_standing TO weir_batch; -- for the report
GRANT SELECT ON alert_transitions, control_records TO weir_batch; -- what parity is compared with and explained by
GRANT SELECT ON notifications TO weir_batch; -- how soon people were told, for the report
GRANT SELECT, INSERT, UPDATE ON models TO weir_batch; -- what was trained stays
GRANT SELECT, INSERT, UPDATE, DELETE ON security_events, security_kept TO weir_batch;
GRANT SELECT ON commands TO weir_batch; -- for the report
GRANT SELECT, INSERT, DELETE ON predictions TO weir_batch;
GRANT SELECT, INSERT, UPDATE, DELETE ON energy_hours, energy_unattributed, energy_pieces, energy_ends TO weir_batch;
GRANT SELECT ON energy_days TO weir_batch;
GRANT EXECUTE ON FUNCTION expire_type, expire_chunks, expire_control_records, expire_dispatches, expire_commands TO weir_batch;

-- The registry's commands, the bridge and the gateway. They delete nothing.
GRANT SELECT, UPDATE ON registry TO weir_registry;
GRANT SELECT, INSERT, UPDATE ON sites, devices, specs, control_records, credentials TO weir_registry;

GRANT SELECT ON ALL TABLES IN SCHEMA public TO weir_reader, weir_operator;
REVOKE ALL ON credentials FROM weir_reader, weir_operator; -- nobody reads hashes who has no need to
GRANT INSERT ON dispatch_requests TO weir_operator; -- acknowledge, send again, test
GRANT INSERT (command_id, system, type, device_id, site, command, args, via, by, why, expires_at) ON commands TO weir_operator, weir_registry; -- all else is the commander's
GRANT SELECT ON commands, command_history TO weir_registry; -- people ask by the routes, too
