"""An hour of dead letters: to the quarantine with their bytes, counted by reason."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from connections.lake import Lake
from etl.lake_frames import reject_tables
from etl.lake_index import PartitionFiles
from fleet.ledger import PartitionBooks

Count = Counter[tuple[str, str, str]]
"""(reason, system, type) → rows."""


@dataclass(frozen=True)
class Rejects:
    files: PartitionFiles
    books: PartitionBooks
    counts: Count
    rows: list[dict[str, Any]]
    """In order of Kafka position; columns as in fleet.lake_layout.REJECTED_COLUMNS."""


def read_rejects(lake: Lake, files: PartitionFiles) -> Rejects:
    """Raises DataError where a file is not what its manifest says."""
    rows = [row for table in reject_tables(lake, files) for row in table.to_pylist()]
    rows.sort(key=lambda r: (r["kafka_topic"], r["kafka_partition"], r["kafka_offset"]))
    counts: Count = Counter((r["reason"], r["system"], r["device_type"]) for r in rows)
    reasons: Counter[str] = Counter()
    for (reason, _, _), n in counts.items():
        reasons[reason] += n
    books = PartitionBooks(files.partition.key, len(rows), 0, len(rows), 0, rejects=dict(reasons))
    return Rejects(files, books, counts, rows)


def source_of(row: dict[str, Any]) -> str:
    """Where the message came in: its MQTT topic, or the place of the record that could not be read."""
    if row["mqtt_topic"] is not None:
        return str(row["mqtt_topic"])
    if row["source_topic"] is not None:
        return f"{row['source_topic']}/{row['source_partition']}/{row['source_offset']}"
    return f"{row['kafka_topic']}/{row['kafka_partition']}/{row['kafka_offset']}"
