"""What the warehouse forgets: rows older than their type's retention. The lake keeps all of it."""

from datetime import datetime

from sqlalchemy import text

from connections.warehouse import Warehouse
from fleet.catalog import Catalog


def expire(warehouse: Warehouse, catalog: Catalog, now: datetime) -> dict[str, dict[str, int]]:
    """Type → rows deleted by table, and under `all types` the chunks dropped whole. Functions are in sql/always/."""
    longest = {
        "readings": now - max(t.retention.readings for t in catalog),
        "rollups": now - max(t.retention.rollups for t in catalog),
    }
    deleted = {}
    with warehouse.transaction() as c:
        chunks = c.execute(text("SELECT expire_chunks(:readings, :rollups)"), longest).scalar_one()
    deleted["all types"] = {"chunks": int(chunks)}
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
