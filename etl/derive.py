"""One batch of partitions through Spark: its books, rollups, anomalies and quarantine, as Arrow tables by partition."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import ceil, inf
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from connections.lake import Lake, arrow_schema
from connections.spark import few_rows_at_once, first_line, is_gone
from etl import kernel, kernel_energy, kernel_task
from etl.lake_frames import VERSION, file_frame
from etl.lake_index import PartitionFiles
from fleet import energy
from fleet.errors import DataError
from fleet.lake_layout import columns
from fleet.ledger import GRAINS, MetricBooks, PartitionBooks
from fleet.meter import meter_of
from fleet.spec import DeviceType

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

log = logging.getLogger("weir.etl")


@dataclass(frozen=True)
class Derived:
    """Of one partition: all that replaces what the warehouse has of it."""

    files: PartitionFiles
    books: PartitionBooks
    spec_version: int
    rollups: pa.Table
    anomalies: pa.Table
    bad_values: pa.Table
    bad_readings: pa.Table
    energy: pa.Table | None = None
    unattributed: pa.Table | None = None
    ends: pa.Table | None = None
    """Of a type with a counter of energy: etl.kernel_energy."""


MAX_TASK_ROWS = 1_000_000
"""Rows that one Spark task is to have at most: a second, and 400 MB of its Python worker. Of several partitions it has
half as many at most. A device's rows of one partition are never divided, so the largest of these may be more."""


def derive(
    spark: "SparkSession",
    lake: Lake,
    spec: DeviceType,
    partitions: Iterable[PartitionFiles],
    past: kernel.Past = kernel.NO_PAST,
    phases: kernel_energy.Phases = kernel_energy.NO_PHASES,
) -> Callable[[PartitionFiles], Derived]:
    """What is returned gives that of each partition, or raises DataError for it alone. They are of one type; all of
    them are computed in one go. `past`: etl.history; `phases`: etl.energy."""
    from pyspark.errors import PySparkException

    wanted = list(partitions)
    try:
        tables = _tables(spark, lake, spec, wanted, past, phases)
    except PySparkException as error:
        if is_gone(error):
            raise
        # A file that went bad since it was validated: its partition alone is to fail.
        if len(wanted) == 1:
            return partial(_fail, f"Spark cannot compute it: {first_line(error)}")
        log.warning("%s: %d partitions one by one, as Spark says: %s", spec.type, len(wanted), first_line(error))
        alone = {p.partition.key: derive(spark, lake, spec, [p], past, phases) for p in wanted}
        return lambda p: alone[p.partition.key](p)
    counts = {row["starts_at"]: row for row in _summed(tables["counts"])} if tables else {}
    strangers = set(counts) - {p.partition.start for p in wanted}
    if strangers:
        raise DataError(f"{spec.type}: files hold readings of {min(strangers).isoformat()}, which is another partition")
    return lambda p: _of_partition(p, spec, counts.get(p.partition.start), tables)


def _fail(why: str, files: PartitionFiles) -> Derived:
    raise DataError(f"{files.partition.key}: {why}")


@dataclass(frozen=True)
class Part:
    """A file that a task reads, for one in `shares` of its devices."""

    file: str
    version: int
    task: int
    share: int
    shares: int


MAX_SHARES = 8
"""Of one partition: each share reads all of it."""


def parts(partitions: Iterable[PartitionFiles], most_rows: int = MAX_TASK_ROWS) -> list[Part]:
    """Who reads what: small partitions share a task of at most half as many rows, so that a batch of more
    (etl.discover) has work for two cores; the devices of a large one are divided among several, each of which reads
    all files of the partition: a tenth of its work."""
    found: list[Part] = []
    task, held = 0, 0
    for partition in partitions:
        shares = min(MAX_SHARES, max(1, ceil(partition.rows / most_rows)))
        if held and held + partition.rows > most_rows // 2:
            task, held = task + 1, 0
        for share in range(shares):
            found += [Part(file.path, file.version, task + share, share, shares) for file in partition.to_read]
        task, held = (task, held + partition.rows) if shares == 1 else (task + shares, 0)
    return found


BY_VALUE = (energy, kernel, kernel_energy, kernel_task)
"""Modules that go with a task."""


def _tables(
    spark: "SparkSession", lake: Lake, spec: DeviceType, partitions: Sequence[PartitionFiles], past: kernel.Past,
    phases: kernel_energy.Phases,
) -> dict[str, pa.Table]:  # fmt: skip
    """Those of etl.kernel, of all partitions, in no order; none where there are no rows. One Spark action."""
    pieces_of = partial(kernel_task.pieces, past=past, phases=phases)
    frame = in_kernel(spark, lake, spec, partitions, pieces_of, kernel_task.PIECE)
    with few_rows_at_once(spark):
        found = frame.toArrow()
    pieces: dict[str, list[pa.Table]] = {}
    for name, piece in zip(found["name"].to_pylist(), found["piece"], strict=True):
        pieces.setdefault(name, []).append(pa.ipc.open_stream(piece.as_buffer()).read_all())
    return {name: pa.concat_tables(parts) for name, parts in pieces.items()}


def in_kernel(
    spark: "SparkSession", lake: Lake, spec: DeviceType, partitions: Sequence[PartitionFiles],
    function: Callable[..., Any], gives: str,
) -> "DataFrame":  # fmt: skip
    """All rows of the partitions through a function of etl.kernel_task, which gives these columns (Spark's DDL)."""
    from pyspark import cloudpickle
    from pyspark.sql import functions as F

    # Workers need not have Weir: the kernel goes with the task.
    for module in BY_VALUE:
        cloudpickle.register_pickle_by_value(module)
    wanted = parts(partitions)
    grain = partitions[0].partition.grain
    task = partial(function, metrics(spec), grain, arrow_schema(columns(spec)))
    return (
        file_frame(spark, lake, pa.Table.from_pylist([asdict(part) for part in wanted]))
        .repartitionById(max(part.task for part in wanted) + 1, F.col("task").cast("int"))
        .select("content", "version", "share", "shares")
        .mapInArrow(task, gives)
    )


def metrics(spec: DeviceType) -> list[kernel.Metric]:
    """What the spec does not say has no limit."""
    found, meter = [], meter_of(spec)
    for name, m in spec.metrics.items():
        low, high = (m.range.low, m.range.high) if m.range else (-inf, inf)
        change = {"change": m.max_change.by, "within": m.max_change.within.total_seconds()} if m.max_change else {}
        times = {"stuck_after": m.stuck_after, "silent_after": spec.silent_after}
        limits = {key: time.total_seconds() for key, time in times.items() if time is not None}
        counts = meter if meter and meter.metric == name else None
        found.append(
            kernel.Metric(name, m.kind == "gauge", low, high, m.outside != "warn", **change, **limits, meter=counts)
        )
    return found


def _summed(counts: pa.Table) -> list[dict[str, Any]]:
    """Each task counts for itself."""
    sums = [name for name in counts.column_names if name not in ("starts_at", VERSION)]
    wanted = [(VERSION, "max"), *((name, "sum") for name in sums)]
    return counts.group_by("starts_at").aggregate(wanted).rename_columns(["starts_at", VERSION, *sums]).to_pylist()


def _of_partition(
    files: PartitionFiles, spec: DeviceType, count: Mapping[str, Any] | None, tables: Mapping[str, pa.Table]
) -> Derived:
    key, start = files.partition.key, files.partition.start
    if count is None:
        raise DataError(f"{key}: its files have no rows that Spark can read; their manifests say {files.rows:,}")
    own = {
        name: _sorted(table.filter(pc.equal(table["starts_at"], pa.scalar(start, kernel.MOMENT))))
        for name, table in tables.items()
        if name != "counts"
    }
    rolled = {(m, g): 0 for m in spec.metrics for g in GRAINS}
    sums = own["rollups"].group_by(["metric", "grain"]).aggregate([("count", "sum")]).to_pylist()
    rolled.update({(row["metric"], row["grain"]): row["count_sum"] for row in sums})
    metrics = tuple(
        MetricBooks(m, count[f"known:{m}"], {g: rolled[m, g] for g in GRAINS}, count[f"bad:{m}"]) for m in spec.metrics
    )
    books = PartitionBooks(key, count["landed"], count["valid"], count["quarantined"], count["duplicate"], metrics)
    return Derived(files, books, count[VERSION], **own)


SORT_KEYS = ("grain", "metric", "device_id", "site", "bucket", "event_time", "kind", "kafka_partition", "kafka_offset")


def _sorted(table: pa.Table) -> pa.Table:
    """The same order at every run, so that a re-run stores the same rows in the same places."""
    return table.sort_by([(name, "ascending") for name in SORT_KEYS if name in table.column_names])
