"""What the kernel derives from a counter of energy, of each device and folder. Pure; goes to Spark's workers with it.

Nothing here reaches over a folder's borders: `ends` has what is needed to close the intervals between folders, which
etl.energy does.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from fleet.energy import Meter, Values, attribute, in_order, intervals

Phases = Mapping[tuple[str, int], int]
"""(site, beginning of the folder in µs) → fleet.energy's phase, where it is not 0."""
NO_PHASES: Phases = {}
MOMENT = pa.timestamp("us", tz="UTC")
At = Callable[[np.ndarray, Sequence[str]], pa.Table]
"""Columns of some of the kernel's rows."""
OF_METER = ("starts_at", "device_id", "site")


def energy_tables(
    meter: Meter, series: np.ndarray, event: np.ndarray, value: np.ndarray, rows: np.ndarray, at: At, phases: Phases
) -> dict[str, pa.Table]:
    """`rows` are those with a good value, by series. All tables have starts_at, device_id and site (of the interval's
    later value), and

    - energy: hour (its beginning), watt_hours
    - unattributed: begins, ends, watt_hours, most_watt_hours, reason, as fleet.energy means them
    - ends, a row for each device: first_at, first, last_at, last (the counter's), and pace_us, the time between its
      last two values, 0 where there is one
    """
    values = in_order(series[rows], event[rows], value[rows], _phases(at, rows, phases))
    between, later = intervals(values)
    shares, out = attribute(between, meter)
    row_of = rows[values.place]
    energy = _summed(row_of[later[shares.interval]], shares.hour_us, shares.watt_hours, at, series)
    unattributed = _beside(
        at(row_of[later[out.interval]], OF_METER),
        begins=_moments(between.begin_us[out.interval]), ends=_moments(between.end_us[out.interval]),
        watt_hours=pa.array(out.watt_hours), most_watt_hours=pa.array(out.most_watt_hours),
        reason=pa.array(out.reason.tolist(), pa.string()),
    )  # fmt: skip
    return {"energy": energy, "unattributed": unattributed, "ends": _ends(values, row_of, at)}


def _phases(at: At, rows: np.ndarray, phases: Phases) -> np.ndarray:
    if not phases:
        return np.zeros(len(rows), np.int64)
    of = at(rows, ("site", "starts_at"))
    sites, starts = of["site"].to_pylist(), of["starts_at"].cast(MOMENT).cast(pa.int64()).to_pylist()
    return np.array([phases.get(one, 0) for one in zip(sites, starts, strict=True)], np.int64)


def _summed(rows: np.ndarray, hour_us: np.ndarray, watt_hours: np.ndarray, at: At, series: np.ndarray) -> pa.Table:
    """A device may move within an hour: each site has its own."""
    if not len(rows):
        return _beside(at(rows, OF_METER), hour=_moments(hour_us), watt_hours=pa.array(watt_hours))
    names = at(rows, ("site",))["site"].combine_chunks().cast(pa.string()).dictionary_encode()
    keys = (hour_us, names.indices.to_numpy(), series[rows])
    order = np.lexsort(keys)
    changed = np.any([np.diff(key[order], prepend=key[order[0]] - 1) != 0 for key in keys], axis=0)
    first = np.flatnonzero(changed)
    sums = np.add.reduceat(watt_hours[order], first)
    return _beside(at(rows[order[first]], OF_METER), hour=_moments(hour_us[order[first]]), watt_hours=pa.array(sums))


def _ends(values: Values, row_of: np.ndarray, at: At) -> pa.Table:
    """The site is the first value's: who comes from the folder before comes there."""
    first = np.flatnonzero(np.diff(values.series, prepend=-1))
    last = np.append(first[1:], len(values.series))[: len(first)] - 1
    pace = np.where(last > first, values.at_us[last] - values.at_us[np.maximum(last - 1, 0)], 0)
    return _beside(
        at(row_of[first], OF_METER),
        first_at=_moments(values.at_us[first]), first=pa.array(values.counter[first]),
        last_at=_moments(values.at_us[last]), last=pa.array(values.counter[last]), pace_us=pa.array(pace),
    )  # fmt: skip


def _beside(table: pa.Table, **columns: pa.Array) -> pa.Table:
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table


def _moments(micros: np.ndarray) -> pa.Array:
    return pa.array(micros.astype(np.int64)).cast(MOMENT)
