"""A Kafka partition as it landed: its readings in order of offset, with what of them the lake lacks; and the
transitions that were published of it.

Nothing here asks fleet/types: a file says by itself what its readings carried, whatever the type has become.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from typing import Any

import msgspec
import pyarrow as pa

from connections.lake import Lake
from etl.landed_files import Expired, LandedFiles
from fleet.backtest import Arrival
from fleet.channels import TRANSITIONS
from fleet.errors import DataError
from fleet.lake_layout import IDENTITY_COLUMNS, JSON_COLUMNS, MANIFEST_PATH, REJECTED, SOURCE_COLUMNS, Partition
from fleet.manifest import Manifest
from fleet.parity import Hole
from fleet.reading import Reading, digest_of, encode_reading
from fleet.transition import TIMES, Transition

OFFSET = "kafka_offset"


class LandedLog:
    """Manifests of one Kafka partition, as there were when it was opened; read where they are asked for."""

    def __init__(self, lake: Lake, topic: str, partition: int):
        self.lake, self.topic, self.partition = lake, topic, partition
        self.names = lake.manifest_names(topic, partition)
        self.files = LandedFiles(lake)

    def first_at(self, append_ms: int) -> int:
        """The place of the first manifest whose records were appended then or later."""
        return bisect_left(range(len(self.names)), append_ms, key=self.append_ms)

    def append_ms(self, place: int) -> int:
        """Of its first record; a manifest of lost offsets alone has none, and goes by the next one."""
        for name in self.names[place:]:
            if (found := self.lake.manifest(name).first_append_ms) >= 0:
                return found
        return 2**63

    def begin(self, place: int) -> int:
        """The first offset of the manifest at that place; past the last one, the offset where the log ends."""
        if place < len(self.names):
            found = MANIFEST_PATH.search(self.names[place])
            assert found is not None
            return int(found["first"])
        return self.lake.manifest(self.names[-1]).last_offset + 1 if self.names else 0

    def manifests(self, first: int, end: int) -> Iterator[Manifest]:
        """Those with offsets from `first` up to and without `end`."""
        at = max(0, bisect_left(range(len(self.names)), first + 1, key=self.begin) - 1)
        for place in range(at, len(self.names)):
            if self.begin(place) >= end:
                return
            manifest = self.lake.manifest(self.names[place])
            if manifest.last_offset >= first:
                yield manifest

    def arrivals(self, first: int, end: int, holes: list[Hole]) -> Iterator[Arrival]:
        """Readings of those offsets, in order, but for those that rules pass over; what is lacking among them is added
        to `holes` as it is met."""
        at = first
        for manifest in self.manifests(first, end):
            if manifest.first_offset > at:
                holes.append(_gap(at, manifest.first_offset - 1))
            at = manifest.last_offset + 1
            if manifest.missing:
                detail = f"{manifest.missing:,} records were gone from Kafka before they landed"
                holes.append(Hole(manifest.first_offset, manifest.last_offset, "hole", detail))
            passed_over = manifest.passed_over
            for arrival in self._of(manifest, holes):
                if first <= arrival.offset < end and arrival.offset not in passed_over:
                    yield arrival
        if at < end:
            holes.append(_gap(at, end - 1))

    def _of(self, manifest: Manifest, holes: list[Hole]) -> Iterator[Arrival]:
        streams = []
        for file in manifest.files:
            partition = Partition.from_key(file.partition)
            if partition.type == REJECTED:
                continue
            try:
                table = self.files.table(file).sort_by(OFFSET)
            except DataError as error:
                cause = "expired" if isinstance(error, Expired) else "missing_file"
                holes.append(Hole(manifest.first_offset, manifest.last_offset, cause, str(error)))
                continue
            streams.append(arrivals_of(table, partition.type, file.version))
        return merge(*streams, key=lambda arrival: arrival.offset)


def _gap(first: int, last: int) -> Hole:
    return Hole(first, last, "hole", f"no manifest has the offsets {first:,} to {last:,}")


def arrivals_of(rows: pa.Table, type_name: str, version: int) -> Iterator[Arrival]:
    """In the order of the rows, which have the columns of the type's data files. A metric without a column is left
    out."""

    def ints(name: str) -> list[Any]:
        return rows[name].cast(pa.int64()).to_pylist()

    texts = (rows["device_id"].to_pylist(), rows["site"].to_pylist(), rows["carried"].to_pylist())
    metrics = [name for name in rows.column_names if name not in IDENTITY_COLUMNS and name not in SOURCE_COLUMNS]
    values = {metric: rows[metric].to_pylist() for metric in metrics}
    columns = (*texts, ints("event_time"), rows["seq"].to_pylist(), ints(OFFSET), ints("kafka_timestamp"))
    for place, (device, site, carried, event_us, seq, offset, append_ms) in enumerate(zip(*columns, strict=True)):
        said = {metric: values[metric][place] for metric in carried if metric in values}
        reading = Reading(device, type_name, site, event_us, said, seq, version)
        digest = digest_of(encode_reading(reading)) if seq is None else None
        yield Arrival(reading, offset, append_ms * 1000, digest)


Spans = dict[int, tuple[int, int]]
"""Kafka partition of readings → first offset, and the one after the last."""


def published(
    lake: Lake, system: str, spans: Spans, since_ms: int
) -> tuple[dict[int, list[Transition]], Sequence[str]]:  # fmt: skip
    """Kafka partition of readings → the transitions that its records of those offsets caused, of a system; and the
    files that are not there. `since_ms`: when the first of those records was appended; what it caused came after."""
    found: dict[int, list[Transition]] = defaultdict(list)
    damaged = []
    for topic, number in lake.landed_partitions():
        if topic != TRANSITIONS:
            continue
        landed = LandedLog(lake, topic, number)
        begin = landed.begin(max(0, landed.first_at(since_ms) - 1))
        for manifest in landed.manifests(begin, 2**63):
            for file in manifest.files:
                partition = Partition.from_key(file.partition)
                if partition.type != TRANSITIONS or partition.system != system:
                    continue
                try:
                    table = landed.files.table(file)
                except DataError as error:
                    damaged.append(str(error))
                    continue
                for transition in _transitions(table, system, spans):
                    found[transition.partition].append(transition)
    return found, damaged


def _transitions(table: pa.Table, system: str, spans: Spans) -> Iterable[Transition]:
    places = zip(table["source_partition"].to_pylist(), table["source_offset"].to_pylist(), strict=True)
    mine = [spans.get(number, (0, 0))[0] <= offset < spans.get(number, (0, 0))[1] for number, offset in places]
    table = table.filter(pa.array(mine, pa.bool_()))
    moments = {f"{name}_us": table[name].cast(pa.int64()).to_pylist() for name in TIMES}
    same = [name for name in Transition.__struct_fields__ if name in table.column_names and name not in TIMES]
    columns = {name: table[name].to_pylist() for name in same} | moments
    columns |= {
        "device": table["device_id"].to_pylist(),
        "partition": table["source_partition"].to_pylist(), "offset": table["source_offset"].to_pylist(),
    }  # fmt: skip
    for name in JSON_COLUMNS:
        columns[name] = [msgspec.json.decode(text) for text in columns[name]]
    for row in zip(*columns.values(), strict=True):
        yield Transition(system=system, **dict(zip(columns, row, strict=True)))
