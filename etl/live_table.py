"""The table of live rollups, and how far the job that writes it is: one transaction for both."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from sqlalchemy import text

from connections.warehouse import Warehouse
from fleet.errors import DataError

COLUMNS = (
    "bucket", "system", "type", "site", "device_id", "metric", "count", "mean", "min", "max", "stddev", "last",
    "spec_version",
)  # fmt: skip
KEY = ("type", "metric", "device_id", "site", "bucket")
ROWS_AT_ONCE = 10_000
UPSERT = text(
    f"INSERT INTO rollups_live ({', '.join(COLUMNS)}) SELECT {', '.join(COLUMNS)}"  # noqa: S608
    " FROM jsonb_populate_recordset(NULL::rollups_live, CAST(:rows AS jsonb))"
    f" ON CONFLICT ({', '.join(KEY)}) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in KEY)
)


@dataclass(frozen=True)
class Progress:
    """A system's row of `stream_progress`, as far as a start goes by it."""

    begins_at: datetime
    checkpoint: str | None = None
    batch: int = -1


class LiveTable:
    """Of one system."""

    def __init__(self, warehouse: Warehouse, system: str):
        self.warehouse, self.system = warehouse, system

    def progress(self, begins_at: datetime) -> Progress:
        """What is there; begun with `begins_at` where there is nothing. Raises Unavailable, Refused."""
        with self.warehouse.transaction() as c:
            parameters = {"system": self.system, "begins_at": begins_at}
            c.execute(
                text(
                    "INSERT INTO stream_progress (system, begins_at) VALUES (:system, :begins_at)"
                    " ON CONFLICT DO NOTHING"
                ),
                parameters,
            )  # fmt: skip
            found = c.execute(
                text("SELECT begins_at, checkpoint, batch FROM stream_progress WHERE system = :system"), parameters
            )
            return Progress(*found.one())

    def write(self, checkpoint: str, batch: int, rows: Iterator[str]) -> None:
        """Buckets as JSON objects, in place of what there is of them. A batch that was written may come again: it says
        the same. Raises Unavailable, and DataError where the table has gone on without this query."""
        with self.warehouse.transaction() as c:
            moved = c.execute(
                text(
                    "UPDATE stream_progress SET checkpoint = :checkpoint, batch = :batch, updated_at = now()"
                    " WHERE system = :system AND coalesce(checkpoint, :checkpoint) = :checkpoint AND batch <= :batch"
                ),
                {"system": self.system, "checkpoint": checkpoint, "batch": batch},
            )
            if moved.rowcount != 1:
                raise DataError(f"{self.system}: the table rollups_live is past batch {batch}, or was begun anew")
            while some := list(islice(rows, ROWS_AT_ONCE)):
                c.execute(UPSERT, {"rows": f"[{','.join(some)}]"})

    def count(self, batch: int, counts: Mapping[str, int]) -> None:
        """Adds what a batch was made of, once."""
        sums = ", ".join(f"{name} = {name} + :{name}" for name in counts)
        with self.warehouse.transaction() as c:
            c.execute(
                text(
                    f"UPDATE stream_progress SET {sums}, counted = :batch"  # noqa: S608
                    " WHERE system = :system AND counted < :batch"
                ),
                {"system": self.system, "batch": batch, **counts},
            )

    def lose(self, offsets: int) -> None:
        """Adds offsets that Kafka no longer had."""
        with self.warehouse.transaction() as c:
            c.execute(
                text("UPDATE stream_progress SET lost = lost + :offsets WHERE system = :system"),
                {"system": self.system, "offsets": offsets},
            )

    def forget(self) -> None:
        """All of the system."""
        with self.warehouse.transaction() as c:
            for table in ("rollups_live", "stream_progress"):
                c.execute(text(f"DELETE FROM {table} WHERE system = :system"), {"system": self.system})  # noqa: S608
