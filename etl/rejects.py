"""An hour of dead letters: counted by reason, then read row by row for the quarantine."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from connections.lake import Lake
from etl.lake_frames import reject_batches
from etl.lake_index import PartitionFiles
from fleet.ledger import PartitionBooks

KEPT_PAYLOAD_BYTES = 64 * 1024
"""Of each dead letter, in the warehouse; the lake keeps all of it."""
Count = Counter[tuple[str, str, str]]
"""(reason, system, type) → rows."""
WHAT_IS_COUNTED = ("reason", "system", "device_type")


@dataclass(frozen=True)
class Rejects:
    files: PartitionFiles
    books: PartitionBooks
    counts: Count
    lake: Lake

    def rows(self) -> Iterator[dict[str, Any]]:
        """Columns as in fleet.lake_layout.REJECTED_COLUMNS, and `payload_bytes`, `payload_sha256` of the whole
        payload; `payload` itself is cut. One at a time: an hour's payloads may be larger than the memory."""
        for batch in reject_batches(self.lake, self.files):
            rest = batch.drop_columns(["payload"]).to_pylist()
            for row, payload in zip(rest, batch.column("payload"), strict=True):
                whole = payload.as_py()
                yield {
                    **row,
                    "payload": whole[:KEPT_PAYLOAD_BYTES],
                    "payload_bytes": len(whole),
                    "payload_sha256": hashlib.sha256(whole).digest(),
                }


def read_rejects(lake: Lake, files: PartitionFiles) -> Rejects:
    """Counts them, without their payloads. Raises DataError where a file is not what its manifest says."""
    counts: Count = Counter()
    for batch in reject_batches(lake, files, WHAT_IS_COUNTED):
        counts.update(zip(*(batch.column(name).to_pylist() for name in WHAT_IS_COUNTED), strict=True))
    reasons: Counter[str] = Counter()
    for (reason, _, _), n in counts.items():
        reasons[reason] += n
    rows = counts.total()
    books = PartitionBooks(files.partition.key, rows, 0, rows, 0, rejects=dict(reasons))
    return Rejects(files, books, counts, lake)


def source_of(row: dict[str, Any]) -> str:
    """Where the message came in: its MQTT topic, or the place of the record that could not be read."""
    if row["mqtt_topic"] is not None:
        return str(row["mqtt_topic"])
    if row["source_topic"] is not None:
        return f"{row['source_topic']}/{row['source_partition']}/{row['source_offset']}"
    return f"{row['kafka_topic']}/{row['kafka_partition']}/{row['kafka_offset']}"
