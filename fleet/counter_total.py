"""Running totals of a counter: its increase in the present local day and month of the device's site."""

import math

from fleet.local_time import LocalTime
from fleet.window import finite, increase


class CounterTotal:
    """Sums are exact: `day_sum` and `month_sum` are lists of floats that do not overlap (Shewchuk's partials), so
    that a month of small steps ends where one fsum over them would."""

    __slots__ = ("day", "day_sum", "last", "month", "month_sum")

    def __init__(
        self,
        last: float | None = None,
        day: int | None = None,
        day_sum: list[float] | None = None,
        month: int | None = None,
        month_sum: list[float] | None = None,
    ):
        self.last = last
        """The last known value of an in-order reading."""
        self.day, self.day_sum = day, day_sum or []
        self.month, self.month_sum = month, month_sum or []

    def add(self, time_us: int, value: float, local: LocalTime) -> None:
        """A known value of an in-order reading: what it adds belongs to its own day, also across midnight."""
        day, month = local.day(time_us), local.month(time_us)
        if day != self.day:
            self.day, self.day_sum = day, []
        if month != self.month:
            self.month, self.month_sum = month, []
        if self.last is not None:
            step = increase(self.last, value)
            _add(self.day_sum, step)
            _add(self.month_sum, step)
        self.last = value

    def dump(self) -> tuple[float | None, int | None, list[float], int | None, list[float]]:
        return self.last, self.day, self.day_sum, self.month, self.month_sum


def today(total: CounterTotal, local: LocalTime, time_us: int) -> float | None:
    return _total(total.day_sum) if total.day == local.day(time_us) else 0.0


def this_month(total: CounterTotal, local: LocalTime, time_us: int) -> float | None:
    return _total(total.month_sum) if total.month == local.month(time_us) else 0.0


def _total(partials: list[float]) -> float | None:
    try:
        return finite(math.fsum(partials))
    except (OverflowError, ValueError):
        return None


def _add(partials: list[float], x: float) -> None:
    kept = 0
    for y in partials:
        if abs(x) < abs(y):
            x, y = y, x
        high = x + y
        low = y - (high - x)
        if low:
            partials[kept] = low
            kept += 1
        x = high
    partials[kept:] = [x]
