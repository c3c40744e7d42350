"""Alerts that would have fired, had what a replay gave back come in time: the rules of today over the devices' readings
in order of event time, with those that came back and without; what fires with them alone is written down.

Live, the rules passed over those readings: nobody is told, and the log of transitions stays what was said.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import text

from etl.backtest import Devices, arrivals_of, registered
from etl.lake_frames import arrow_tables
from etl.lake_index import LakeIndex, read_index
from etl.run import Job
from etl.window import Window
from fleet.backtest import Arrival, Episode, difference, episodes, transitions
from fleet.lake_layout import Partition
from fleet.spec import DeviceType

WARM_UP = timedelta(days=1)
"""How long before the first that came back the rules begin to look."""


@dataclass(frozen=True)
class Back:
    """Of one type: the devices of the readings that came back, the places on Kafka that these have now, and the time
    that their partitions span."""

    type: str
    devices: frozenset[str]
    places: frozenset[tuple[int, int]]
    window: Window


def write_late_alerts(job: Job, replay_id: str) -> int:
    """How many there are, of readings that have landed. Doing it again changes nothing. Raises Unavailable,
    DataError."""
    index, count = read_index(job.lake), 0
    for back in _came_back(job, replay_id):
        spec = job.catalog.types.get(back.type)
        if spec is None or not spec.alerts:
            continue
        found = late_alerts(job, index, spec, back, registered(job.warehouse, spec))
        rows = [
            {
                "system": spec.system, "type": spec.type, "rule": e.rule, "device": e.device, "site": e.site,
                "severity": e.severity, "starts_at": _moment(e.starts_us), "fired_at": _moment(e.fired_us),
                "resolved_at": None if e.ends_us is None else _moment(e.ends_us), "replay_id": replay_id,
            }
            for e in found
        ]  # fmt: skip
        if rows:
            with job.warehouse.transaction() as c:
                c.execute(
                    text(
                        "INSERT INTO late_alerts (system, type, rule, device_id, site, severity, starts_at, fired_at,"
                        " resolved_at, replay_id) VALUES (:system, :type, :rule, :device, :site, :severity, :starts_at,"
                        " :fired_at, :resolved_at, :replay_id) ON CONFLICT DO NOTHING"
                    ),
                    rows,
                )
        count += len(rows)
    return count


def _came_back(job: Job, replay_id: str) -> Iterator[Back]:
    rows = job.warehouse.rows(
        "SELECT type, device_id, lake_partition, to_partition, to_offset FROM quarantine_replays"
        " WHERE replay_id = :replay_id ORDER BY type",
        replay_id=replay_id,
    )
    for type_name, group in groupby(rows, lambda row: row["type"]):
        some = list(group)
        partitions = [Partition.from_key(row["lake_partition"]) for row in some]
        yield Back(
            type_name, frozenset(row["device_id"] for row in some),
            frozenset((row["to_partition"], row["to_offset"]) for row in some),
            Window(min(p.start for p in partitions), max(p.end for p in partitions)),
        )  # fmt: skip


def late_alerts(job: Job, index: LakeIndex, spec: DeviceType, back: Back, devices: Devices) -> tuple[Episode, ...]:
    rows = _rows(job, index, spec, back)
    if rows is None:
        return ()
    places = set(back.places)
    came_back = pa.array([place in places for place in _places(rows)])
    known = [device for number in range(spec.partitions) for device in devices(number) if device.device in back.devices]

    def told(some: pa.Table) -> list[Episode]:
        return episodes(transitions(0, [spec], known, _in_time(some, spec)))

    return difference(told(rows), told(rows.filter(pc.invert(came_back)))).only_first


def _rows(job: Job, index: LakeIndex, spec: DeviceType, back: Back) -> pa.Table | None:
    """Of the devices, in order of event time."""
    assert back.window.start is not None
    span = Window(back.window.start - WARM_UP, back.window.end)
    mine = pa.array(sorted(back.devices))
    tables = [
        table.filter(pc.is_in(table["device_id"], value_set=mine))
        for files in index.partitions.values()
        if files.partition.type == spec.type and span.has(files.partition)
        for table in arrow_tables(job.lake, spec, files)
    ]
    if not tables:
        return None
    return pa.concat_tables(tables).sort_by([(name, "ascending") for name in ("event_time", "kafka_offset")])


def _places(rows: pa.Table) -> Iterator[tuple[int, int]]:
    return zip(rows["kafka_partition"].to_pylist(), rows["kafka_offset"].to_pylist(), strict=True)


def _in_time(rows: pa.Table, spec: DeviceType) -> Iterator[Arrival]:
    """As if each had come at its event time."""
    for number, arrival in enumerate(arrivals_of(rows, spec)):
        yield arrival._replace(offset=number, append_us=arrival.reading.event_time_us)


def _moment(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
