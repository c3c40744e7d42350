"""How much energy a meter counted in which hour. Pure: arrays in and out.

A meter counts up; two of its values say how much was used between them, and not when. So each interval between a
value and the next is one of:

- attributed: to the hour that it lies in; where it crosses hours, to each in proportion to time, but only if the
  meter kept its pace: it is no longer than three cadences of the type, or three times the interval before it
- `crossing`: it crosses an hour, and the meter did not keep its pace
- `gap`: the meter was silent for longer than `Meter.gap_us`
- `implausible`: more than the appliance can use in that time, so that no hour can have it

The last three are *unattributed*: one row from value to value, spread nowhere. A value below the one before it is a
reset, and counts from zero. Nothing is ever negative, and what is attributed and what is not is the sum of increases.

Comes to Spark's workers by value, with etl.kernel, and imports no more than it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

HOUR_US = 3_600_000_000
US_PER_HOUR = float(HOUR_US)
PACE = 3
"""Intervals of the meter's pace that may pass where an increase is divided among hours."""
SLACK_US = 60_000_000
"""Of full power, beside the interval itself: a counter moves in steps (10 Wh, often), and its clock is not ours."""
GAP, CROSSING, IMPLAUSIBLE = "gap", "crossing", "implausible"


@dataclass(frozen=True)
class Meter:
    """What is to be known of a counter of energy: fleet.meter has it from the spec."""

    metric: str
    watt_hours: float
    """One unit of the counter."""
    gap_us: int
    """The longest time over which an increase has a time of its own."""
    cadence_us: int
    """0: it reports when it likes, and its own pace alone counts."""
    most_watts: float = np.inf


class Intervals(NamedTuple):
    """From a value of one series to its next. `phase_us` is how long after the full hour of UTC its local hours begin;
    `pace_us` is the interval before, 0 where there is none."""

    begin_us: np.ndarray
    end_us: np.ndarray
    was: np.ndarray
    now: np.ndarray
    pace_us: np.ndarray
    phase_us: np.ndarray


class Shares(NamedTuple):
    """What hours got: the interval's place, the beginning of the hour, and how much."""

    interval: np.ndarray
    hour_us: np.ndarray
    watt_hours: np.ndarray


class Unattributed(NamedTuple):
    """Intervals whose energy no hour got, by place; `most_watt_hours` is what the meter could have counted."""

    interval: np.ndarray
    watt_hours: np.ndarray
    most_watt_hours: np.ndarray
    reason: np.ndarray


class Values(NamedTuple):
    """A meter's values in order: which series each is of, when it was, and the counter."""

    series: np.ndarray
    at_us: np.ndarray
    counter: np.ndarray
    phase_us: np.ndarray
    place: np.ndarray
    """Where it stood before that."""


def in_order(series: np.ndarray, at_us: np.ndarray, counter: np.ndarray, phase_us: np.ndarray) -> Values:
    """By series and time, each once; of one moment the smaller first, so that in whatever order values came, and
    however often, the same comes out."""
    order = np.lexsort((counter, at_us, series))
    if len(order):
        same = [np.diff(column[order]) == 0 for column in (counter, at_us, series)]
        order = order[np.append(True, ~np.all(same, axis=0))]
    return Values(series[order], at_us[order], counter[order], phase_us[order], order)


def intervals(values: Values) -> tuple[Intervals, np.ndarray]:
    """And of each the index in `values` of its later value."""
    series, at, counter, phase, _ = values
    later = np.flatnonzero(series[1:] == series[:-1]) + 1
    before = np.maximum(later - 2, 0)
    has_before = (later >= 2) & (series[before] == series[later])
    pace = np.where(has_before, at[later - 1] - at[before], 0)
    found = Intervals(at[later - 1], at[later], counter[later - 1], counter[later], pace, phase[later])
    return found, later


def increases(was: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Of a counter: a fall is a reset, from which it counts from zero."""
    return np.maximum(np.where(now >= was, now - was, now), 0.0)


def attribute(of: Intervals, meter: Meter) -> tuple[Shares, Unattributed]:
    """An interval without energy is attributed too, with 0, unless it is one that cannot be: that hour was measured."""
    used = increases(of.was, of.now) * meter.watt_hours
    span = of.end_us - of.begin_us
    most = meter.most_watts * (span + SLACK_US) / US_PER_HOUR
    first = (of.begin_us - of.phase_us) // HOUR_US
    # What ends with the hour is all of that hour.
    last = np.maximum((of.end_us - 1 - of.phase_us) // HOUR_US, first)
    keeps_pace = span <= PACE * np.maximum(of.pace_us, meter.cadence_us)
    reason = np.select(
        [used > most, span > meter.gap_us, (last > first) & ~keeps_pace], [IMPLAUSIBLE, GAP, CROSSING], ""
    )
    out = np.flatnonzero((reason != "") & (used > 0))
    kept = np.flatnonzero(reason == "")
    hours = (last - first + 1)[kept]
    place = np.repeat(kept, hours)
    nth = np.arange(len(place)) - np.repeat(np.cumsum(hours) - hours, hours)
    begins = (first[place] + nth) * HOUR_US + of.phase_us[place]
    within = np.minimum(of.end_us[place], begins + HOUR_US) - np.maximum(of.begin_us[place], begins)
    part = np.where(span[place] > 0, within / np.maximum(span[place], 1), 1.0)
    return Shares(place, begins, used[place] * part), Unattributed(out, used[out], most[out], reason[out])
