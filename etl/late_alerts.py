"""Alerts that would have fired, had what comes back been good when it came: the rules of today over the
devices' readings in order of event time, with what came back and without; what fires with it alone is written down.

Live, the rules passed over it: nobody is told, and the log of transitions stays what was said.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from heapq import merge
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import text

from connections.warehouse import Warehouse
from etl.backtest import registered, types_for
from etl.lake_frames import arrow_tables
from etl.lake_index import LakeIndex, PartitionFiles, read_index
from etl.landed_log import arrivals_of
from etl.quarantine import ACCEPTED, limits
from etl.run import Job
from fleet.backtest import Arrival, Episode, difference, episodes, transitions
from fleet.errors import DataError
from fleet.lake_layout import Partition
from fleet.reading import to_datetime
from fleet.spec import DeviceType

AROUND = timedelta(days=1)
"""How long before and after what came back the rules look."""
GOOD_VALUES = (
    f"FROM quarantine q{ACCEPTED} WHERE q.what = 'value' AND good.type IS NOT NULL AND q.partition = ANY(:keys)"
)
Place = tuple[int, int]
"""(Kafka partition, offset)"""


@dataclass
class Back:
    """What came back of one type: whose, and in which partitions of the lake. `letters`: where those that were dead
    letters stand now."""

    devices: set[str] = field(default_factory=set)
    partitions: set[Partition] = field(default_factory=set)
    letters: set[Place] = field(default_factory=set)


def write_late_alerts(job: Job, replay_id: str, partitions: Iterable[str] = ()) -> int:
    """How many this replay has found: of dead letters that have landed, of whatever replay, and were not examined yet;
    and of the values of `partitions` that are still held back there and are good now. These come back by any run over
    their partition, once the spec is mended: to be asked before it processes them. Doing it again changes nothing.
    Raises Unavailable, DataError where the lake is damaged near by; that need not keep a run from processing them."""
    keys, damaged = sorted(partitions), list[str]()
    came_back = _came_back(job, keys)
    index = read_index(job.lake) if came_back else LakeIndex({})
    for type_name, back in came_back.items():
        if (spec := job.catalog.types.get(type_name)) is not None:
            try:
                _examine(job, index, spec, back, replay_id, keys)
            except DataError as error:  # the other types are well
                damaged.append(f"{type_name}: {error}")
    if damaged:
        raise DataError("what would have fired, had it been good when it came, is not known:\n" + "\n".join(damaged))
    (row,) = job.warehouse.rows("SELECT count(*) AS n FROM late_alerts WHERE replay_id = :id", id=replay_id)
    return int(row["n"])


def _came_back(job: Job, keys: list[str]) -> dict[str, Back]:
    found: dict[str, Back] = {}
    for row in job.warehouse.rows(
        "SELECT type, device_id, lake_key AS key, to_partition, to_offset || more_offsets AS offsets"
        " FROM quarantine_replays, unnest(lake_partition || more_partitions) AS lake_key WHERE examined_at IS NULL"
    ):
        _add(found, row).letters.update((row["to_partition"], offset) for offset in row["offsets"])
    for row in job.warehouse.rows(
        f"SELECT DISTINCT q.type, q.device_id, q.partition AS key {GOOD_VALUES}", keys=keys, **limits(job.catalog)
    ):
        _add(found, row)
    return found


def _add(found: dict[str, Back], row: Mapping[str, Any]) -> Back:
    back = found.setdefault(row["type"], Back())
    back.devices.add(row["device_id"])
    back.partitions.add(Partition.from_key(row["key"]))
    return back


def _examine(job: Job, index: LakeIndex, spec: DeviceType, back: Back, replay_id: str, keys: list[str]) -> None:
    types = types_for(job.catalog, spec, spec)
    rows = Rows(job, index, types, back, keys)
    registry = [record for records in registered(job.warehouse, types).values() for record in records]
    if not rows.of_all:
        registry = [record for record in registry if getattr(record, "device", None) in back.devices]

    def told(came_back: bool) -> list[Episode]:
        return episodes(transitions(0, types, registry, rows.in_time(came_back)))

    late = difference(told(True), told(False)).only_first
    _write(job.warehouse, spec, late, rows.landed, replay_id)


class Rows:
    """Readings of the types in order of event time, a partition of the lake at a time: of the devices of what came
    back, or of all (`of_all`) where rules may look at whole sites."""

    def __init__(self, job: Job, index: LakeIndex, types: tuple[DeviceType, ...], back: Back, keys: list[str]):
        self._job, self._types, self._back, self._keys = job, types, back, keys
        self.of_all = types[0].partition_by == "site"
        self._mine = pa.array(sorted(back.devices))
        spans = [(p.start - AROUND, p.end + AROUND) for p in back.partitions]
        near = [
            f for f in index.partitions.values()
            if any(f.partition.end > begin and f.partition.start < end for begin, end in spans)
        ]  # fmt: skip
        self._files = [[f for f in near if f.partition.type == spec.type] for spec in types]
        self.landed: set[Place] = set()
        """Those of `back.letters` that are in the lake."""

    def in_time(self, came_back: bool) -> Iterator[Arrival]:
        """As if each had come at its event time; without what came back unless `came_back`."""
        streams = [
            chain.from_iterable(self._of(spec, files, came_back) for files in sorted(some, key=lambda f: f.partition))
            for spec, some in zip(self._types, self._files, strict=True)
        ]
        for number, arrival in enumerate(merge(*streams, key=lambda a: a.reading.event_time_us)):
            yield arrival._replace(offset=number, append_us=arrival.reading.event_time_us)

    def _of(self, spec: DeviceType, files: PartitionFiles, came_back: bool) -> Iterator[Arrival]:
        table = pa.concat_tables(arrow_tables(self._job.lake, spec, files))
        if not self.of_all:
            table = table.filter(pc.is_in(table["device_id"], value_set=self._mine))
        table = table.sort_by([("event_time", "ascending"), ("kafka_offset", "ascending")])
        if spec is self._types[0] and files.partition in self._back.partitions:
            places = list(zip(table["kafka_partition"].to_pylist(), table["kafka_offset"].to_pylist(), strict=True))
            self.landed |= self._back.letters.intersection(places)
            if not came_back:
                table = self._as_it_was(table, places, files.partition.key)
        yield from arrivals_of(table, spec.type, spec.version)

    def _as_it_was(self, table: pa.Table, places: list[Place], key: str) -> pa.Table:
        """Without the dead letters that came back, and with null for the values that do."""
        bad: dict[str, set[Place]] = {}
        for row in self._job.warehouse.rows(
            f"SELECT q.metric, q.kafka_partition, q.kafka_offset {GOOD_VALUES}",
            keys=[key] if key in self._keys else [], **limits(self._job.catalog),
        ):  # fmt: skip
            bad.setdefault(row["metric"], set()).add((row["kafka_partition"], row["kafka_offset"]))
        for metric, held in bad.items():
            column = pc.if_else(_are_in(held, places), None, table[metric])
            table = table.set_column(table.schema.get_field_index(metric), metric, column)
        return table.filter(pc.invert(_are_in(self._back.letters, places)))


def _are_in(some: Collection[Place], places: list[Place]) -> pa.Array:
    return pa.array([place in some for place in places], pa.bool_())


def _write(
    warehouse: Warehouse, spec: DeviceType, late: Iterable[Episode], landed: Collection[Place], replay_id: str
) -> None:
    rows = [
        {
            "system": spec.system, "type": spec.type, "rule": e.rule, "device": e.device, "site": e.site,
            "severity": e.severity, "starts_at": to_datetime(e.starts_us), "fired_at": to_datetime(e.fired_us),
            "resolved_at": None if e.ends_us is None else to_datetime(e.ends_us), "replay_id": replay_id,
        }
        for e in late
    ]  # fmt: skip
    with warehouse.transaction() as c:
        if rows:
            c.execute(
                text(
                    "INSERT INTO late_alerts (system, type, rule, device_id, site, severity, starts_at, fired_at,"
                    " resolved_at, replay_id) VALUES (:system, :type, :rule, :device, :site, :severity, :starts_at,"
                    " :fired_at, :resolved_at, :replay_id) ON CONFLICT DO NOTHING"
                ),
                rows,
            )
        c.execute(
            text(
                "UPDATE quarantine_replays r SET examined_at = now() FROM unnest(CAST(:partitions AS int[]),"
                " CAST(:offsets AS bigint[])) AS landed(partition, place) WHERE r.to_topic = :topic"
                " AND r.to_partition = landed.partition AND r.to_offset = landed.place"
            ),
            {"topic": spec.topic, "partitions": [p for p, _ in landed], "offsets": [o for _, o in landed]},
        )
