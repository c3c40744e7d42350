"""Writes lakes of a few rows, as landing would: data files, then a manifest for each flush."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from connections.lake import Lake, arrow_schema
from fleet.lake_layout import (
    REJECTED_COLUMNS,
    Partition,
    columns,
    data_file_name,
    partition_of,
    rejected_partition_of,
    units,
)
from fleet.manifest import DataFile, Manifest
from fleet.spec import DeviceType

T0 = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)


def still(moment: datetime) -> Callable[[], datetime]:
    """A clock that stands."""
    return lambda: moment


@dataclass
class SmallLake:
    """`offsets` is the next free offset of each Kafka partition."""

    lake: Lake
    offsets: dict[tuple[str, int], int] = field(default_factory=dict)

    def land(
        self, spec: DeviceType, rows: Iterable[Mapping[str, Any]], kafka_partition: int = 0, **changes: Any
    ) -> None:
        """One flush. A row has device_id, event_time (aware), the metrics it carries, and optionally site and seq."""
        topic, first = spec.topic, self.offsets.get((spec.topic, kafka_partition), 0)
        grouped: dict[Partition, list[dict[str, Any]]] = {}
        for offset, row in enumerate(rows, start=first):
            carried = [m for m in spec.metrics if m in row]
            grouped.setdefault(partition_of(spec, row["event_time"]), []).append(
                {
                    "site": "site-1",
                    **row,
                    "carried": carried,
                    "kafka_topic": topic,
                    "kafka_partition": kafka_partition,
                    "kafka_offset": offset,
                    "kafka_timestamp": row["event_time"],
                }
            )
        schema = arrow_schema(columns(spec), units(spec))
        self.commit(topic, kafka_partition, {p: pa.Table.from_pylist(r, schema) for p, r in grouped.items()},
                    version=spec.version, **changes)  # fmt: skip

    def land_rejects(
        self, rows: Iterable[Mapping[str, Any]], at: datetime = T0, topic: str = "readings.rejected"
    ) -> None:
        """Of other topics: as what could not be read is landed."""
        first = self.offsets.get((topic, 0), 0)
        full = [
            {
                "detail": "told", "system": "weather", "device_type": "weather_station", "version": 1,
                "mqtt_topic": "dt/weather/field/weather_station/1", "received_at": at, "payload": b"{", **row,
                "kafka_topic": topic, "kafka_partition": 0, "kafka_offset": offset, "kafka_timestamp": at,
            }
            for offset, row in enumerate(rows, start=first)
        ]  # fmt: skip
        table = pa.Table.from_pylist(full, arrow_schema(REJECTED_COLUMNS))
        self.commit(topic, 0, {rejected_partition_of(at): table}, version=1)

    def commit(
        self,
        topic: str,
        kafka_partition: int,
        tables: Mapping[Partition, pa.Table],
        version: int,
        heartbeats: int = 0,
        missing: int = 0,
    ) -> None:
        first = self.offsets.get((topic, kafka_partition), 0)
        rows = sum(t.num_rows for t in tables.values())
        last = first + rows + heartbeats + missing - 1
        files = []
        for partition, table in tables.items():
            path = f"{partition.folder(version)}/{data_file_name(topic, kafka_partition, first, last)}"
            size = self.lake.write_table(path, table)
            files.append(DataFile(path, partition.key, version, table.num_rows, size))
        appended = [ms for t in tables.values() for ms in t["kafka_timestamp"].cast(pa.int64()).to_pylist()]
        manifest = Manifest(
            topic, kafka_partition, first, last, rows, 0, heartbeats, 0, missing, min(appended, default=-1),
            max(appended, default=-1), files,
        )  # fmt: skip
        assert self.lake.commit(manifest)
        self.offsets[topic, kafka_partition] = last + 1
