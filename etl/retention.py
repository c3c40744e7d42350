"""What the warehouse forgets: rows older than their type's retention, what the registry told long ago, and what was
told to people. The lake keeps all but the last, and the readings of types whose spec says for how long."""

from datetime import datetime, timedelta

from sqlalchemy import text

from connections.compactions import Compactions
from connections.lake import Lake
from connections.warehouse import Warehouse
from etl.lake_index import PartitionFiles, read_index
from etl.window import micros
from fleet.catalog import Catalog
from fleet.compaction import Compacted, Compaction, Covered

CONTROL_RECORDS_KEPT = timedelta(days=30)
"""After Kafka had them: for who asks what the log was told. Kafka itself keeps them 7 days."""

DISPATCHES_KEPT = timedelta(days=90)
"""Dead letters, and what was asked of the dispatcher; the notes of what was told, and commands, are kept as long as
rollups."""


def expire(warehouse: Warehouse, catalog: Catalog, now: datetime) -> dict[str, dict[str, int]]:
    """Type → rows deleted by table, and under `all types` the chunks dropped whole, the control records, commands,
    dead letters and requests. Functions are in sql/always/."""
    longest = {
        "readings": now - max(t.retention.readings for t in catalog),
        "rollups": now - max(t.retention.rollups for t in catalog),
    }
    deleted = {}
    with warehouse.transaction() as c:
        chunks = c.execute(text("SELECT expire_chunks(:readings, :rollups)"), longest).scalar_one()
        records = c.execute(
            text("SELECT expire_control_records(:before)"), {"before": now - CONTROL_RECORDS_KEPT}
        ).scalar_one()
        commands = c.execute(text("SELECT expire_commands(:rollups)"), longest).scalar_one()
        dispatches = c.execute(
            text(
                "SELECT dead_letters_deleted AS dead_letters, requests_deleted AS requests"
                " FROM expire_dispatches(:before)"
            ),
            {"before": now - DISPATCHES_KEPT},
        ).one()
    deleted["all types"] = {"chunks": int(chunks), "control_records": int(records), "commands": int(commands)}
    deleted["all types"] |= {k: int(v) for k, v in dispatches._mapping.items()}
    for spec in catalog:
        with warehouse.transaction() as c:
            row = c.execute(
                text("SELECT * FROM expire_type(:type, :readings, :rollups)"),
                {
                    "type": spec.type,
                    "readings": now - spec.retention.readings,
                    "rollups": now - spec.retention.rollups,
                },
            ).one()
        deleted[spec.type] = {k: int(v) for k, v in row._mapping.items()}
    return deleted


def expire_lake(lake: Lake, warehouse: Warehouse, catalog: Catalog, now: datetime) -> dict[str, dict[str, int]]:
    """Type → partitions, files and rows that have expired with this call: whole partitions that ended longer ago than
    `retention.lake`, for readers at once; etl.lake_tidy deletes the files later. Raises Unavailable, DataError."""
    index, records = read_index(lake), Compactions(lake)
    found: dict[str, dict[str, int]] = {}
    for key, files in index.partitions.items():
        spec = catalog.types.get(files.partition.type)
        if spec is None or spec.retention.lake is None or files.partition.end > now - spec.retention.lake:
            continue
        _forget(warehouse, [key])  # before: a late reading that comes next is a partition of its own
        if all(_commit(records, files, version, now) for version in files.versions):
            figures = found.setdefault(spec.type, {"partitions": 0, "files": 0, "rows": 0})
            for name, number in (("partitions", 1), ("files", len(files.files)), ("rows", files.rows)):
                figures[name] += number
    # A run that was at it when they expired may have written of them since.
    _forget(warehouse, [key for key in index.expired if key not in index.partitions])
    return found


def _commit(records: Compactions, files: PartitionFiles, version: int, now: datetime) -> bool:
    """False where a compaction was faster: they expire the next time."""
    key = files.partition.key
    last = records.last(key, version)
    covers = {one.path: one for entry in (last.files if last else ()) for one in entry.covers}
    covers |= {file.path: Covered(file.path, file.rows) for file in files.versions[version]}
    number = last.number + 1 if last else 1
    return records.commit(Compaction(key, version, number, micros(now) // 1000, [Compacted([*covers.values()])]))


def _forget(warehouse: Warehouse, keys: list[str]) -> None:
    """What the ledger has of them. Their rollups are gone already: these are kept no longer than the lake's files."""
    with warehouse.transaction() as c:
        c.execute(text("DELETE FROM ledger WHERE partition = ANY(:keys)"), {"keys": keys})
