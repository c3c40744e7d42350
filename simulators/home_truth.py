"""What is true of a simulated home, whatever made it so, and which alerts must tell of it: how much was used, how rooms
are, a stove that nobody looks after.

It is taken from the home itself (watts, °C, who is where), not from what its devices say: their counters fall to zero,
their clocks are wrong, they are stuck. Limits are those of the rules, as the home's devices have them.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from fleet.forecast import day_of, month_of
from fleet.reading import to_datetime, to_epoch_us
from fleet.text import Bools, Doubles
from simulators.home import COUNTS, Home
from simulators.home_batch import LATER_US, QUARTER_US
from simulators.household import DEVICES, WHOLE, Placed
from simulators.incidents import TOLD_WITHIN, Told, openings_at_night
from simulators.routine import DAY, HOUR, MINUTE, Span, common

STEP = 10.0
"""Seconds; the stove's turns are whole steps."""
PAST = 7_000
"""Days before the first are those before this one, so that weekdays are right: a home has no days below 0."""
TOLERANCE = 0.005
"""Of a limit: counters are rounded, and begin the day with their last value of the day before."""
BATCH_TOLD_WITHIN = (QUARTER_US + 2 * LATER_US) / 1e6
"""What the batch tells: it takes what is there each quarter of an hour, and some comes while it does."""
PLUG_LIMITS = {"day_limit": 5_000.0, "month_limit": 100_000.0}
COMFORT_CELSIUS, COMFORT_PERCENT, COMFORT_AFTER = (16.0, 27.0), (25.0, 70.0), 30 * MINUTE
MOULD_BRIDGE, MOULD_PERCENT, MOULD_AFTER = 0.3, 80.0, 6 * HOUR
SLACK = 15 * MINUTE
"""A room is about as damp for so long: the rule's dew point is an approximation."""
STOVE_AFTER, STOVE_LINGERS = 10 * MINUTE, 3 * MINUTE
UTC = ZoneInfo("UTC")
MEASURED = tuple(placed for placed in DEVICES if placed.type in ("smart_plug", "energy_meter"))
WATT_HOURS = {name: unit for name, (unit, _) in COUNTS.items()} | {WHOLE.type: 1000.0}
"""One unit of a limit."""


class Energy(NamedTuple):
    """What a home used, step by step: `end` of each, in seconds since the origin, and Wh by device."""

    end: Doubles
    watt_hours: dict[str, Doubles]

    def within(self, begin: float, end: float) -> slice:
        first, last = np.searchsorted(self.end, [begin + STEP / 2, end + STEP / 2])
        return slice(int(first), int(last))


class Period(NamedTuple):
    """A day or a month, in seconds since the origin, and the limit of it."""

    name: str
    begin: float
    end: float


def energy(home: Home, begin: float, end: float) -> Energy:
    """What was before the origin is as other days of that home are; nothing went wrong then."""
    ends: list[Doubles] = []
    found: dict[str, list[Doubles]] = {placed.name: [] for placed in MEASURED}
    for number in range(int(begin // DAY), int(-(-end // DAY))):
        at = np.arange(max(begin, number * DAY), min(end, (number + 1) * DAY), STEP)
        known = number if number >= 0 else PAST + number
        day = home.day(known)
        for placed in MEASURED:
            found[placed.name].append(home.watt(day, placed, at + (known - number) * DAY) * (STEP / HOUR))
        ends.append(at + STEP)
    return Energy(np.concatenate(ends), {name: np.concatenate(parts) for name, parts in found.items()})


def energy_told(of: Energy, span: Span, origin_us: int, forecasts: bool) -> Iterator[Told]:
    """Alerts that must come within the span. `of` begins where counting does. `forecasts`: it goes on to the end of
    the month, and what is known of the weeks before is enough to forecast by."""
    for period in periods(span, origin_us):
        rows = of.within(period.begin, period.end)
        for placed in (*MEASURED, WHOLE):
            limit = (PLUG_LIMITS | placed.params)[f"{period.name}_limit"] * WATT_HOURS[placed.type]
            used = np.cumsum(of.watt_hours[placed.name or "meter"][rows])
            about, over = (_first(used >= part * limit, of.end[rows]) for part in (1 - TOLERANCE, 1.0))
            if about is None or over is None or over < span[0]:
                continue
            if over < span[1]:
                yield _above(period, placed, about, over)
            if forecasts and placed is WHOLE:
                until = min(over + BATCH_TOLD_WITHIN, span[1])
                yield Told(f"{period.name}_forecast_above_limit", "", max(period.begin, span[0]), until)


def _above(period: Period, placed: Placed, about: float, over: float) -> Told:
    if placed is WHOLE:
        return Told(f"{period.name}_above_limit", "", about, over + BATCH_TOLD_WITHIN)
    rule = {"day": "much_energy_today", "month": "much_energy_this_month"}[period.name]
    return Told(rule, placed.name, about, over + TOLD_WITHIN)


def periods(span: Span, origin_us: int) -> Iterator[Period]:
    """Days and months, UTC as the homes' clocks are, of which a part lies in the span."""

    def seconds(moment: datetime) -> float:
        return (to_epoch_us(moment) - origin_us) / 1e6

    for name, of in (("day", day_of), ("month", month_of)):
        begin, end = of(to_datetime(origin_us) + timedelta(seconds=span[0]), UTC)
        while seconds(begin) < span[1]:
            yield Period(name, seconds(begin), seconds(end))
            begin, end = of(end, UTC)


def room_told(home: Home, span: Span) -> Iterator[Told]:
    """Rooms that nobody likes to be in, and rooms whose walls mould. `home`: nobody has asked it for an hour yet."""
    hours = range(int(span[0] // HOUR), int(-(-span[1] // HOUR)))
    said: dict[str, list[tuple[Doubles, Doubles]]] = {}
    minutes: list[Doubles] = []
    for number in hours:
        at: Doubles = np.arange(61, dtype=np.float64) * MINUTE + number * HOUR
        for room, climate in home.climate(home.day(int(number * HOUR // DAY)), at).items():
            said.setdefault(room, []).append((np.array(climate.celsius[:60]), np.array(climate.percent[:60])))
        minutes.append(at[:60])
    at = np.concatenate(minutes)
    outdoors = np.concatenate([home.outdoors(hour) for hour in minutes])
    kept = (at >= span[0]) & (at < span[1])
    for room, parts in said.items():
        celsius, percent = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        device = f"{room}-climate"
        for begin, end in _lasting(uncomfortable(celsius, percent) & kept, at, COMFORT_AFTER):
            yield Told("uncomfortable", device, begin + COMFORT_AFTER - TOLD_WITHIN, end)
        for begin, end in _lasting(moulds(celsius, percent, outdoors) & kept, at, MOULD_AFTER):
            yield Told("mould_risk", device, begin + MOULD_AFTER - SLACK, end)


def uncomfortable(celsius: Doubles, percent: Doubles) -> Bools:
    (coldest, warmest), (driest, dampest) = COMFORT_CELSIUS, COMFORT_PERCENT
    return (celsius < coldest) | (celsius > warmest) | (percent < driest) | (percent > dampest)


def moulds(celsius: Doubles, percent: Doubles, outdoors: Doubles) -> Bools:
    """Air of 80 % at the coldest spot of the walls (docs/decisions/0047)."""
    wall = celsius - MOULD_BRIDGE * (celsius - outdoors)
    return percent * saturation(celsius) / saturation(wall) > MOULD_PERCENT


def saturation(celsius: Doubles) -> Doubles:
    """Vapour pressure in hPa, by Magnus' formula with Sonntag's constants (Lawrence, BAMS 86, 2005)."""
    found: Doubles = 6.1094 * np.exp(17.625 * celsius / (243.04 + celsius))
    return found


def stove_told(home: Home, span: Span) -> Iterator[Told]:
    """A stove that is on, or was three minutes ago, while all tags have said for ten minutes that nobody is there."""
    for number in range(int(span[0] // DAY), int(-(-span[1] // DAY))):
        day = home.day(number)
        for begin, end in common([(a, b + STOVE_LINGERS) for a, b in home.cooking(day)], day.untagged):
            begin, end = max(begin, span[0]), min(end, span[1])
            if end - begin >= STOVE_AFTER:
                yield Told("stove_switched_off", "stove", begin + STOVE_AFTER, end + TOLD_WITHIN)


def doors_told(home: Home, span: Span) -> Iterator[Told]:
    for number in range(int(span[0] // DAY), int(-(-span[1] // DAY))):
        today = [incident for incident in home.incidents if incident.begin // DAY == number]
        yield from openings_at_night(home.day(number), today, span)


def _first(which: Bools, at: Doubles) -> float | None:
    return float(at[np.argmax(which)]) if which.any() else None


def _lasting(which: Bools, at: Doubles, least: float) -> Iterator[Span]:
    """Where it is so for that long."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], which, [False]]).astype(np.int8)))
    for first, after in edges.reshape(-1, 2).tolist():
        if at[after - 1] - at[first] >= least:
            yield float(at[first]), float(at[after - 1])
