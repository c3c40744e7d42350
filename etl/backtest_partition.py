"""What rules say of the history of one Kafka partition: the part of a backtest that knows nothing of the others."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from heapq import merge
from itertools import chain

import pyarrow as pa

from connections.lake import Lake
from etl.lake_frames import arrow_tables
from etl.lake_index import by_partition
from etl.landed_files import LandedFiles
from etl.landed_log import arrivals_of
from fleet.backtest import Arrival, Change, Coverage, Episode, episodes, transitions
from fleet.control import Control
from fleet.manifest import DataFile, Manifest
from fleet.spec import DeviceType
from fleet.transition import Transition


@dataclass(frozen=True)
class Span:
    """In microseconds: rules see what was appended from `warm_up` up to `end`; told is what fired from `begin` on."""

    warm_up: int
    begin: int
    end: int


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
class Work:
    """`types`: as the lake has them, the one whose `rules` are tried first; then those that its site functions look
    at. `registry` and `manifests` are those of this Kafka partition, in order of time and of offset, the latter with
    the files of the types alone."""

    kafka_partition: int
    types: tuple[DeviceType, ...]
    rules: DeviceType
    registry: tuple[Control, ...]
    manifests: tuple[Manifest, ...]
    span: Span
    with_changes: bool

    @property
    def files(self) -> Iterator[DataFile]:
        """Those that its readings are in, as they landed."""
        return chain.from_iterable(manifest.files for manifest in self.manifests)


def history_of(lake: Lake, work: Work) -> History:
    """Raises DataError."""
    spec, *others = work.types
    span = work.span
    allowed = work.rules.silent_after or timedelta(0)
    coverage = Coverage(span.begin, span.end, allowed // timedelta(microseconds=1))
    count = 0

    def seen() -> Iterator[Arrival]:
        nonlocal count
        for arrival in _arrivals(lake, work):
            if arrival.reading.device_type == spec.type:
                count += arrival.append_us >= span.begin
                coverage.take(arrival.reading.device_id, arrival.reading.event_time_us)
            yield arrival

    changes: list[Change] = []

    def said() -> Iterator[Transition]:
        for t in transitions(work.kafka_partition, [work.rules, *others], work.registry, seen(), span.end):
            if work.with_changes and span.begin <= t.event_time_us < span.end:
                changes.append(Change(t.rule, t.device, t.site, t.to, t.severity, t.event_time_us))
            yield t

    inside = tuple(e for e in episodes(said()) if span.begin <= e.fired_us < span.end)
    return History(inside, count, coverage.shares(), tuple(changes))


def _arrivals(lake: Lake, work: Work) -> Iterator[Arrival]:
    """In order of offset, but for what rules pass over. Raises DataError."""
    landed, span = LandedFiles(lake), work.span
    for manifest in work.manifests:
        streams, passed_over = [], manifest.passed_over
        for spec in work.types:
            of_type = [f for f in by_partition(manifest.files).values() if f.partition.type == spec.type]
            tables = [table for files in of_type for table in arrow_tables(lake, spec, files, read=landed.table)]
            if tables:
                streams.append(arrivals_of(pa.concat_tables(tables).sort_by("kafka_offset"), spec.type, spec.version))
        for arrival in merge(*streams, key=lambda a: a.offset):
            if span.warm_up <= arrival.append_us < span.end and arrival.offset not in passed_over:
                yield arrival
