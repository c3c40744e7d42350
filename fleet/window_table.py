"""Windows of one metric for all devices of a type: rings of equal length, a row a device.

The content is fleet.window.Window's, entry by entry. Beside each value stands the sum of those before it, so that a
window of any length is two places in a ring and a difference. Such a sum is not correctly rounded, but its error is
bounded, and what the bounds do not decide is evaluated exactly.

Readings are appended behind a ring's end, where nothing is overwritten that is still in reach; they count when
`commit` moves the end.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fleet.column_condition import Term, exact
from fleet.text import Bools, Doubles, Ints
from fleet.window import MAX_READINGS, Window

ROUNDING = 2.0**-52
"""Twice what the rounding of one operation can be, relative to its result."""
SETTLE = 4096
"""Additions after which a ring's sums are made anew: their errors add up."""
FIRST_LENGTH = 16
SHORT, OUTLIER = 512, 8
"""Rings are as long as the longest window needs, but for devices with more than SHORT entries, and OUTLIER times the
mean: one device of 10,000 entries would make rings of 400 KB for all."""
GATHERED = 1 << 18
"""Entries that are copied at once for functions that look at each of them."""


class Appended:
    """A batch's readings in the rings. `ends`, by reading: the place after the last entry at that reading. By device,
    after its last reading: sums, their errors."""

    __slots__ = ("ends", "errors", "known", "slots", "sums", "times")

    def __init__(self, slots: Ints, times: Ints, known: Bools, ends: Ints, sums: Doubles, errors: Doubles):
        self.slots, self.times, self.known, self.ends, self.sums, self.errors = slots, times, known, ends, sums, errors


class WindowTable:
    def __init__(self, length_us: int, capacity: int):
        self.limit = SHORT
        """Entries that a device may have here."""
        self.length_us = length_us
        """Of the longest window that any rule looks at."""
        self.first = np.zeros(capacity, np.int64)
        self.ends = np.zeros(capacity, np.int64)
        """Places count on without end; in the ring they are taken modulo its length, a power of two."""
        self.sums = np.zeros(capacity)
        """Of all values since they were last settled."""
        self.errors = np.zeros(capacity)
        """How far a difference of two such sums can be from the true one."""
        self.added = np.zeros(capacity, np.int64)
        self._make(capacity, FIRST_LENGTH)

    def _make(self, capacity: int, length: int) -> None:
        self.times = np.zeros((capacity, length), np.int64)
        self.values = np.zeros((capacity, length))
        self.before = np.zeros((capacity, length))
        """The sum of the values before each."""

    @property
    def ring(self) -> int:
        return self.times.shape[1]

    def grow(self, capacity: int) -> None:
        """To more devices."""
        more = capacity - len(self.first)
        for name in ("first", "ends", "sums", "errors", "added", "times", "values", "before"):
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros((more, *old.shape[1:]), old.dtype)]))

    def counts(self, slots: Ints) -> Ints:
        return self.ends[slots] - self.first[slots]

    def fits(self, slots: Ints, more: Ints) -> Bools:
        """Whether so many readings can be appended to each; the rings are made longer for them."""
        wanted = self.counts(slots) + more
        fits: Bools = wanted <= min(self.limit, MAX_READINGS)
        self._lengthen(int(wanted[fits].max(initial=0)))
        return fits

    def _lengthen(self, wanted: int) -> None:
        length, old_length = self.ring, self.ring
        while length < wanted:
            length *= 2
        if length == old_length:
            return
        places = self.first[:, None] + np.arange(old_length)
        rows, columns = np.nonzero(places < self.ends[:, None])
        at = places[rows, columns]
        old = self.times, self.values, self.before
        self._make(len(self.first), length)
        for array, before in zip((self.times, self.values, self.before), old, strict=True):
            array[rows, at & (length - 1)] = before[rows, at & (old_length - 1)]

    # One device

    def store(self, slot: int, window: Window) -> None:
        count = len(window)
        self._lengthen(count)
        self.first[slot], self.ends[slot] = 0, count
        self.times[slot, :count] = window.times[window.start :]
        self.values[slot, :count] = window.values[window.start :]
        self._settle(slot)

    def load(self, slot: int) -> Window:
        places = np.arange(self.first[slot], self.ends[slot]) & (self.ring - 1)
        return Window(self.times[slot, places].tobytes(), self.values[slot, places].tobytes())

    def _settle(self, slot: int) -> None:
        places = np.arange(self.first[slot], self.ends[slot]) & (self.ring - 1)
        with np.errstate(over="ignore", invalid="ignore"):
            sums = np.concatenate([[0.0], np.cumsum(self.values[slot, places])])
            self.errors[slot] = ROUNDING * np.abs(sums).sum()
        self.before[slot, places] = sums[:-1]
        self.sums[slot] = sums[-1]
        self.added[slot] = len(places)

    # All devices

    def dump(self, slots: Ints) -> tuple[Ints, Ints, Doubles]:
        """(entries of each, their times and values one after the other)"""
        counts = self.counts(slots)
        rows = np.repeat(slots, counts)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        flat = rows * self.ring + ((self.first[rows] + within) & (self.ring - 1))
        return counts, self.times.reshape(-1)[flat], self.values.reshape(-1)[flat]

    def restore(self, counts: Ints, times: Ints, values: Doubles) -> None:
        """The same, of a new table's first slots."""
        self._lengthen(int(counts.max(initial=0)))
        slots = np.arange(len(counts))
        rows = np.repeat(slots, counts)
        flat = rows * self.ring + np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.times.reshape(-1)[flat] = times
        self.values.reshape(-1)[flat] = values
        self.ends[slots] = self.added[slots] = counts
        with np.errstate(over="ignore", invalid="ignore"):
            sums = np.cumsum(self.values[slots], axis=1)
            self.errors[slots] = ROUNDING * np.abs(sums).sum(axis=1)
        self.before[slots, 1:] = sums[:, :-1]
        self.sums[slots] = sums[:, -1]

    # Batches

    def append(self, slots: Ints, times: Ints, values: Doubles, waves: list[Any]) -> Appended:
        """Readings by device, each device's in order; NaN is not kept. `waves`: places of the first of each device, of
        the second of each, and so on. Nothing counts yet. `fits` has said that there is room."""
        known = ~np.isnan(values)
        sums, errors, counts = self.sums.copy(), self.errors.copy(), self.ends.copy()
        ends = np.empty_like(slots)
        mask = self.ring - 1
        for wave in waves:
            those, has = slots[wave], known[wave]
            ends[wave] = counts[those] + has
            if not has.all():
                wave = np.arange(len(slots))[wave][has]
                those = slots[wave]
            flat = those * self.ring + (counts[those] & mask)
            counts[those] += 1
            self.times.reshape(-1)[flat] = times[wave]
            self.values.reshape(-1)[flat] = values[wave]
            sum_ = sums[those]
            self.before.reshape(-1)[flat] = sum_
            sum_ = sum_ + values[wave]
            sums[those] = sum_
            errors[those] += ROUNDING * np.abs(sum_)
        return Appended(slots, times, known, ends, sums, errors)

    def commit(self, appended: Appended, rows: Any) -> None:
        """`rows`: the last known reading of each device whose readings are to count."""
        slots, ends = appended.slots[rows], appended.ends[rows]
        self.added[slots] += ends - self.ends[slots]
        self.ends[slots] = ends
        self.sums[slots] = appended.sums[slots]
        self.errors[slots] = appended.errors[slots]
        reach = appended.times[rows] - self.length_us
        self.first[slots] = self._younger(slots, self.first[slots], ends, reach)
        for slot in slots[(self.added[slots] > SETTLE) | ~np.isfinite(self.sums[slots])].tolist():
            self._settle(slot)

    def _younger(self, slots: Ints, low: Ints, high: Ints, than_us: Ints) -> Ints:
        """Per row, the first place from `low` on whose entry is younger, or `high`: binary searches side by side."""
        low, high = low.copy(), high.copy()
        times, mask, base = self.times.reshape(-1), self.ring - 1, slots * self.ring
        for _ in range(int((high - low).max(initial=0)).bit_length()):
            middle = (low + high) >> 1
            right = (times[base + (middle & mask)] <= than_us) & (low < high)
            low = np.where(right, middle + 1, low)
            high = np.where(right, high, middle)
        return low

    # What window functions say, by reading

    def look(self, function: str, appended: Appended, reach_us: int, memo: dict[Any, Any]) -> Term:
        """`memo`: of this batch and window, what several functions need."""
        slots, ends = appended.slots, appended.ends
        if reach_us not in memo:
            memo[reach_us] = self._younger(slots, self.first[slots], ends, appended.times - reach_us)
        begins = memo[reach_us]
        counts = ends - begins
        if function == "count":
            return exact(counts.astype(np.float64))
        if function in ("delta", "rate"):
            first, last = self._at(self.values, slots, begins), self._at(self.values, slots, ends - 1)
            change = last - first
            if function == "rate":
                change = change / self._seconds(slots, begins, ends)
            return exact(np.where((counts >= 2) & np.isfinite(change), change, np.nan))
        if function in ("avg", "sum"):
            total = self._sum(appended, begins)
            low, high = (total.low, total.high) if function == "sum" else (total.low / counts, total.high / counts)
            return Term(np.where(counts > 0, low, np.nan), np.where(counts > 0, high, np.nan))
        return self._over_each(function, slots, begins, ends)

    def _at(self, array: Any, slots: Ints, places: Ints) -> Any:
        return array.reshape(-1)[slots * self.ring + (places & (self.ring - 1))]

    def _seconds(self, slots: Ints, begins: Ints, ends: Ints) -> Doubles:
        seconds = (self._at(self.times, slots, ends - 1) - self._at(self.times, slots, begins)) / 1e6
        return np.where(seconds > 0.0, seconds, np.nan)

    def _sum(self, appended: Appended, begins: Ints) -> Term:
        slots, last = appended.slots, appended.ends - 1
        end = self._at(self.before, slots, last) + self._at(self.values, slots, last)
        total = end - self._at(self.before, slots, begins)
        # The errors of all readings of the batch are counted for each, and those of the operations here.
        error = appended.errors[slots] + 2 * ROUNDING * (np.abs(total) + np.abs(end))
        return _between(total - error, total + error)

    def _over_each(self, function: str, slots: Ints, begins: Ints, ends: Ints) -> Term:
        """Functions that look at each entry."""
        low, high = np.full(len(slots), np.nan), np.full(len(slots), np.nan)
        for rows, values, inside in self._entries(slots, begins, ends):
            term = EACH[function](values, inside)
            low[rows], high[rows] = term.low, term.high
        if function == "counter_rate":
            seconds = self._seconds(slots, begins, ends)
            return _between(low / seconds, high / seconds, np.isnan(low) | np.isnan(seconds))
        return Term(low, high)

    def _entries(self, slots: Ints, begins: Ints, ends: Ints) -> Iterator[tuple[slice, Doubles, Bools]]:
        """Some readings at a time: their values, a row a reading, and which of the places are in the window."""
        longest = max(int((ends - begins).max(initial=0)), 1)
        step = max(GATHERED // longest, 1)
        for start in range(0, len(slots), step):
            rows = slice(start, start + step)
            places = begins[rows, None] + np.arange(longest)
            flat = slots[rows, None] * self.ring + (places & (self.ring - 1))
            yield rows, self.values.reshape(-1)[flat], places < ends[rows, None]


def limit_of(mean: float) -> int:
    """Entries that a device may have in a ring, where so many are usual."""
    return max(SHORT, round(OUTLIER * mean))


def _between(low: Doubles, high: Doubles, unknown: Any = False) -> Term:
    """What overflowed can be anything."""
    wild = ~(np.isfinite(low) & np.isfinite(high))
    return Term(
        np.where(unknown, np.nan, np.where(wild, -np.inf, low)),
        np.where(unknown, np.nan, np.where(wild, np.inf, high)),
    )


def _least(values: Doubles, inside: Bools) -> Term:
    return _known_of(np.where(inside, values, np.inf).min(axis=1), inside)


def _greatest(values: Doubles, inside: Bools) -> Term:
    return _known_of(np.where(inside, values, -np.inf).max(axis=1), inside)


def _known_of(found: Doubles, inside: Bools) -> Term:
    return exact(np.where(inside.any(axis=1), found, np.nan))


def _stddev(values: Doubles, inside: Bools) -> Term:
    """By the triangle inequality for the vector of deviations, each of which is off by some roundings of the largest
    value."""
    counts = inside.sum(axis=1)
    values = np.where(inside, values, 0.0)
    largest = np.abs(values).max(axis=1)
    mean = values.sum(axis=1) / counts
    deviations = np.where(inside, values - mean[:, None], 0.0)
    found = np.sqrt((deviations * deviations).sum(axis=1) / (counts - 1))
    # Squares of tiny deviations vanish: each is off by 2^-538 at most.
    error = 8 * (counts + 8) * ROUNDING * (largest + found) + 1e-150
    return _between(np.maximum(found - error, 0.0), found + error, counts < 2)


def _increases(values: Doubles, inside: Bools) -> Term:
    steps = np.where(values[:, 1:] >= values[:, :-1], values[:, 1:] - values[:, :-1], values[:, 1:])
    steps = np.where(inside[:, 1:], steps, 0.0)
    total = steps.sum(axis=1)
    error = 2 * steps.shape[1] * ROUNDING * np.abs(steps).sum(axis=1)
    return _between(total - error, total + error, inside.sum(axis=1) < 2)


EACH: dict[str, Callable[[Doubles, Bools], Term]] = {
    "min_over": _least, "max_over": _greatest, "stddev": _stddev, "counter_rate": _increases,
}  # fmt: skip
