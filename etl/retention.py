"""What the warehouse forgets: rows older than their type's retention, what the registry told long ago, and what was
told to people. The lake keeps all but the last."""

from datetime import datetime, timedelta

from sqlalchemy import text

from connections.warehouse import Warehouse
from fleet.catalog import Catalog

CONTROL_RECORDS_KEPT = timedelta(days=30)
"""After Kafka had them: for who asks what the log was told. Kafka itself keeps them 7 days."""

DISPATCHES_KEPT = timedelta(days=90)
"""Dead letters, and what was asked of the dispatcher; the notes of what was told are kept as long as rollups."""


def expire(warehouse: Warehouse, catalog: Catalog, now: datetime) -> dict[str, dict[str, int]]:
    """Type → rows deleted by table, and under `all types` the chunks dropped whole, the control records, dead
    letters and requests. Functions are in sql/always/."""
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
        dispatches = c.execute(
            text(
                "SELECT dead_letters_deleted AS dead_letters, requests_deleted AS requests"
                " FROM expire_dispatches(:before)"
            ),
            {"before": now - DISPATCHES_KEPT},
        ).one()
    deleted["all types"] = {"chunks": int(chunks), "control_records": int(records)}
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
