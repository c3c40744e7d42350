"""History from the lake in its order of arrival, for rules to be tried on: the manifests say that order, file by file.

Of each Kafka partition a manifest holds the readings between two offsets, so that a history of any length is read in
pieces of one flush.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from connections.lake import Lake
from connections.publication import partition_of_key
from connections.registry import Registry
from connections.warehouse import Warehouse
from etl.lake_frames import arrow_tables
from etl.lake_index import by_partition
from etl.window import Window
from fleet.backtest import Arrival, Coverage, Episode, Truth, episodes, transitions
from fleet.control import Device
from fleet.errors import ConfigurationError
from fleet.reading import Reading, digest_of, encode_reading
from fleet.registry import milliseconds
from fleet.spec import DeviceType, RuledType

Devices = Callable[[int], Iterable[Device]]
"""Kafka partition → what the registry says of the devices whose readings go there."""
LATE = timedelta(days=1)
"""Readings that arrive later than this after their time are left out: no rule looks at them."""


@dataclass(frozen=True)
class History:
    """Of one rule set: alerts that fired within the window, in order; how many readings it saw, and from which share of
    the window each device has some."""

    episodes: tuple[Episode, ...]
    readings: int
    coverage: dict[str, float]


def backtest(
    lake: Lake, spec: DeviceType, rules: RuledType, devices: Devices, window: Window, warm_up: timedelta
) -> History:
    """`spec` is the type as the lake has it, `rules` what is tried. Rules see readings from `warm_up` before the window
    on; alerts that fired before it are not told of. Raises DataError."""
    assert window.start is not None
    assert window.end is not None
    begin, end = _micros(window.start), _micros(window.end)
    allowed = rules.stale_after or (timedelta(0) if rules.cadence == "event" else 3 * rules.cadence)
    coverage = Coverage(begin, end, allowed // timedelta(microseconds=1))
    found: list[Episode] = []
    count = 0

    def seen(arrivals: Iterator[Arrival]) -> Iterator[Arrival]:
        nonlocal count
        for arrival in arrivals:
            count += 1
            coverage.take(arrival.reading.device_id, arrival.reading.event_time_us)
            yield arrival

    for topic, partition in lake.landed_partitions():
        if topic == spec.topic:
            arrivals = seen(read_arrivals(lake, spec, partition, window.start - warm_up, window.end))
            found += episodes(transitions(partition, [rules], devices(partition), arrivals, end))
    inside = [e for e in found if begin <= e.fired_us < end]
    return History(tuple(sorted(inside, key=lambda e: e.fired_us)), count, coverage.shares())


def read_arrivals(
    lake: Lake, spec: DeviceType, kafka_partition: int, start: datetime, end: datetime
) -> Iterator[Arrival]:
    """The type's readings that were appended from `start` up to `end`, in order of offset. Raises DataError."""
    low, high = _micros(start), _micros(end)
    span = Window(start - LATE, end + timedelta(hours=1))
    for name in lake.manifest_names(spec.topic, kafka_partition):
        manifest = lake.manifest(name)
        wanted = [
            files
            for files in by_partition(manifest.files).values()
            if files.partition.type == spec.type and span.has(files.partition)
        ]
        tables = [table for files in wanted for table in arrow_tables(lake, spec, files)]
        if not tables:
            continue
        rows = pa.concat_tables(tables).sort_by("kafka_offset")
        for arrival in arrivals_of(rows, spec):
            if low <= arrival.append_us < high:
                yield arrival


def arrivals_of(rows: pa.Table, spec: DeviceType) -> Iterator[Arrival]:
    """In the order of the rows, which have the columns of the type's data files."""

    def ints(name: str) -> list[Any]:
        return rows[name].cast(pa.int64()).to_pylist()

    texts = (rows["device_id"].to_pylist(), rows["site"].to_pylist(), rows["carried"].to_pylist())
    values = {metric: rows[metric].to_pylist() for metric in spec.metrics}
    columns = (*texts, ints("event_time"), rows["seq"].to_pylist(), ints("kafka_offset"), ints("kafka_timestamp"))
    for place, (device, site, carried, event_us, seq, offset, append_ms) in enumerate(zip(*columns, strict=True)):
        said = {metric: values[metric][place] for metric in carried}
        reading = Reading(device, spec.type, site, event_us, said, seq, spec.version)
        digest = digest_of(encode_reading(reading)) if seq is None else None
        yield Arrival(reading, offset, append_ms * 1000, digest)


def registered(warehouse: Warehouse, spec: DeviceType) -> Devices:
    """What the registry says now of the type's devices in service."""
    registry = Registry(warehouse)
    zones = {place.site: place.time_zone for place in registry.sites() if place.system == spec.system}
    by_partition: dict[int, list[Device]] = {}
    for entry in registry.devices(spec.type, retired=False):
        key, at = entry.site if spec.partition_by == "site" else entry.device_id, milliseconds(entry.registered_at)
        device = Device(
            revision=0, at=at, type=entry.type, device=entry.device_id, site=entry.site, registered_at=at,
            time_zone=zones.get(entry.site, "UTC"), room=entry.room, params=entry.params,
        )  # fmt: skip
        by_partition.setdefault(partition_of_key(key, list(range(spec.partitions))), []).append(device)
    return lambda partition: by_partition.get(partition, ())


def read_truths(path: Path) -> list[Truth]:
    """JSON lines of device, begin, end (RFC 3339) and, if it is of one rule alone, rule. Raises ConfigurationError with
    file and line."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
            begin, end = (_micros(datetime.fromisoformat(said[name])) for name in ("begin", "end"))
            found.append(Truth(str(said["device"]), begin, end, said.get("rule")))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"{path}:{number}: expected such as"
                ' {"device": "7", "begin": "2026-11-22T03:00:00Z", "end": "2026-11-22T03:05:00Z"}, not'
                f" {line[:80]!r} ({error!r})"
            ) from None
    return found


def _micros(moment: datetime) -> int:
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
