"""How much energy a home will have used by the end of the day or the month: what it has used, and what it usually uses
in the hours that are left. Pure, and says how it came to it.

What is usual is the median of what the hours left took together in each of the weeks before, by weekday and hour; where
there are too few weeks, in each of the days before, by the hour. Where even these are too few there is no forecast: a
guess would raise alerts.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from zoneinfo import ZoneInfo

from fleet.consumption import LEAST_WEEKS, WEEK, Slot, slot_of, sums_before

LEAST_DAYS = 3
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
Past = Sequence[tuple[datetime, float]]
"""(local beginning, Wh of the whole home), an hour each."""


@dataclass(frozen=True)
class Forecast:
    """kWh; `total` and `rest` are None where too little is known of the past."""

    used: float
    rest: float | None
    hours_left: float
    basis: str
    """By what the rest is meant: `8 weeks`, `5 days`."""

    @property
    def total(self) -> float | None:
        return None if self.rest is None else self.used + self.rest

    @property
    def explanation(self) -> str:
        if self.rest is None:
            return f"{self.used:.2f} kWh so far; no forecast: too little is known of the days before"
        return (
            f"{self.used:.2f} kWh so far + {self.rest:.2f} kWh usual in the {self.hours_left:.1f} hours left"
            f" (by {self.basis} before) = {self.total:.2f} kWh"
        )


def forecast(used_kilowatt_hours: float, since: datetime, until: datetime, zone: ZoneInfo, past: Past) -> Forecast:
    """`since`: up to then `used` is known; aware."""
    left: dict[Slot, float] = defaultdict(float)
    of_hour: dict[int, float] = defaultdict(float)
    for local, share in hours_between(since, until, zone):
        left[slot_of(local)] += share
        of_hour[local.hour] += share
    hours = sum(left.values())
    start = since.astimezone(zone).replace(minute=0, second=0, microsecond=0)
    if len(weeks := sums_before(left, past, start, WEEK, slot_of)) >= LEAST_WEEKS:
        return Forecast(used_kilowatt_hours, median(weeks) / 1000, hours, f"{len(weeks)} weeks")
    if len(days := sums_before(of_hour, past, start, DAY, lambda local: local.hour)) >= LEAST_DAYS:
        return Forecast(used_kilowatt_hours, median(days) / 1000, hours, f"{len(days)} days")
    return Forecast(used_kilowatt_hours, None if hours else 0.0, hours, "nothing")


def hours_between(since: datetime, until: datetime, zone: ZoneInfo) -> Iterator[tuple[datetime, float]]:
    """Local hours, each with the share of it that lies between. They go by UTC: 23 or 25 on days when clocks change."""
    begin = since
    while begin < until:
        local = begin.astimezone(zone)
        end = min(until, begin + HOUR - timedelta(minutes=local.minute, seconds=local.second,
                                                  microseconds=local.microsecond))  # fmt: skip
        yield local, (end - begin) / HOUR
        begin = end


def day_of(moment: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The local day: from midnight up to the next, in UTC."""
    local = moment.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    return local.astimezone(UTC), (local + timedelta(days=1)).astimezone(UTC)


def month_of(moment: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    begin = moment.astimezone(zone).replace(day=1, hour=0, minute=0, second=0, microsecond=0, fold=0)
    return begin.astimezone(UTC), (begin + timedelta(days=32)).replace(day=1).astimezone(UTC)
