"""Known values of one device's metric over time, and what the window functions say about them.

Entries stand in order of event time, equal times in order of arrival. 16 bytes each: an array of times (epoch µs) and
one of values. What no rule can look at any more is dropped in batches.
"""

import math
from array import array
from bisect import bisect_right
from itertools import pairwise

MAX_READINGS = 10_000
SLACK = 16
"""Dead entries before the arrays are cut: cutting one by one would move 10,000 entries for each reading."""


class Window:
    __slots__ = ("start", "times", "values")

    def __init__(self, times: bytes = b"", values: bytes = b""):
        self.times = array("q")
        self.values = array("d")
        self.times.frombytes(times)
        self.values.frombytes(values)
        self.start = 0
        """Entries before it are out of reach."""

    def __len__(self) -> int:
        return len(self.times) - self.start

    def add(self, time_us: int, value: float, reach_us: int) -> None:
        """A known value. What is not younger than `reach_us` is dropped: no evaluation to come can see it."""
        times = self.times
        if not times or time_us >= times[-1]:
            times.append(time_us)
            self.values.append(value)
        else:
            place = bisect_right(times, time_us, self.start)
            times.insert(place, time_us)
            self.values.insert(place, value)
        start = self.start
        if times[start] <= reach_us:
            start = bisect_right(times, reach_us, start)
        start = max(start, len(times) - MAX_READINGS)
        if start > SLACK and start * 2 > len(times):
            del times[:start], self.values[:start]
            start = 0
        self.start = start

    def after(self, since_us: int) -> int:
        """The place of the first entry younger than that."""
        return bisect_right(self.times, since_us, self.start)

    def dump(self) -> tuple[bytes, bytes]:
        return self.times[self.start :].tobytes(), self.values[self.start :].tobytes()


def avg(window: Window, since_us: int) -> float | None:
    values = window.values[window.after(since_us) :]
    total = exact_sum(values)
    return None if total is None or not values else total / len(values)


def sum_(window: Window, since_us: int) -> float | None:
    values = window.values[window.after(since_us) :]
    return exact_sum(values) if values else None


def min_over(window: Window, since_us: int) -> float | None:
    return min(window.values[window.after(since_us) :], default=None)


def max_over(window: Window, since_us: int) -> float | None:
    return max(window.values[window.after(since_us) :], default=None)


def stddev(window: Window, since_us: int) -> float | None:
    """The sample's, in two passes; unknown below two."""
    values = window.values[window.after(since_us) :]
    total = exact_sum(values)
    if total is None or len(values) < 2:
        return None
    mean = total / len(values)
    squares = exact_sum([(value - mean) * (value - mean) for value in values])
    return None if squares is None else math.sqrt(squares / (len(values) - 1))


def count(window: Window, since_us: int) -> float:
    return float(len(window.times) - window.after(since_us))


def delta(window: Window, since_us: int) -> float | None:
    place = window.after(since_us)
    if len(window.times) - place < 2:
        return None
    return finite(window.values[-1] - window.values[place])


def rate(window: Window, since_us: int) -> float | None:
    """Per second, from the first value to the last."""
    place = window.after(since_us)
    if len(window.times) - place < 2 or window.times[-1] == window.times[place]:
        return None
    seconds = (window.times[-1] - window.times[place]) / 1e6
    return finite((window.values[-1] - window.values[place]) / seconds)


def counter_rate(window: Window, since_us: int) -> float | None:
    """Per second: the sum of increases, where a fall is a reset and counts from zero."""
    place = window.after(since_us)
    if len(window.times) - place < 2 or window.times[-1] == window.times[place]:
        return None
    increases = exact_sum([increase(before, after) for before, after in pairwise(window.values[place:])])
    return None if increases is None else finite(increases / ((window.times[-1] - window.times[place]) / 1e6))


def increase(before: float, after: float) -> float:
    """Of a counter between two known values: a fall is a reset, and counts from zero."""
    return after - before if after >= before else after


def finite(value: float) -> float | None:
    """Arithmetic that fails is unknown."""
    return value if value - value == 0.0 else None


def exact_sum(values: "array[float] | list[float]") -> float | None:
    try:
        return finite(math.fsum(values))
    except (OverflowError, ValueError):  # beyond the largest double; inf and -inf among the addends
        return None
