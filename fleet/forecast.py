"""How much energy a home will have used by the end of the day or the month: what it has used, and what it usually uses
in the hours that are left. Pure, and says how it came to it.

What is usual in an hour is the median of the same weekday and hour of the weeks before; where there are too few of
them, of the same hour of any day. Where even these are too few there is no forecast: a guess would raise alerts.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from zoneinfo import ZoneInfo

from fleet.consumption import LEAST_WEEKS

Slot = tuple[int, int]
"""(weekday, hour), local."""
LEAST_DAYS = 3
HOUR = timedelta(hours=1)


class Usual:
    """What a home usually uses in an hour, in Wh."""

    def __init__(self, history: Mapping[Slot, Sequence[float]]):
        """Of each slot what was used in it, an hour each."""
        self._by_slot = {slot: median(values) for slot, values in history.items() if len(values) >= LEAST_WEEKS}
        of_hour: dict[int, list[float]] = {}
        for (_, hour), values in history.items():
            of_hour.setdefault(hour, []).extend(values)
        self._by_hour = {hour: median(values) for hour, values in of_hour.items() if len(values) >= LEAST_DAYS}

    def watt_hours(self, slot: Slot) -> float | None:
        return self._by_slot.get(slot, self._by_hour.get(slot[1]))

    def is_of_weekday(self, slot: Slot) -> bool:
        return slot in self._by_slot


@dataclass(frozen=True)
class Forecast:
    """kWh; `total` and `rest` are None where some hour that is left has no past."""

    used: float
    rest: float | None
    hours_left: float
    by_weekday: int
    """Hours left of which the same weekday is known; of the others any day was taken."""
    unknown: str
    """An hour of which nothing is known; empty where there is none."""

    @property
    def total(self) -> float | None:
        return None if self.rest is None else self.used + self.rest

    @property
    def explanation(self) -> str:
        if self.rest is None:
            return f"{self.used:.2f} kWh so far; no forecast: too little is known of {self.unknown}"
        return (
            f"{self.used:.2f} kWh so far + {self.rest:.2f} kWh usual in the {self.hours_left:.1f} hours left"
            f" ({self.by_weekday} of them by their weekday) = {self.total:.2f} kWh"
        )


def forecast(used_kilowatt_hours: float, since: datetime, until: datetime, zone: ZoneInfo, usual: Usual) -> Forecast:
    """`since`: up to then `used` is known; aware."""
    rest, by_weekday, left, unknown = 0.0, 0, 0.0, ""
    for local, share in hours_between(since, until, zone):
        slot = local.weekday(), local.hour
        watt_hours = usual.watt_hours(slot)
        if watt_hours is None:
            unknown = unknown or f"{local:%A %H:00}"
            continue
        rest, left = rest + watt_hours / 1000 * share, left + share
        by_weekday += usual.is_of_weekday(slot)
    return Forecast(used_kilowatt_hours, None if unknown else rest, left, by_weekday, unknown)


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


def history(hours: Iterable[tuple[datetime, float]]) -> dict[Slot, list[float]]:
    """Of (local beginning, Wh of the whole home)."""
    found: dict[Slot, list[float]] = {}
    for local, watt_hours in hours:
        found.setdefault((local.weekday(), local.hour), []).append(watt_hours)
    return found
