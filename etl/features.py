"""What a model is trained on and estimates from: a row for each minute of a site. Training and scoring share this.

It is made from the lake, not from the table rollups, which would spare a night the reading of 90 days: the lake keeps
all of it, whatever `retention` says; all minutes go by today's limits, not each by those of the day on which it was
loaded; the digest of what a model was trained on is one of files; and no password of the warehouse goes to Spark. Only
partitions whose files are those that the ledger says were loaded count: what failed validation is in no model.
Duplicates and bad values are taken out by the kernel that makes the rollups.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from connections.lake import Lake
from etl import kernel, kernel_task
from etl.derive import in_kernel
from etl.lake_index import PartitionFiles
from etl.window import Window
from fleet.model import Input, Model
from fleet.spec import DeviceType

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

Array = np.ndarray


@dataclass(frozen=True)
class Minutes:
    """In order of time and site. `values` has a column a feature, NaN where a device said nothing; `truth` is NaN where
    nobody counted."""

    site: Array
    at: Array
    """datetime64[us], UTC: the beginning of the minute."""
    truth: Array
    values: Array

    def __len__(self) -> int:
        return len(self.at)

    def where(self, mask: Array) -> "Minutes":
        return Minutes(self.site[mask], self.at[mask], self.truth[mask], self.values[mask])

    def between(self, start: datetime | None, end: datetime | None) -> "Minutes":
        """[start, end); None is open."""
        mask = np.ones(len(self), bool)
        if start is not None:
            mask &= self.at >= as_numpy(start)
        if end is not None:
            mask &= self.at < as_numpy(end)
        return self.where(mask)


def as_numpy(moment: datetime) -> np.datetime64:
    return np.datetime64(round(moment.timestamp() * 1_000_000), "us")


@dataclass(frozen=True)
class Loaded:
    """Partitions to take, in order of time; `waiting` have changed since they were loaded, or never were."""

    partitions: tuple[PartitionFiles, ...]
    waiting: int

    @property
    def digest(self) -> str:
        """Equal exactly when the same files of the same partitions are read."""
        told = "\n".join(f"{p.partition.key} {p.digest}" for p in self.partitions)
        return hashlib.sha256(told.encode()).hexdigest()[:32]


def loaded(
    lake: Iterable[PartitionFiles], ledger: Mapping[str, str | None], spec: DeviceType, window: Window
) -> Loaded:  # fmt: skip
    """`ledger` is partition → digest of the files that were loaded of it."""
    candidates = [p for p in lake if p.partition.type == spec.type and window.has(p.partition)]
    taken = [p for p in candidates if ledger.get(p.partition.key) == p.digest]
    taken.sort(key=lambda p: p.partition.start)
    return Loaded(tuple(taken), len(candidates) - len(taken))


def no_minutes(model: Model) -> Minutes:
    nothing = np.empty(0)
    return Minutes(nothing.astype(object), nothing.astype("M8[us]"), nothing, np.empty((0, len(model.features))))


def read_minutes(
    spark: "SparkSession", lake: Lake, spec: DeviceType, model: Model, partitions: Sequence[PartitionFiles]
) -> Minutes:
    """All minutes of the partitions, of which there is at least one. The first of them lack what was before: take
    `model.reach` more than is needed."""
    rolled = in_kernel(spark, lake, spec, partitions, kernel_task.minutes, kernel_task.MINUTE)
    return as_minutes(features(rolled, model).toArrow(), model)


def features(minutes: "DataFrame", model: Model) -> "DataFrame":
    """Rollups of a minute (kernel_task.MINUTE) → `site`, `at`, `truth` and the model's features, ordered by time and
    site. A minute's features look at it and at what was before; its truth is in none of them."""
    from pyspark.sql import Window as Over
    from pyspark.sql import functions as F

    def column(of: Input) -> "Column":
        here = (F.col("device_id") == of.device) & (F.col("metric") == of.metric)
        return F.max(F.when(here, F.col(of.of)))

    joined = minutes.groupBy("site", "bucket").agg(
        column(model.target).alias("truth"), *(column(i).alias(i.feature) for i in model.inputs)
    )
    seconds = F.unix_seconds("bucket")
    trailing = [
        F.avg(i.feature)
        .over(Over.partitionBy("site").orderBy(seconds).rangeBetween(60 - round(span.total_seconds()), 0))
        .alias(name)
        for i in model.inputs
        for name, span in i.trailing()
    ]
    # A minute of which nothing but the truth is known is none to estimate.
    known = F.coalesce(*(F.col(i.feature) for i in model.inputs)).isNotNull()
    whole = joined.where(known).select(
        "site", F.col("bucket").alias("at"), "truth", *(i.feature for i in model.inputs), *trailing
    )
    return whole.select("site", "at", "truth", *model.features).orderBy("at", "site")


def as_minutes(table: pa.Table, model: Model) -> Minutes:
    values = [_doubles(table[name]) for name in model.features]
    at = table["at"].cast(kernel.MOMENT).cast(pa.int64()).to_numpy().view("datetime64[us]")
    site = table["site"].to_numpy().astype(object)
    return Minutes(site, at, np.round(_doubles(table["truth"])), np.column_stack(values))


def _doubles(column: pa.ChunkedArray) -> Array:
    return column.cast(pa.float64()).to_numpy().astype(np.float64)
