"""History from the lake in its order of arrival, for rules to be tried on: the manifests say that order, file by file.

Of each Kafka partition a manifest holds the readings between two offsets, so that a history of any length is read in
pieces of one flush. Kafka's partitions know nothing of each other: a long history takes as many processes as there are
processors.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from heapq import merge
from itertools import chain, starmap
from multiprocessing import get_context

import pyarrow as pa

from connections.lake import Lake
from connections.publication import partition_of_key
from connections.registry import Registry
from connections.warehouse import Warehouse
from etl.lake_frames import arrow_tables
from etl.lake_index import by_partition
from etl.landed_files import LandedFiles
from etl.landed_log import LandedLog, arrivals_of
from etl.window import Window, micros
from fleet.backtest import Arrival, Change, Coverage, Episode, episodes, transitions
from fleet.catalog import Catalog
from fleet.control import Control, Device, Retire, key_of
from fleet.manifest import Manifest
from fleet.registry import milliseconds
from fleet.ruleset import RuleSet
from fleet.spec import DeviceType
from fleet.transition import Transition

PARALLEL_ROWS = 1_000_000
"""Beyond so many readings each Kafka partition has a process; fewer are through before those have started."""


@dataclass(frozen=True)
class History:
    """Of one rule set: alerts that fired within the window, in order; how many readings arrived within it, and from
    which share of it each device has some, of those that sent any or were in service."""

    episodes: tuple[Episode, ...]
    readings: int
    coverage: dict[str, float]
    changes: tuple[Change, ...] = ()
    """Of alerts within the window, in order; only where they were asked for."""


@dataclass(frozen=True)
class Past:
    """What a backtest looks at. `types`: as the lake has them, the one whose rules are tried first; then those that its
    site functions look at."""

    lake: Lake
    types: tuple[DeviceType, ...]
    registry: Mapping[int, list[Control]]

    @classmethod
    def of(cls, lake: Lake, warehouse: Warehouse, catalog: Catalog, spec: DeviceType, *rules: DeviceType) -> "Past":
        types = types_for(catalog, spec, *rules)
        return cls(lake, types, registered(warehouse, types))

    def of_partition(self, number: int) -> "Past":
        """Of one Kafka partition, for a process of its own."""
        return replace(self, registry={number: self.registry.get(number, [])})


def types_for(catalog: Catalog, spec: DeviceType, *rules: DeviceType) -> tuple[DeviceType, ...]:
    """The type, then the others without rules that site functions in `rules` look at."""
    looked_at = {name for tried in rules for rule in RuleSet(tried).rules for name, _ in rule.looked_at}
    others = (catalog.type(name) for name in sorted(looked_at - {spec.type}))
    return (spec, *(other.model_copy(update={"alerts": []}) for other in others))


@dataclass(frozen=True)
class Span:
    """In microseconds: rules see what was appended from `warm_up` up to `end`; told is what fired from `begin` on."""

    warm_up: int
    begin: int
    end: int


def backtest(past: Past, rules: DeviceType, window: Window, warm_up: timedelta, with_changes: bool = False) -> History:
    """Rules see what arrived from `warm_up` before the window up to its end. Each alert is held in memory, and each of
    its changes where `with_changes`. Raises DataError."""
    assert window.start is not None
    assert window.end is not None
    begin = micros(window.start)
    span = Span(begin - warm_up // timedelta(microseconds=1), begin, micros(window.end))
    topic = past.types[0].topic
    manifests = {
        number: list(_manifests(past.lake, topic, number, span))
        for landed_topic, number in past.lake.landed_partitions()
        if landed_topic == topic
    }
    work = [(past.of_partition(n), rules, n, found, span, with_changes) for n, found in manifests.items()]
    if sum(m.rows for found in manifests.values() for m in found) < PARALLEL_ROWS:
        parts = list(starmap(_of_partition, work))
    else:
        with get_context("spawn").Pool() as pool:
            parts = pool.starmap(_of_partition, work, chunksize=1)
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


def _manifests(lake: Lake, topic: str, kafka_partition: int, span: Span) -> Iterator[Manifest]:
    landed = LandedLog(lake, topic, kafka_partition)
    first = max(0, landed.first_at(span.warm_up // 1000) - 1)  # it may end after the warm-up's begin
    end = landed.first_at(-(-span.end // 1000))
    for manifest in landed.manifests(landed.begin(first), landed.begin(end)):
        if manifest.last_append_ms * 1000 >= span.warm_up:
            yield manifest


def _of_partition(
    past: Past, rules: DeviceType, kafka_partition: int, found: list[Manifest], span: Span, with_changes: bool
) -> History:
    spec, *others = past.types
    allowed = rules.silent_after or timedelta(0)
    coverage = Coverage(span.begin, span.end, allowed // timedelta(microseconds=1))
    count = 0

    def seen() -> Iterator[Arrival]:
        nonlocal count
        for arrival in _arrivals(past, found, span):
            if arrival.reading.device_type == spec.type:
                count += arrival.append_us >= span.begin
                coverage.take(arrival.reading.device_id, arrival.reading.event_time_us)
            yield arrival

    registry = past.registry.get(kafka_partition, ())
    changes: list[Change] = []

    def said() -> Iterator[Transition]:
        for t in transitions(kafka_partition, [rules, *others], registry, seen(), span.end):
            if with_changes and span.begin <= t.event_time_us < span.end:
                changes.append(Change(t.rule, t.device, t.site, t.to, t.severity, t.event_time_us))
            yield t

    inside = tuple(e for e in episodes(said()) if span.begin <= e.fired_us < span.end)
    return History(inside, count, coverage.shares(), tuple(changes))


def _arrivals(past: Past, manifests: Iterable[Manifest], span: Span) -> Iterator[Arrival]:
    """Of one Kafka partition, in order of offset, but for what rules pass over. Raises DataError."""
    landed = LandedFiles(past.lake)
    for manifest in manifests:
        streams, passed_over = [], manifest.passed_over
        for spec in past.types:
            of_type = [f for f in by_partition(manifest.files).values() if f.partition.type == spec.type]
            tables = [table for files in of_type for table in arrow_tables(past.lake, spec, files, read=landed.table)]
            if tables:
                streams.append(arrivals_of(pa.concat_tables(tables).sort_by("kafka_offset"), spec.type, spec.version))
        for arrival in merge(*streams, key=lambda a: a.offset):
            if span.warm_up <= arrival.append_us < span.end and arrival.offset not in passed_over:
                yield arrival


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
