"""What a batch derives from readings: fates, counts, bad values, scores, rollups. Pure: Arrow tables in and out.

Runs inside Spark's Python workers, where it arrives by value and finds only numpy and pyarrow, and without Spark alike.
All of a device's readings of one partition must be in one table; it may hold any number of devices and partitions.

- Duplicate: equal device_id, event_time, seq and set of metrics carried, and where seq is null equal values too; the
  first by append time, Kafka partition, offset stays.
- Bad value: outside its range where the spec says `quarantine` or `fail`. It is quarantined alone.
- Quarantined reading: it carried known values, and each of them is bad. NaN and infinities are not known.
- Score: of a gauge's good values, by median and deviation of the device's metric in the partition.

Sums go over rows in order of time and Kafka position, so that every run gives the same bits.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Z_LIMIT = 5.0
"""Robust z-score from which a value is an anomaly. Of normally distributed values one in 1.7 million lies beyond 5;
at the usual 3.5 it would be one in 2,100, that is dozens an hour of a hundred healthy sensors."""
MIN_VALUES = 20
"""Of a device's metric in one partition; of fewer, the median says too little."""
MAD_TO_SIGMA = 1.4826
"""Median absolute deviation → standard deviation of a normal distribution."""
MEAN_DEVIATION_TO_SIGMA = 1.2533
"""Mean absolute deviation → the same; used where more than half of the values are equal, so that the MAD is 0."""

IDENTITY = (
    "starts_at", "spec_version", "device_id", "site", "event_time", "seq", "kafka_topic", "kafka_partition",
    "kafka_offset", "kafka_timestamp",
)  # fmt: skip
OF_ANOMALY = (
    "starts_at", "event_time", "site", "device_id", "spec_version", "kafka_topic", "kafka_partition", "kafka_offset",
)  # fmt: skip
UNITS = {"hour": "h", "day": "D", "month": "M"}
GRAINS = {"1m": "m", "1h": "h"}
MOMENT = pa.timestamp("us", tz="UTC")
PIECE = "name string, piece binary"
"""What `pieces` gives, as Spark's DDL: the name of a table, and rows of it as an Arrow stream."""
PIECE_ROWS = 50_000
"""About 5 MB."""
MINUTE = (
    "site string, device_id string, metric string, bucket timestamp, mean double, min double, max double, last double"
)
"""What `minutes` gives, as Spark's DDL."""


@dataclass(frozen=True)
class Metric:
    """What the kernel has to know of a spec's metric. `low` and `high` are infinite where it has no range."""

    name: str
    gauge: bool
    low: float
    high: float
    quarantines: bool


def pieces(metrics: Sequence[Metric], grain: str, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """One Spark task: its rows in, all tables of `derive` out, cut into PIECEs."""
    rows = [batch for batch in batches if batch.num_rows]
    if not rows:
        return
    for name, table in derive(pa.Table.from_batches(rows), metrics, grain).items():
        for start in range(0, max(table.num_rows, 1), PIECE_ROWS):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table.slice(start, PIECE_ROWS))
            piece = pa.array([sink.getvalue().to_pybytes()], pa.binary())
            yield pa.RecordBatch.from_arrays([pa.array([name]), piece], ["name", "piece"])


def minutes(metrics: Sequence[Metric], grain: str, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """One Spark task: its rows in, their rollups of a minute out, the same that are in the warehouse."""
    rows = [batch for batch in batches if batch.num_rows]
    if rows:
        found = derive(pa.Table.from_batches(rows), metrics, grain)["rollups"]
        of_minute = found.filter(pc.equal(found["grain"], "1m"))
        yield from of_minute.select(
            ["site", "device_id", "metric", "bucket", "mean", "min", "max", "last"]
        ).to_batches()


def derive(rows: pa.Table, metrics: Sequence[Metric], grain: str) -> dict[str, pa.Table]:
    """`rows` have the columns of the lake's data files and spec_version; at least one. `grain` is hour, day or month.

    - counts, a row per partition: starts_at, spec_version (the newest), landed, duplicate, quarantined, valid, and of
      each metric `known:<m>` and `bad:<m>`, in rows that are no duplicates
    - rollups of values that are not bad: starts_at, device_id, site, metric, grain, bucket, count, mean, min, max,
      stddev (of the sample; null of one value), last (by time and Kafka position), anomalies (values with any)
    - anomalies, a row for each value and kind: `range` (outside, kept or quarantined; score is the distance) and
      `zscore`; low and high are the limits it broke
    - bad_values: IDENTITY, metric, value, low, high; bad_readings: IDENTITY
    """
    with np.errstate(all="ignore"):
        return _derive(rows.combine_chunks(), metrics, grain)


def _derive(rows: pa.Table, metrics: Sequence[Metric], grain: str) -> dict[str, pa.Table]:
    rows = _in_order(rows)
    device, event = _codes(rows["device_id"]), _micros(rows["event_time"])
    starts = _floor(event, UNITS[grain])
    rows = rows.append_column("starts_at", _moments(starts))
    values = {m.name: _finite(rows[m.name]) for m in metrics}

    copies = _copies(rows, values, _numbered(device, event))
    fresh = ~copies
    known = {m: ~np.isnan(v) & fresh for m, v in values.items()}
    outside = {m.name: ((values[m.name] < m.low) | (values[m.name] > m.high)) & fresh for m in metrics}
    bad = {m.name: outside[m.name] & m.quarantines for m in metrics}
    n_known, n_bad = (np.sum([*masks.values()], axis=0) for masks in (known, bad))
    quarantined = (n_known > 0) & (n_known == n_bad)
    counted = {
        "landed": np.ones_like(fresh), "duplicate": copies, "quarantined": quarantined, "valid": fresh & ~quarantined,
        **{f"known:{name}": mask for name, mask in known.items()},
        **{f"bad:{name}": mask for name, mask in bad.items()},
    }  # fmt: skip

    series, buckets = _numbered(device, starts), _Buckets(rows, device, event)
    rollups: list[pa.Table] = []
    anomalies: list[pa.Table] = []
    bad_values: list[pa.Table] = []
    for m in metrics:
        value, good = values[m.name], known[m.name] & ~bad[m.name]
        z, z_low, z_high = _scores(value, good & m.gauge, series)
        unusual = np.abs(z) > Z_LIMIT
        rollups += buckets.rollups(m.name, value, good, unusual | outside[m.name])
        limits = {"low": np.full_like(value, m.low), "high": np.full_like(value, m.high)}
        distance = np.where(value < m.low, m.low - value, value - m.high)
        of_anomaly = rows.select(OF_ANOMALY)
        for kind, mask, broken in (
            ("range", outside[m.name], {"score": distance, **limits}),
            ("zscore", unusual, {"score": z, "low": z_low, "high": z_high}),
        ):
            anomalies.append(_rows_where(mask, of_anomaly, {"value": value, **broken}, metric=m.name, kind=kind))
        bad_values.append(_rows_where(bad[m.name], rows.select(IDENTITY), {"value": value, **limits}, metric=m.name))
    return {
        "counts": _counts(starts, _integers(rows["spec_version"]), counted),
        "rollups": pa.concat_tables(rollups),
        "anomalies": pa.concat_tables(anomalies),
        "bad_values": pa.concat_tables(bad_values),
        "bad_readings": _rows_where(quarantined, rows.select(IDENTITY), {}),
    }


def _in_order(rows: pa.Table) -> pa.Table:
    """By device, time and Kafka position."""
    position = (_codes(rows["kafka_topic"]), _integers(rows["kafka_offset"]), _integers(rows["kafka_partition"]))
    return rows.take(np.lexsort((*position, _micros(rows["event_time"]), _codes(rows["device_id"]))))


def _counts(starts: np.ndarray, version: np.ndarray, counted: Mapping[str, np.ndarray]) -> pa.Table:
    found, which = np.unique(starts, return_inverse=True)
    newest = np.zeros(len(found), np.int64)
    np.maximum.at(newest, which, version)
    columns = {name: np.bincount(which[mask], minlength=len(found)) for name, mask in counted.items()}
    return pa.table({"starts_at": _moments(found), "spec_version": newest, **columns})


def _copies(rows: pa.Table, values: Mapping[str, np.ndarray], moment: np.ndarray) -> np.ndarray:
    """True for duplicates. Only rows that share device and time (`moment`) with another are looked at."""
    candidates = np.flatnonzero(np.bincount(moment)[moment] > 1)
    shared = rows.select(["seq", "carried", "kafka_timestamp"]).take(candidates)
    null = pc.is_null(shared["seq"]).to_numpy()
    # 0.0 and -0.0 are equal, and so are two values that are not known.
    bits = [np.where(null, v[candidates] + 0.0, 0.0).view(np.int64) for v in values.values()]
    key = (*bits, _sets(shared["carried"]), _integers(shared["seq"]), null, moment[candidates])
    # Rows are in order of their Kafka position already, and the sort keeps that among equals.
    sorting = np.lexsort((_micros(shared["kafka_timestamp"]), *key))
    group = _numbered(*(k[sorting] for k in key))
    found = np.zeros(len(moment), bool)
    found[candidates[sorting[1:]]] = group[1:] == group[:-1]
    return found


def _scores(value: np.ndarray, sample: np.ndarray, series: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """z of each value of the sample and the values at the limits; NaN where there is no score: a state, a counter, a
    bad value, too few values, or all of them equal."""
    of, x = series[sample], value[sample]
    n = np.bincount(of, minlength=series[-1] + 1)
    median = _medians(x, n)
    deviation = np.abs(x - median[of])
    mad, mean = _medians(deviation, n), np.bincount(of, deviation, len(n)) / n
    sigma = np.where(mad > 0, mad * MAD_TO_SIGMA, np.where(mean > 0, mean * MEAN_DEVIATION_TO_SIGMA, np.nan))
    z = np.full_like(value, np.nan)
    z[sample] = (x - median[of]) / sigma[of]
    return z, (median - Z_LIMIT * sigma)[series], (median + Z_LIMIT * sigma)[series]


def _medians(x: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Of each run of `n` values, NaN of those too short. Sorting each run where it lies is 10 to 40 times faster than
    one sort by run and value."""
    ordered, first, found = x.copy(), np.cumsum(n) - n, np.full(len(n), np.nan)
    for i in np.flatnonzero(n >= MIN_VALUES).tolist():
        run = ordered[first[i] : first[i] + n[i]]
        run.sort()
        found[i] = 0.5 * run[(n[i] - 1) // 2] + 0.5 * run[n[i] // 2]
    return found


class _Buckets:
    """Of every grain. They are runs of the rows, once these are put by site: a device may move within a bucket."""

    def __init__(self, rows: pa.Table, device: np.ndarray, event: np.ndarray):
        site = _codes(rows["site"])
        self._order = np.argsort(device * (site.max() + 1) + site, kind="stable")
        self._rows = rows.select(["starts_at", "device_id", "site"])
        device, site, event = device[self._order], site[self._order], event[self._order]
        self._starts = {grain: _floor(event, unit) for grain, unit in GRAINS.items()}
        self._number = {grain: _numbered(device, site, starts) for grain, starts in self._starts.items()}

    def rollups(self, metric: str, value: np.ndarray, good: np.ndarray, anomalous: np.ndarray) -> Iterator[pa.Table]:
        kept = np.flatnonzero(good[self._order])
        places = self._order[kept]
        x, anomalous = value[places], anomalous[places].astype(np.int64)
        for grain, number in self._number.items():
            first = np.flatnonzero(np.diff(number[kept], prepend=-1))
            n = np.diff(first, append=len(x))
            # Differences from the bucket's first value: nothing cancels out, and equal values deviate by 0.
            shifted = x - np.repeat(x[first], n)
            mean = _runs(np.add, shifted, first) / n
            squares = _runs(np.add, (shifted - np.repeat(mean, n)) ** 2, first)
            columns = {
                "metric": pa.repeat(metric, len(n)), "grain": pa.repeat(grain, len(n)),
                "bucket": _moments(self._starts[grain][kept[first]]),
                "count": n, "mean": x[first] + mean,
                "min": _runs(np.minimum, x, first), "max": _runs(np.maximum, x, first),
                "stddev": pa.array(np.sqrt(squares / (n - 1)), mask=n < 2), "last": x[first + n - 1],
                "anomalies": _runs(np.add, anomalous, first),
            }  # fmt: skip
            yield _beside(self._rows.take(places[first]), columns)


def _runs(reduce: np.ufunc, x: np.ndarray, first: np.ndarray) -> np.ndarray:
    return reduce.reduceat(x, first) if len(x) else x


def _rows_where(mask: np.ndarray, rows: pa.Table, columns: Mapping[str, np.ndarray], **texts: str) -> pa.Table:
    which = np.flatnonzero(mask)
    same = {name: pa.repeat(text, len(which)) for name, text in texts.items()}
    return _beside(rows.take(which), same | {name: column[which] for name, column in columns.items()})


def _beside(table: pa.Table, columns: Mapping[str, "np.ndarray | pa.Array"]) -> pa.Table:
    for name, column in columns.items():
        table = table.append_column(name, pa.array(column) if isinstance(column, np.ndarray) else column)
    return table


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """Text as numbers that are ordered as the texts are."""
    encoded = column.combine_chunks().dictionary_encode()
    rank = np.empty(len(encoded.dictionary), np.int64)
    rank[pc.array_sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(rank))
    return rank[encoded.indices.to_numpy()]


def _sets(column: pa.ChunkedArray) -> np.ndarray:
    """Lists of names as numbers, equal where their sets of names are."""
    encoded = pc.fill_null(pc.binary_join(column.combine_chunks(), ","), "\0").dictionary_encode()
    known: dict[tuple[str, ...], int] = {}
    sets = [tuple(sorted(set(text.split(",")))) for text in encoded.dictionary.to_pylist()]
    return np.array([known.setdefault(one, len(known)) for one in sets])[encoded.indices.to_numpy()]


def _integers(column: pa.ChunkedArray) -> np.ndarray:
    return pc.fill_null(column, 0).cast(pa.int64()).to_numpy()


def _micros(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(MOMENT).cast(pa.int64()).to_numpy()


def _moments(micros: np.ndarray) -> pa.Array:
    return pa.array(micros).cast(MOMENT)


def _floor(micros: np.ndarray, unit: str) -> np.ndarray:
    return micros.view("datetime64[us]").astype(f"datetime64[{unit}]").astype("datetime64[us]").view(np.int64)


def _finite(column: pa.ChunkedArray) -> np.ndarray:
    """Doubles, NaN for what is not known."""
    found = column.to_numpy()
    return np.where(np.isfinite(found), found, np.nan)


def _numbered(*keys: np.ndarray) -> np.ndarray:
    """0 for the first run of equal keys, 1 for the next, and so on."""
    changed = np.zeros(len(keys[0]), bool)
    for key in keys:
        changed[1:] |= key[1:] != key[:-1]
    return np.cumsum(changed)
