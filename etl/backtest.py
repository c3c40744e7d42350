"""History from the lake in its order of arrival, for rules to be tried on: the manifests say that order, file by file.

Of each Kafka partition a manifest holds the readings between two offsets, so that a history of any length is read in
pieces of one flush. Kafka's partitions know nothing of each other: of a long history each is a Spark task.
"""

import pickle
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZIP_DEFLATED, ZipFile

import msgspec
import pyarrow as pa

from connections.lake import Lake
from connections.publication import partition_of_key
from connections.registry import Registry
from connections.spark import few_rows_at_once, first_line, is_gone
from connections.warehouse import Warehouse
from etl import backtest_task
from etl.backtest_partition import History, Span, Work, history_of
from etl.lake_frames import check_there, file_frame
from etl.landed_files import LandedFiles
from etl.landed_log import LandedLog
from etl.window import Window, micros
from fleet.catalog import Catalog
from fleet.compaction import encode_compaction
from fleet.control import Control, Device, Retire, key_of
from fleet.errors import ConfigurationError, DataError
from fleet.lake_layout import compaction_path
from fleet.manifest import Manifest
from fleet.registry import milliseconds
from fleet.ruleset import RuleSet
from fleet.spec import DeviceType

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LONG = 1_000_000
"""Readings. With fewer, what Spark takes to begin is more than what a second core saves."""
ROW = pa.schema([("task", pa.int32()), ("file", pa.string()), ("content", pa.binary())])
"""What a task is given."""


@dataclass(frozen=True)
class Past:
    """What a backtest looks at. `types`: as the lake has them, the one whose rules are tried first; then those that its
    site functions look at."""

    lake: Lake
    types: tuple[DeviceType, ...]
    registry: Mapping[int, list[Control]]
    _manifests: dict[Span, dict[int, tuple[Manifest, ...]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def of(cls, lake: Lake, warehouse: Warehouse, catalog: Catalog, spec: DeviceType, *rules: DeviceType) -> "Past":
        types = types_for(catalog, spec, *rules)
        return cls(lake, types, registered(warehouse, types))

    def manifests(self, span: Span) -> Mapping[int, tuple[Manifest, ...]]:
        """Kafka partition → those with files of the types, and with these alone. What lands after they were first asked
        for is not among them: rules that are compared see the same."""
        if span not in self._manifests:
            topic = self.types[0].topic
            numbers = [number for landed, number in self.lake.landed_partitions() if landed == topic]
            self._manifests[span] = {number: tuple(self._landed(topic, number, span)) for number in numbers}
        return self._manifests[span]

    def _landed(self, topic: str, kafka_partition: int, span: Span) -> Iterator[Manifest]:
        landed = LandedLog(self.lake, topic, kafka_partition)
        first = max(0, landed.first_at(span.warm_up // 1000) - 1)  # it may end after the warm-up's begin
        end = landed.first_at(-(-span.end // 1000))
        keys = tuple(f"{spec.system}/{spec.type}/" for spec in self.types)
        for manifest in landed.manifests(landed.begin(first), landed.begin(end)):
            files = [file for file in manifest.files if file.partition.startswith(keys)]
            if files and manifest.last_append_ms * 1000 >= span.warm_up:
                yield msgspec.structs.replace(manifest, files=files)


def types_for(catalog: Catalog, spec: DeviceType, *rules: DeviceType) -> tuple[DeviceType, ...]:
    """The type, then the others without rules that site functions in `rules` look at."""
    looked_at = {name for tried in rules for rule in RuleSet(tried).rules for name, _ in rule.looked_at}
    others = (catalog.type(name) for name in sorted(looked_at - {spec.type}))
    return (spec, *(other.model_copy(update={"alerts": []}) for other in others))


def backtest(
    past: Past, rules: DeviceType, window: Window, warm_up: timedelta, with_changes: bool = False,
    spark: Callable[[], AbstractContextManager["SparkSession"]] | None = None,
) -> History:  # fmt: skip
    """Rules see what arrived from `warm_up` before the window up to its end. Each alert is held in memory, and each of
    its changes where `with_changes`. `spark` opens a session for what is LONG; without it all is done in this process.
    Raises DataError, ConfigurationError where Spark's workers lack what they need, and what `spark` does."""
    assert window.start is not None
    assert window.end is not None
    begin = micros(window.start)
    span = Span(begin - warm_up // timedelta(microseconds=1), begin, micros(window.end))
    work = [
        Work(number, past.types, rules, tuple(past.registry.get(number, ())), manifests, span, with_changes)
        for number, manifests in past.manifests(span).items()
    ]
    if spark is None or sum(file.rows for one in work for file in one.files) < LONG:
        parts = [history_of(past.lake, one) for one in work]
    else:
        with spark() as session:
            parts = _in_tasks(session, past.lake, work)
    in_service = _in_service(chain.from_iterable(past.registry.values()), past.types[0].type, span)
    coverage = dict.fromkeys(in_service, 0.0)  # those of which nothing came, too
    for part in parts:
        for device, share in part.coverage.items():  # one that moved to another site is in two
            coverage[device] = min(1.0, coverage.get(device, 0.0) + share)
    return History(
        tuple(sorted((e for part in parts for e in part.episodes), key=lambda e: e.fired_us)),
        sum(part.readings for part in parts), coverage,
        tuple(sorted((c for part in parts for c in part.changes), key=lambda c: c.at_us)),
    )  # fmt: skip


def _in_tasks(spark: "SparkSession", lake: Lake, work: Sequence[Work]) -> list[History]:
    """Of each in its own Spark task, to which Spark brings the files. Raises DataError, ConfigurationError."""
    from pyspark import cloudpickle
    from pyspark.errors import PySparkException
    from pyspark.sql import functions as F

    cloudpickle.register_pickle_by_value(backtest_task)
    wanted, work_of = _brought(lake, work)
    each = pa.Table.from_pylist([{"task": task, "file": "", "content": b""} for task in range(len(work))], ROW)
    frame = (
        file_frame(spark, lake, wanted)
        .select(*ROW.names)
        .unionByName(spark.createDataFrame(each))  # so that a task has a row though it has no file
        .repartitionById(len(work), F.col("task"))
        .mapInArrow(partial(backtest_task.told, lake.uri, _code(), work_of), backtest_task.TOLD)
    )
    try:
        with few_rows_at_once(spark):
            rows = frame.toArrow().to_pylist()
    except PySparkException as error:
        if is_gone(error):
            raise
        raise DataError(f"Spark cannot evaluate it: {first_line(error)}") from error
    pieces: list[list[bytes]] = [[] for _ in work]
    for row in rows:
        if row["kind"] == backtest_task.LACKING:
            raise ConfigurationError(
                f"Spark's Python cannot run rules: {row['piece'].decode()}; it must have the packages that Weir has:"
                f" {', '.join(backtest_task.REQUIRED)}"
            )
        if row["kind"] == backtest_task.DAMAGED:
            raise DataError(row["piece"].decode())
        pieces[row["task"]].append(row["piece"])
    return [msgspec.msgpack.decode(zlib.decompress(b"".join(answer)), type=History) for answer in pieces]


def _brought(lake: Lake, work: Sequence[Work]) -> tuple[pa.Table, list[bytes]]:
    """Which task is to have which data file; and what else each is to know. Raises DataError."""
    landed = LandedFiles(lake)
    wanted: dict[tuple[int, str], None] = {}
    work_of = []
    for task, one in enumerate(work):
        records: dict[str, bytes] = {}
        for file in one.files:
            path, record = landed.source(file)
            wanted[task, path] = None
            if record is not None:
                name = compaction_path(file.partition, file.version, record.number)
                records[name] = records.get(name) or encode_compaction(record)
        work_of.append(zlib.compress(pickle.dumps((one, records))))
    check_there(lake, (path for _, path in wanted))
    tasks, files = zip(*wanted, strict=True)
    return pa.table([pa.array(tasks, pa.int32()), pa.array(files)], ["task", "file"]), work_of


def _code() -> bytes:
    """The packages that a task runs, as a zip that Python imports from."""
    root, sink = Path(__file__).parent.parent, BytesIO()
    with ZipFile(sink, "w", ZIP_DEFLATED, strict_timestamps=False) as archive:
        for package in backtest_task.PACKAGES:
            for path in sorted((root / package).rglob("*.py")):
                archive.write(path, path.relative_to(root))
    return sink.getvalue()


def _in_service(registry: Iterable[Control], type_name: str, span: Span) -> set[str]:
    """Devices of the type that were in service for a part of the window."""
    found = set()
    for record in registry:
        if not isinstance(record, Device | Retire) or record.type != type_name:
            continue
        if isinstance(record, Device) and record.at * 1000 < span.end:
            found.add(record.device)
        if isinstance(record, Retire) and record.at * 1000 <= span.begin:
            found.discard(record.device)
    return found


def registered(warehouse: Warehouse, types: Iterable[DeviceType]) -> dict[int, list[Control]]:
    """What the registry says now of devices of the types: Kafka partition of their readings → in order of time."""
    registry = Registry(warehouse)
    zones = {(place.system, place.site): place.time_zone for place in registry.sites()}
    found: dict[int, list[Control]] = {}
    for spec in types:
        for entry in registry.devices(spec.type):
            at = milliseconds(entry.registered_at)
            device = Device(
                revision=0, at=at, type=entry.type, device=entry.device_id, site=entry.site, registered_at=at,
                time_zone=zones[entry.system, entry.site], room=entry.room, params=entry.params,
            )  # fmt: skip
            key = key_of(spec, entry.device_id, entry.site)
            records = found.setdefault(partition_of_key(key, list(range(spec.partitions))), [])
            records.append(device)
            if entry.retired_at is not None:
                at = milliseconds(entry.retired_at)
                records.append(Retire(revision=0, at=at, type=entry.type, device=entry.device_id))
    return {partition: sorted(records, key=lambda r: r.at) for partition, records in found.items()}
