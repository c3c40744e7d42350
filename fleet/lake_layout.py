"""Where things lie in the lake, and what columns they have. All paths are relative to LAKE_URI."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from fleet.channels import TRANSITIONS
from fleet.spec import DeviceType

Grain = Literal["hour", "day", "month"]
ColumnType = Literal["string", "int32", "int64", "double", "timestamp_us", "timestamp_ms", "strings", "binary", "bool"]

REJECTED = "rejected"
"""System and type of the folder with dead letters, which has one folder for each hour in which they were appended."""

ALERTS = "alerts"
"""The folder with the transitions of alerts; as a type they go by their topic's name, which no device type can have."""

IDENTITY_COLUMNS: dict[str, ColumnType] = {
    "device_id": "string",
    "site": "string",
    "event_time": "timestamp_us",
    "seq": "int64",
    "carried": "strings",
}
SOURCE_COLUMNS: dict[str, ColumnType] = {
    "kafka_topic": "string",
    "kafka_partition": "int32",
    "kafka_offset": "int64",
    "kafka_timestamp": "timestamp_ms",
}
REJECTED_COLUMNS: dict[str, ColumnType] = {
    "reason": "string",
    "detail": "string",
    "system": "string",
    "device_type": "string",
    "version": "int32",
    "mqtt_topic": "string",
    "source_topic": "string",
    "source_partition": "int32",
    "source_offset": "int64",
    "received_at": "timestamp_ms",
    "payload": "binary",
    **SOURCE_COLUMNS,
}
JSON_COLUMNS = ("annotations", "labels", "values")
TRANSITION_COLUMNS: dict[str, ColumnType] = {
    "transition_id": "string",
    "alert_id": "string",
    "number": "int32",
    "type": "string",
    "rule": "string",
    "device_id": "string",
    "site": "string",
    "to": "string",
    "severity": "string",
    "reason": "string",
    "event_time": "timestamp_us",
    "detected_at": "timestamp_us",
    "since": "timestamp_us",
    "starts_at": "timestamp_us",
    "title": "string",
    **dict.fromkeys(JSON_COLUMNS, "string"),
    "spec_version": "int32",
    "flapping": "bool",
    "capped": "bool",
    "source_partition": "int32",
    "source_offset": "int64",
    **SOURCE_COLUMNS,
}
"""As in the table alert_transitions; the folder has the system. JSON_COLUMNS are JSON objects as text."""


def columns(spec: DeviceType) -> dict[str, ColumnType]:
    """Of a data file of this type: who, when, what it carried, one double a metric, where it stood on Kafka."""
    metrics: dict[str, ColumnType] = dict.fromkeys(spec.metrics, "double")
    return {**IDENTITY_COLUMNS, **metrics, **SOURCE_COLUMNS}


def units(spec: DeviceType) -> dict[str, str]:
    """Of the columns that have one. A file of this version of the spec says them, so that no two are mixed later."""
    return {name: metric.unit for name, metric in spec.metrics.items()}


@dataclass(frozen=True, order=True)
class Partition:
    """What is processed, replaced and accounted for as one: a type's readings of one interval, all spec versions."""

    system: str
    type: str
    start: datetime
    grain: Grain

    @property
    def end(self) -> datetime:
        """The first moment after it."""
        if self.grain == "month":
            return (self.start + timedelta(days=32)).replace(day=1)
        return self.start + (timedelta(hours=1) if self.grain == "hour" else timedelta(days=1))

    @property
    def key(self) -> str:
        """`weather/weather_station/2026-11-22T03`; days and months end earlier."""
        return f"{self.system}/{self.type}/{self.start.strftime(KEY_FORMATS[self.grain])}"

    @classmethod
    def from_key(cls, key: str) -> "Partition":
        """Raises ValueError where the text is not the key of a partition."""
        system, type_name, start = key.split("/")
        for grain, length in (("hour", 13), ("day", 10), ("month", 7)):
            if len(start) == length:
                moment = datetime.strptime(start, KEY_FORMATS[grain]).replace(tzinfo=UTC)  # type: ignore[index]
                return cls(system, type_name, moment, grain)  # type: ignore[arg-type]
        raise ValueError(f"{key!r} is not the key of a partition")

    def folder(self, version: int) -> str:
        """`raw/system=…/type=…/v=1/date=2026-11-22/hour=03`; a month's date is its first day."""
        hour = f"/hour={self.start:%H}" if self.grain == "hour" else ""
        if self.type == REJECTED:
            return f"{REJECTED}/date={self.start:%Y-%m-%d}{hour}"
        if self.type == TRANSITIONS:
            return f"{ALERTS}/system={self.system}/date={self.start:%Y-%m-%d}"
        return f"raw/system={self.system}/type={self.type}/v={version}/date={self.start:%Y-%m-%d}{hour}"


KEY_FORMATS: dict[Grain, str] = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m"}


def floor(moment: datetime, grain: Grain) -> datetime:
    start = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if grain != "hour":
        start = start.replace(hour=0)
    return start.replace(day=1) if grain == "month" else start


def partition_of(spec: DeviceType, event_time: datetime) -> Partition:
    return Partition(spec.system, spec.type, floor(event_time, spec.folder_grain), spec.folder_grain)


def rejected_partition_of(append_time: datetime) -> Partition:
    return Partition(REJECTED, REJECTED, floor(append_time, "hour"), "hour")


def transitions_partition_of(system: str, event_time: datetime) -> Partition:
    return Partition(system, TRANSITIONS, floor(event_time, "day"), "day")


def data_file_name(topic: str, kafka_partition: int, first_offset: int, last_offset: int) -> str:
    return f"{topic}-{kafka_partition}-{first_offset}-{last_offset}.parquet"


DATA_FILE = re.compile(r"(?P<topic>[^/]+)-(?P<partition>\d+)-(?P<first>\d+)-(?P<last>\d+)\.parquet$")


class Place(NamedTuple):
    """Where a landed file's records stood: between these offsets of a Kafka partition, both among them."""

    topic: str
    partition: int
    first: int
    last: int


def place_of(path: str) -> Place:
    """Raises ValueError where the file is none that landed."""
    match = DATA_FILE.match(path.rpartition("/")[2])
    if match is None:
        raise ValueError(f"{path} is no name of a file that landed")
    return Place(match["topic"], int(match["partition"]), int(match["first"]), int(match["last"]))


LANDED = "_landed"


def manifest_folder(topic: str, kafka_partition: int) -> str:
    return f"{LANDED}/{topic}/{kafka_partition}"


def manifest_path(topic: str, kafka_partition: int, first_offset: int) -> str:
    """Twenty digits, so that names sort by offset."""
    return f"{manifest_folder(topic, kafka_partition)}/{first_offset:020d}.json"


MANIFEST_PATH = re.compile(rf"{LANDED}/(?P<topic>[^/]+)/(?P<partition>\d+)/(?P<first>\d{{20}})\.json$")

COMPACTED = "_compacted"
COMPACTED_FILE = re.compile(r"compacted-(?P<written_ms>\d{13,})-[0-9a-f]{8}\.parquet$")
"""Beside the files that landed, and no name that landing gives."""


def compacted_file_name(written_ms: int, unlike: str) -> str:
    """Two that are at work on the same partition write files of their own: `unlike` is 8 random hexadecimal digits."""
    return f"compacted-{written_ms}-{unlike}.parquet"


def compaction_folder(system: str, type_name: str) -> str:
    return f"{COMPACTED}/{system}/{type_name}"


def compaction_path(partition: str, version: int, number: int) -> str:
    """Of the record with that number of a partition, by its key. Names sort by number."""
    system, type_name, start = partition.split("/")
    return f"{compaction_folder(system, type_name)}/{start}.v{version}.{number:08d}.json"


COMPACTION_NAME = re.compile(r"(?P<start>[^./]+)\.v(?P<version>\d+)\.(?P<number>\d{8})\.json$")
