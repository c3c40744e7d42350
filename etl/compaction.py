"""Small files of the lake become few: their rows are written again in order of their place in Kafka's log, read back,
and only then named by a compaction record, which is the commit. etl.lake_tidy removes what nobody reads any more.

Which files are replaced, and what readers make of the record, is in fleet/compaction.py.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from connections.compactions import Compactions
from connections.lake import Lake, arrow_schema
from etl.lake_frames import read_table
from etl.lake_index import PartitionFiles, read_index
from etl.window import micros
from fleet.compaction import LEAST_FILES, MAX_BYTES, MAX_ROWS, Compacted, Compaction, Covered, Plan, is_worth_it, plan
from fleet.errors import DataError
from fleet.lake_layout import SOURCE_COLUMNS, compacted_file_name, place_of
from fleet.manifest import DataFile

SETTLED = timedelta(days=1)
"""Since the beginning of a partition: most of an hour's or a day's readings have come by then; a month's are compacted
every night, as its files would else be tens of thousands by its end."""
MAX_HELD_BYTES = 256 * 1024 * 1024
"""Of rows in memory, for one compacted file; the work on them takes three times as much."""
GROUP_ROWS = 32_768
"""Of a row group: who reads in order of arrival reads one or two for each landed file."""
ORDER = ("kafka_topic", "kafka_partition", "kafka_offset")
SOURCE = arrow_schema(SOURCE_COLUMNS)
Clock = Callable[[], datetime]
"""A first night over a year of readings takes longer than a GRACE: what is written says when that was."""


@dataclass(frozen=True)
class Outcome:
    """Of one partition and spec version. `left`: why nothing was changed; `damaged`: as a file is not what it should
    be."""

    partition: str
    version: int
    files_before: int
    bytes_before: int
    files_after: int = 0
    bytes_after: int = 0
    left: str = ""
    damaged: bool = False

    def __str__(self) -> str:
        what = f"{self.partition} v{self.version}: {self.files_before:,} files"
        if self.left:
            return f"{what} stay: {self.left}"
        made = f" → {self.files_after:,}, {self.bytes_after:,} bytes" if self.files_after else ""
        return f"{what}, {self.bytes_before:,} bytes{made}"


def summed(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Of those that were done, or are to be."""
    done = [one for one in outcomes if not one.left]
    names = ("files_before", "files_after", "bytes_before", "bytes_after")
    return {"partitions": len(done), **{name: sum(getattr(one, name) for one in done) for name in names}}


def compact(lake: Lake, clock: Clock, system: str | None = None, dry_run: bool = False) -> Iterator[Outcome]:
    """Of each partition that has settled and has many small files, oldest first; `system` None is all. One whose files
    are not what they should be stays as it is. Raises Unavailable; DataError where a manifest or a record is none."""
    topics = {topic for topic, _ in lake.landed_partitions()}
    index, records = read_index(lake, topics=topics), Compactions(lake)
    before = clock() - SETTLED
    settled = (p for p in index.partitions.values() if p.partition.start <= before)
    for files in sorted(settled, key=lambda p: (p.partition.start, p.partition.key)):
        if system in (None, files.partition.system):
            for made in _plans(files, records):
                yield _planned(made) if dry_run else _done(lake, records, files, made, clock)


@dataclass(frozen=True)
class Waiting:
    """Where there was nothing to do: how many partitions are old enough, and which is the first that will be compacted,
    and from when on; as far as can be said of what has landed."""

    settled: int
    first: str = ""
    at: datetime | None = None

    def __str__(self) -> str:
        rule = f"a partition is taken once it began {SETTLED.days} day ago and has {LEAST_FILES} small files of a topic"
        then = f"; the first will be {self.first}, from {self.at:%Y-%m-%d %H:%M} UTC on" if self.at else ""
        return f"nothing to do: {rule}; that old: {self.settled:,}, none with so many{then}"


def waiting(lake: Lake, clock: Clock, system: str | None = None) -> Waiting:
    topics = {topic for topic, _ in lake.landed_partitions()}
    index, records, before = read_index(lake, topics=topics), Compactions(lake), clock() - SETTLED
    partitions = [p for p in index.partitions.values() if system in (None, p.partition.system)]
    young = sorted((p for p in partitions if p.partition.start > before), key=lambda p: p.partition.start)
    settled = len(partitions) - len(young)
    for files in young:
        if any(_plans(files, records)):
            return Waiting(settled, files.partition.key, files.partition.start + SETTLED)
    return Waiting(settled)


def _plans(files: PartitionFiles, records: Compactions) -> Iterator[Plan]:
    key = files.partition.key
    for version, landed in files.versions.items():
        if made := plan(key, version, landed, records.last(key, version)):
            yield made


def _files(entries: Iterable[Compacted]) -> tuple[int, int]:
    """How many, and their bytes."""
    found = [entry.file for entry in entries if entry.file]
    return len(found), sum(file.bytes for file in found)


def _planned(made: Plan) -> Outcome:
    return Outcome(made.partition, made.version, *_files(made.sources))


def _done(lake: Lake, records: Compactions, files: PartitionFiles, made: Plan, clock: Clock) -> Outcome:
    before = _planned(made)
    written: list[Compacted] = []
    try:
        after = list(_compacted(lake, files, made, clock, written))
    except DataError as error:
        _remove(lake, written)
        return replace(before, left=str(error), damaged=True)
    if not is_worth_it(len(made.sources), len(after)):
        _remove(lake, written)
        return replace(before, left=f"they would be {len(after)}, as their sizes, columns or units differ")
    # A landed file that would stand alone stays as it is, and is no part of the record.
    entries = [*made.kept, *(entry for entry in after if not _is_landed(entry))]
    if not records.commit(Compaction(made.partition, made.version, made.number, micros(clock()) // 1000, entries)):
        # What was written is swept when it is old: a store that answers twice may have taken this very record.
        return replace(before, left="another was faster")
    number, size = _files(after)
    return replace(before, files_after=number, bytes_after=size)


def _remove(lake: Lake, written: Iterable[Compacted]) -> None:
    """What no record names, nor will."""
    lake.sweep(entry.file.path for entry in written if entry.file)


def _is_landed(entry: Compacted) -> bool:
    return entry.file is not None and entry.covers == [Covered(entry.file.path, entry.file.rows)]


def _compacted(
    lake: Lake, files: PartitionFiles, made: Plan, clock: Clock, written: list[Compacted]
) -> Iterator[Compacted]:
    """What has the sources' rows afterwards; those that were written are added to `written`. Raises DataError."""
    held: list[tuple[Compacted, pa.Table]] = []

    def close() -> Compacted:
        if len(held) == 1:
            return held[0][0]
        written.append(_write(lake, files, made.version, held, clock))
        return written[-1]

    for source in made.sources:
        table = _read(lake, source)
        if held and not _go_together([t for _, t in held], table, [e for e, _ in held], source):
            yield close()
            held.clear()
        held.append((source, table))
    if held:
        yield close()


def _go_together(tables: list[pa.Table], table: pa.Table, entries: list[Compacted], entry: Compacted) -> bool:
    """Files of other topics stay apart, as their manifests may go apart (fleet.compaction.Compacted); those of other
    columns, types or units too, so that each goes on saying what its rows' files said."""
    rows, size = sum(t.num_rows for t in tables), sum(t.nbytes for t in tables)
    compressed = _files([*entries, entry])[1]
    fits = rows + table.num_rows <= MAX_ROWS and size + table.nbytes <= MAX_HELD_BYTES and compressed <= MAX_BYTES
    alike = entries[0].topic == entry.topic
    return fits and alike and tables[0].schema.equals(table.schema, check_metadata=True)


def _read(lake: Lake, source: Compacted) -> pa.Table:
    """Raises DataError where rows could not be told afterwards to be of the landed file that had them."""
    assert source.file is not None
    table = read_table(lake, source.file)
    for name, kind in zip(SOURCE.names, SOURCE.types, strict=True):
        found = [str(field.type) for field in table.schema if field.name == name]
        if found != [str(kind)]:
            said = " and ".join(found) or "missing"
            raise DataError(f"{lake.url(source.file.path)}: column {name!r} is {said}, expected {kind}")
        if table[name].null_count:
            raise DataError(f"{lake.url(source.file.path)} has rows without a {name}")
    if _is_landed(source):
        place, limits = place_of(source.file.path), pc.min_max(table["kafka_offset"]).as_py()
        whose = {*table["kafka_topic"].unique().to_pylist()}, {*table["kafka_partition"].unique().to_pylist()}
        if whose != ({place.topic}, {place.partition}) or limits["min"] < place.first or limits["max"] > place.last:
            raise DataError(f"{lake.url(source.file.path)} has rows of other places in Kafka's log than its name says")
    return table


def _write(
    lake: Lake, files: PartitionFiles, version: int, held: list[tuple[Compacted, pa.Table]], clock: Clock
) -> Compacted:
    """Durable, and read back."""
    table = pa.concat_tables([table for _, table in held]).sort_by([(name, "ascending") for name in ORDER])
    name = compacted_file_name(micros(clock()) // 1000, uuid.uuid4().hex[:8])
    path = f"{files.partition.folder(version)}/{name}"
    size = lake.write_table(path, table, GROUP_ROWS)
    file = DataFile(path, files.partition.key, version, table.num_rows, size)
    if not _same(read_table(lake, file), table):
        raise DataError(f"{lake.url(path)} does not give back what was written")
    return Compacted([landed for entry, _ in held for landed in entry.covers], file)


def _same(one: pa.Table, other: pa.Table) -> bool:
    """To the bit: NaN is equal to itself."""
    return one.schema.equals(other.schema) and all(
        _bits(a).equals(_bits(b)) for a, b in zip(one.columns, other.columns, strict=True)
    )


def _bits(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_float64(column.type):
        return column
    return pa.chunked_array([chunk.view(pa.int64()) for chunk in column.chunks], pa.int64())
