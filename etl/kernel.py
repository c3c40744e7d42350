"""What a batch derives from readings: fates, counts, bad values, scores, rollups. Pure: Arrow tables in and out.

Runs inside Spark's Python workers (etl.kernel_task), where it arrives by value, with etl.kernel_energy and what that
imports, and finds only numpy and pyarrow, and without Spark alike.
All of a device's readings of one partition must be in one table; it may hold any number of devices and partitions.

- Duplicate: equal device_id, event_time, seq and set of metrics carried, and where seq is null equal values too; the
  first by append time, Kafka partition, offset stays.
- Bad value: outside its range where the spec says `quarantine` or `fail`. It is quarantined alone.
- Quarantined reading: it carried known values, and each of them is bad. NaN and infinities are not known.
- Anomalies are looked for in the values that a device's metric has in one partition; nothing reaches over its borders.
  z-score: of a gauge's good values, by their median and deviation. Rate: from a gauge's good value to the next. Stuck:
  equal good values, one after the other, from the moment at which they have lasted too long; a run is one anomaly.
  Missing: from a known value, good or bad, to the next.
- Unseen: beyond limits that are given, from what the device said on the days before; a run of such values is one.

Sums go over rows in order of time and Kafka position, so that every run gives the same bits.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.kernel_energy import NO_PHASES, Phases, energy_tables
from fleet.energy import Meter

Z_LIMIT = 5.0
"""Robust z-score from which a value is an anomaly. Of normally distributed values one in 1.7 million lies beyond 5;
at the usual 3.5 it would be one in 2,100, that is dozens an hour of a hundred healthy sensors."""
TAIL = 0.02
"""The deviation is taken from where all but this share of the values lie, at either end, and at least one value. The
median absolute deviation, which half of the values decide, is next to nothing where a lamp is off for most of an hour,
and called each of its minutes an anomaly: docs/decisions/0033."""
TAILS_TO_SIGMA = 1 / 4.1074978
"""From tail to tail → standard deviation of a normal distribution."""
MEAN_DEVIATION_TO_SIGMA = 1.2533
"""Mean absolute deviation → the same; used where all between the tails are equal."""
MIN_VALUES = 20
"""Of a device's metric in one partition; of fewer, the median says too little."""
STUCK_VALUES = 3
"""Equal values that are a run: two that are far apart are a gap."""

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


@dataclass(frozen=True)
class Metric:
    """What the kernel has to know of a spec's metric. `low` and `high` are infinite where it has no range."""

    name: str
    gauge: bool
    low: float
    high: float
    quarantines: bool
    change: float = np.inf
    """What a gauge may change by within `within` seconds, and in proportion over more."""
    within: float = 1.0
    stuck_after: float = np.inf
    """Seconds for which a gauge may say the same."""
    silent_after: float = np.inf
    """Seconds for which it may say nothing."""
    meter: Meter | None = None
    """Of a counter of energy."""


class Found(NamedTuple):
    """Anomalies of one kind: their rows, and of each the score and the limits that it broke."""

    rows: np.ndarray
    score: np.ndarray
    low: np.ndarray
    high: np.ndarray


Past = Mapping[tuple[str, str, int], tuple[float, float]]
"""(metric, device, day in µs since the epoch) → the limits of a gauge's values in folders that begin on that day."""
NO_PAST: Past = {}
EVERYTHING = (-np.inf, np.inf)
NONE = Found(np.empty(0, np.int64), *(np.empty(0) for _ in range(3)))


def derive(
    rows: pa.Table, metrics: Sequence[Metric], grain: str, past: Past = NO_PAST, phases: Phases = NO_PHASES
) -> dict[str, pa.Table]:
    """`rows` have the columns of the lake's data files and spec_version; at least one. `grain` is hour, day or month.

    - counts, a row per partition: starts_at, spec_version (the newest), landed, duplicate, quarantined, valid, and of
      each metric `known:<m>` and `bad:<m>`, in rows that are no duplicates
    - rollups of values that are not bad: starts_at, device_id, site, metric, grain, bucket, count, mean, min, max,
      stddev (of the sample; null of one value), last (by time and Kafka position), anomalies (values with any)
    - anomalies, a row for each value and kind: `range` (outside, kept or quarantined; score is the distance), `zscore`,
      `rate` (score is the change for each `within`), `stuck` and `missing` (scores are the seconds that the run lasts,
      and the silence that ends with the value), `unseen` (score is the distance); low and high are the limits it broke,
      of a stuck value the value itself, of a silence 0 and the seconds allowed
    - bad_values: IDENTITY, metric, value, low, high; bad_readings: IDENTITY
    - where a metric has a meter: the tables of etl.kernel_energy
    """
    with np.errstate(all="ignore"):
        return _derive(rows.combine_chunks(), metrics, grain, past, phases)


def _derive(table: pa.Table, metrics: Sequence[Metric], grain: str, past: Past, phases: Phases) -> dict[str, pa.Table]:
    device, event = _codes(table["device_id"]), _micros(table["event_time"])
    starts = _floor(event, UNITS[grain])
    rows = _Ordered(table.append_column("starts_at", _moments(starts)), _order(table, device, event))
    device, event, starts = device[rows.order], event[rows.order], starts[rows.order]
    values = {m.name: _finite(table[m.name])[rows.order] for m in metrics}

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
    first = np.flatnonzero(np.diff(series, prepend=-1))
    ids = rows.at(first, ("device_id",))["device_id"].to_pylist()
    known_as = [*zip(ids, _floor(starts[first], "D").tolist(), strict=True)]
    rollups: list[pa.Table] = []
    anomalies: list[pa.Table] = []
    bad_values: list[pa.Table] = []
    energy: dict[str, pa.Table] = {}
    for m in metrics:
        value, good = values[m.name], known[m.name] & ~bad[m.name]
        gauge = np.flatnonzero(good & m.gauge)
        found = {
            "range": _beyond(value, np.flatnonzero(outside[m.name]), m.low, m.high),
            "zscore": _scores(value, gauge, series),
            "rate": _changes(m, value, gauge, series, event),
            "stuck": _stuck(m, value, gauge, series, event),
            "missing": _silences(m, np.flatnonzero(known[m.name]), series, event),
            "unseen": _unseen(value, gauge, series, [past.get((m.name, *one), EVERYTHING) for one in known_as]),
        }
        unusual = np.zeros_like(good)
        for kind, (places, score, low, high) in found.items():
            unusual[places] = True
            columns = {"value": value[places], "score": score, "low": low, "high": high}
            anomalies.append(_beside(rows.at(places, OF_ANOMALY), columns, metric=m.name, kind=kind))
        rollups += buckets.rollups(m.name, value, good, unusual)
        places, _, low, high = _beyond(value, np.flatnonzero(bad[m.name]), m.low, m.high)
        columns = {"value": value[places], "low": low, "high": high}
        bad_values.append(_beside(rows.at(places, IDENTITY), columns, metric=m.name))
        if m.meter:
            energy = energy_tables(m.meter, series, event, value, np.flatnonzero(good), rows.at, phases)
    return {
        "counts": _counts(starts, _integers(table["spec_version"])[rows.order], counted),
        "rollups": pa.concat_tables(rollups),
        "anomalies": pa.concat_tables(anomalies),
        "bad_values": pa.concat_tables(bad_values),
        "bad_readings": rows.at(np.flatnonzero(quarantined), IDENTITY),
        **energy,
    }


@dataclass(frozen=True)
class _Ordered:
    """Rows by device, time and Kafka position. A column is put in order for those rows of which it is asked."""

    table: pa.Table
    order: np.ndarray

    def at(self, places: np.ndarray, names: Sequence[str]) -> pa.Table:
        return self.table.select(names).take(self.order[places])


def _order(rows: pa.Table, device: np.ndarray, event: np.ndarray) -> np.ndarray:
    position = (_codes(rows["kafka_topic"]), _integers(rows["kafka_offset"]), _integers(rows["kafka_partition"]))
    return np.lexsort((*position, event, device))


def _counts(starts: np.ndarray, version: np.ndarray, counted: Mapping[str, np.ndarray]) -> pa.Table:
    found, which = np.unique(starts, return_inverse=True)
    newest = np.zeros(len(found), np.int64)
    np.maximum.at(newest, which, version)
    columns = {name: np.bincount(which[mask], minlength=len(found)) for name, mask in counted.items()}
    return pa.table({"starts_at": _moments(found), "spec_version": newest, **columns})


def _copies(rows: _Ordered, values: Mapping[str, np.ndarray], moment: np.ndarray) -> np.ndarray:
    """True for duplicates. Only rows that share device and time (`moment`) with another are looked at."""
    candidates = np.flatnonzero(np.bincount(moment)[moment] > 1)
    shared = rows.at(candidates, ("seq", "carried", "kafka_timestamp"))
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


def _beyond(value: np.ndarray, places: np.ndarray, low: "float | np.ndarray", high: "float | np.ndarray") -> Found:
    """All of these places; the score is how far from the nearer limit."""
    x = value[places]
    return Found(places, np.where(x < low, low - x, x - high), np.zeros_like(x) + low, np.zeros_like(x) + high)


def _unseen(value: np.ndarray, sample: np.ndarray, series: np.ndarray, limits: Sequence[tuple[float, float]]) -> Found:
    """`limits` of each series. A run of values beyond them is told at its first."""
    if all(of_series == EVERYTHING for of_series in limits):
        return NONE
    low, high = np.array(limits)[series[sample]].T
    beyond = (value[sample] < low) | (value[sample] > high)
    begins = beyond & (np.diff(_numbered(series[sample], beyond), prepend=-1) != 0)
    return _beyond(value, sample[begins], low[begins], high[begins])


def _scores(value: np.ndarray, sample: np.ndarray, series: np.ndarray) -> Found:
    """None has a score of too few values, or where all of them are equal."""
    of, x = series[sample], value[sample]
    median, sigma = _medians_and_deviations(x, np.bincount(of, minlength=series[-1] + 1))
    z = (x - median[of]) / sigma[of]
    beyond = np.abs(z) > Z_LIMIT
    of = of[beyond]
    return Found(sample[beyond], z[beyond], median[of] - Z_LIMIT * sigma[of], median[of] + Z_LIMIT * sigma[of])


def _changes(m: Metric, value: np.ndarray, sample: np.ndarray, series: np.ndarray, event: np.ndarray) -> Found:
    if m.change == np.inf:
        return NONE
    before, after = _neighbours(sample, series)
    times = np.maximum(1.0, (event[after] - event[before]) / 1e6 / m.within)
    rate = np.abs(value[after] - value[before]) / times
    over = rate > m.change
    was, room = value[before[over]], m.change * times[over]
    return Found(after[over], rate[over], was - room, was + room)


def _silences(m: Metric, heard: np.ndarray, series: np.ndarray, event: np.ndarray) -> Found:
    if m.silent_after == np.inf:
        return NONE
    before, after = _neighbours(heard, series)
    seconds = (event[after] - event[before]) / 1e6
    over = seconds > m.silent_after
    allowed = np.full(np.count_nonzero(over), m.silent_after)
    return Found(after[over], seconds[over], np.zeros_like(allowed), allowed)


def _neighbours(places: np.ndarray, series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each place and the next, where both are of one series."""
    together = np.diff(series[places]) == 0
    return places[:-1][together], places[1:][together]


def _stuck(m: Metric, value: np.ndarray, sample: np.ndarray, series: np.ndarray, event: np.ndarray) -> Found:
    if m.stuck_after == np.inf or not len(sample):
        return NONE
    run = _numbered(series[sample], value[sample])
    first, at = np.flatnonzero(np.diff(run, prepend=-1)), event[sample]
    n = np.diff(first, append=len(run))
    since = (at - at[first][run]) / 1e6
    late = (since > m.stuck_after) & (n[run] >= STUCK_VALUES)
    told = np.flatnonzero(late & ~np.r_[False, late[:-1]])  # a run's first is never late
    lasts = since[(first + n - 1)[run[told]]]
    return Found(sample[told], lasts, value[sample[told]], value[sample[told]])


def _medians_and_deviations(x: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each run of `n` values, NaN of those too short or all equal. Sorting each run where it lies is 10 to 40 times
    faster than one sort by run and value."""
    ordered, first = x.copy(), np.cumsum(n) - n
    median, sigma = np.full(len(n), np.nan), np.full(len(n), np.nan)
    for i in np.flatnonzero(n >= MIN_VALUES).tolist():
        run = ordered[first[i] : first[i] + n[i]]
        run.sort()
        tail = max(1, int(TAIL * n[i]))
        median[i] = 0.5 * run[(n[i] - 1) // 2] + 0.5 * run[n[i] // 2]
        sigma[i] = (run[-1 - tail] - run[tail]) * TAILS_TO_SIGMA
        if sigma[i] == 0:
            sigma[i] = np.abs(run - median[i]).mean() * MEAN_DEVIATION_TO_SIGMA
    return median, np.where(sigma > 0, sigma, np.nan)


class _Buckets:
    """Of every grain. They are runs of the rows, once these are put by site: a device may move within a bucket."""

    def __init__(self, rows: _Ordered, device: np.ndarray, event: np.ndarray):
        site = _codes(rows.table["site"])[rows.order]
        self._order = np.argsort(device * (site.max() + 1) + site, kind="stable")
        self._rows = rows
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
                "bucket": _moments(self._starts[grain][kept[first]]),
                "count": n, "mean": x[first] + mean,
                "min": _runs(np.minimum, x, first), "max": _runs(np.maximum, x, first),
                "stddev": pa.array(np.sqrt(squares / (n - 1)), mask=n < 2), "last": x[first + n - 1],
                "anomalies": _runs(np.add, anomalous, first),
            }  # fmt: skip
            of = self._rows.at(places[first], ("starts_at", "device_id", "site"))
            yield _beside(of, columns, metric=metric, grain=grain)


def _runs(reduce: np.ufunc, x: np.ndarray, first: np.ndarray) -> np.ndarray:
    return reduce.reduceat(x, first) if len(x) else x


def _beside(table: pa.Table, columns: Mapping[str, "np.ndarray | pa.Array"], **texts: str) -> pa.Table:
    """With columns of as many rows, and of texts that are the same in all."""
    same = {name: pa.repeat(text, table.num_rows) for name, text in texts.items()}
    for name, column in {**same, **columns}.items():
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
    texts = column.combine_chunks().cast(pa.list_(pa.string()))
    encoded = pc.fill_null(pc.binary_join(texts, ","), "\0").dictionary_encode()
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
