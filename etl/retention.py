"""What the warehouse forgets: rows older than their type's retention, and what the registry told long ago. The
lake keeps all of it."""

from datetime import datetime, timedelta

from sqlalchemy import text

from connections.warehouse import Warehouse
from fleet.catalog import Catalog

CONTROL_RECORDS_KEPT = timedelta(days=30)
"""After Kafka had them: for who asks what the log was told. Kafka itself keeps them 7 days."""


def expire(warehouse: Warehouse, catalog: Catalog, now: datetime) -> dict[str, dict[str, int]]:
    """Type → rows deleted by table, and under `all types` the chunks dropped whole and the control records.
    Functions are in sql/always/."""
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
    deleted["all types"] = {"chunks": int(chunks), "control_records": int(records)}
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
