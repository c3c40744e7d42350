"""One partition into the warehouse: all that it had is replaced, in one transaction, its ledger row with it.

A crash at any point leaves the old rows or the new. An advisory lock on the partition's key makes two runs take turns;
the one that comes later with less (it looked at the lake earlier) leaves what is there.
"""

from collections.abc import Mapping, Sequence

import pyarrow as pa
from sqlalchemy import Connection, text

from connections.arrow_csv import csv_of
from connections.warehouse import Warehouse, copy_csv, copy_rows
from etl.derive import Derived
from etl.energy import NOWHERE, Places, store_energy
from etl.lake_index import PartitionFiles
from etl.rejects import Rejects, source_of
from fleet.errors import DataError
from fleet.lake_layout import Partition
from fleet.ledger import PartitionBooks, partition_imbalances
from fleet.spec import DeviceType

ALL_VALUES_BAD = "all_values_quarantined"
OUT_OF_RANGE = "out_of_range"
QUARANTINE_COLUMNS = (
    "at", "partition", "what", "reason", "detail", "system", "type", "site", "device_id", "metric", "value", "seq",
    "spec_version", "kafka_topic", "kafka_partition", "kafka_offset", "source", "payload",
    "payload_bytes", "payload_sha256",
)  # fmt: skip


def load_readings(
    warehouse: Warehouse, spec: DeviceType, derived: Derived, run_id: str, sites: Places = NOWHERE
) -> bool:
    """False where the warehouse already has a newer state of the partition. Raises DataError if the books are off."""
    partition, books = derived.files.partition, derived.books
    _must_balance(books)
    with warehouse.transaction() as c:
        if not _replace(c, derived.files, books):
            return False
        fixed = {"system": spec.system, "type": spec.type}
        _copy_table(c, "rollups", derived.rollups, {**fixed, "spec_version": derived.spec_version})
        _copy_table(c, "anomalies", derived.anomalies, fixed)
        for what, found in _quarantined(spec, derived).items():
            _copy_table(c, "quarantine", found, {**fixed, "partition": partition.key, "what": what})
        figures = {
            "anomalies": derived.anomalies.num_rows,
            "rollups": derived.rollups.num_rows,
            "spec_version": derived.spec_version,
        }
        _write_ledger(c, derived.files, books, run_id, figures)
        copy_rows(
            c,
            "ledger_metrics",
            ("partition", "metric", "known", "rolled_1m", "rolled_1h", "quarantined"),
            [(books.key, m.metric, m.known, m.rolled["1m"], m.rolled["1h"], m.quarantined) for m in books.metrics],
        )
        store_energy(c, spec, derived, sites)
    return True


def load_rejects(warehouse: Warehouse, rejects: Rejects, run_id: str) -> bool:
    """As load_readings, of an hour of dead letters."""
    books = rejects.books
    _must_balance(books)
    with warehouse.transaction() as c:
        if not _replace(c, rejects.files, books):
            return False
        rows = (
            (r["kafka_timestamp"], books.key, "dead_letter", r["reason"], r["detail"], r["system"], r["device_type"],
             None, None, None, None, None, r["version"], r["kafka_topic"], r["kafka_partition"], r["kafka_offset"],
             source_of(r), r["payload"], r["payload_bytes"], r["payload_sha256"])
            for r in rejects.rows()
        )  # fmt: skip
        copy_rows(c, "quarantine", QUARANTINE_COLUMNS, rows)
        _write_ledger(c, rejects.files, books, run_id, {"anomalies": 0, "rollups": 0, "spec_version": None})
        copy_rows(
            c,
            "rejects",
            ("partition", "reason", "system", "type", "rows"),
            [(books.key, *key, n) for key, n in sorted(rejects.counts.items())],
        )
    return True


def _must_balance(books: PartitionBooks) -> None:
    found = partition_imbalances(books)
    if found:
        raise DataError("the books do not balance, nothing was loaded: " + "; ".join(map(str, found)))


def _replace(c: Connection, files: PartitionFiles, books: PartitionBooks) -> bool:
    """Takes the partition's lock and removes what is there; False where that was made from more rows than we have."""
    partition = files.partition
    c.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": partition.key})
    there = c.execute(text("SELECT landed FROM ledger WHERE partition = :key"), {"key": partition.key}).scalar()
    if there is not None and there > books.landed:
        return False
    span = {"type": partition.type, "key": partition.key, "start": partition.start, "end": partition.end}
    for statement in (
        "DELETE FROM rollups WHERE type = :type AND bucket >= :start AND bucket < :end",
        "DELETE FROM anomalies WHERE type = :type AND event_time >= :start AND event_time < :end",
        "DELETE FROM quarantine WHERE partition = :key AND at >= :start AND at < :end",
        "DELETE FROM ledger WHERE partition = :key",
    ):
        c.execute(text(statement), span)
    return True


def _write_ledger(
    c: Connection, files: PartitionFiles, books: PartitionBooks, run_id: str, figures: Mapping[str, int | None]
) -> None:
    p = files.partition
    row = {
        "partition": p.key, "system": p.system, "type": p.type, "starts_at": p.start, "ends_at": p.end,
        "status": "loaded", "files": len(files.files), "files_digest": files.digest, "landed": books.landed,
        "valid": books.valid, "quarantined": books.quarantined, "duplicate": books.duplicate,
        "run_id": run_id, **figures,
    }  # fmt: skip
    names = ", ".join(row)
    c.execute(text(f"INSERT INTO ledger ({names}) VALUES ({', '.join(f':{n}' for n in row)})"), row)  # noqa: S608


def await_processing(c: Connection, keys: Sequence[str]) -> None:
    """What is loaded of the partitions stays, and counts as made from other files than there are."""
    c.execute(
        text(
            "UPDATE ledger SET files_digest = NULL WHERE partition IN (SELECT partition FROM ledger"
            " WHERE partition = ANY(:keys) ORDER BY partition FOR UPDATE)"
        ),
        {"keys": list(keys)},
    )


def mark_failed(c: Connection, partition: Partition, reason: str, run_id: str) -> None:
    """The partition keeps what is loaded of it; the ledger says why the present files are not."""
    c.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": partition.key})
    c.execute(
        text(
            "INSERT INTO ledger (partition, system, type, starts_at, ends_at, status, failure, run_id)"
            " VALUES (:key, :system, :type, :start, :end, 'failed', :reason, :run_id)"
            " ON CONFLICT (partition) DO UPDATE SET status = 'failed', failure = :reason, run_id = :run_id,"
            " processed_at = now()"
        ),
        {
            "key": partition.key, "system": partition.system, "type": partition.type, "start": partition.start,
            "end": partition.end, "reason": reason[:2000], "run_id": run_id,
        },
    )  # fmt: skip


def _copy_table(c: Connection, name: str, table: pa.Table, fixed: Mapping[str, object]) -> None:
    """`fixed` columns have one value in all rows."""
    if table.num_rows == 0:
        return
    table = table.select([column for column in table.column_names if column != "starts_at"])
    for column, value in fixed.items():
        table = table.append_column(column, pa.repeat(pa.scalar(value), table.num_rows))
    with csv_of(table) as csv:
        copy_csv(c, name, table.column_names, csv)


OF_QUARANTINED = ("site", "device_id", "seq", "spec_version", "kafka_topic", "kafka_partition", "kafka_offset")


def _quarantined(spec: DeviceType, derived: Derived) -> dict[str, pa.Table]:
    """What was quarantined → its rows."""
    values = derived.bad_values
    columns = (values[name].to_pylist() for name in ("metric", "value", "low", "high"))
    details = [
        f"{metric} {value!r} {spec.metrics[metric].unit} is outside {low:g} to {high:g}"
        for metric, value, low, high in zip(*columns, strict=True)
    ]
    all_bad = ["every known value that it carried is outside its range"] * derived.bad_readings.num_rows
    return {
        "value": _quarantine_rows(values, (*OF_QUARANTINED, "metric", "value"), OUT_OF_RANGE, details),
        "reading": _quarantine_rows(derived.bad_readings, OF_QUARANTINED, ALL_VALUES_BAD, all_bad),
    }


def _quarantine_rows(rows: pa.Table, columns: Sequence[str], reason: str, details: Sequence[str]) -> pa.Table:
    kept = rows.select(columns).append_column("at", rows["event_time"])
    kept = kept.append_column("reason", pa.repeat(reason, rows.num_rows))
    return kept.append_column("detail", pa.array(details, pa.string()))
