"""A day in a home, as intervals: who is away, who is in which room, which door opens, what cooks and runs.

Times are seconds since the midnight with which the run's first day begins; the home's clock is UTC. A day begins and
ends with everybody asleep at home, so that days can be made one by one. The first day is a Monday, whatever the date,
so that a seed always gives the same homes.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from fleet.text import Bools, Doubles
from simulators.household import RESIDENTS, ROOMS

Span = tuple[float, float]
DAY, HOUR, MINUTE = 86_400.0, 3_600.0, 60.0
WORKS, GOES_OUT, OUT_ON_SUNDAY, TOGETHER = 0.9, 0.2, 0.7, 0.8
"""How likely somebody goes to work, out in the evening, out on a day off, and then with the others."""
SHORTEST_STAY = 45 * MINUTE
AWAY_AFTER = 180.0
"""A tag counts as away so long after it was last near: it may miss a call or two."""
COOKS, WASHES, AIRS = 0.8, 0.4, 0.5
KINDS_OF_ROOM = {"living": 0.5, "kitchen": 0.2, "bedroom": 0.15, "bathroom": 0.1, "hall": 0.05}
DWELL_MINUTES = 25.0


@dataclass
class Day:
    """Of one home."""

    away: list[list[Span]]
    """Of each resident: from the door that closes behind it to the door that opens for it."""
    absent: list[list[Span]] = field(default_factory=list)
    """Of each resident: while its tag says so."""
    asleep: list[list[Span]] = field(default_factory=list)
    rooms: dict[str, list[Span]] = field(default_factory=lambda: {room: [] for room in ROOMS})
    """Where somebody is awake."""
    doors: dict[str, list[Span]] = field(default_factory=dict)
    """By device name: while it is open."""
    stove: list[Span] = field(default_factory=list)
    kettle: list[Span] = field(default_factory=list)
    washer: list[Span] = field(default_factory=list)
    fridge: list[Span] = field(default_factory=list)
    shower: list[Span] = field(default_factory=list)

    @cached_property
    def nobody(self) -> list[Span]:
        """While all are away."""
        return common(*self.away)

    @cached_property
    def untagged(self) -> list[Span]:
        """While all tags say so."""
        return common(*self.absent)


def common(first: list[Span], *others: list[Span]) -> list[Span]:
    """Where all of them overlap."""
    found = first
    for spans in others:
        found = [(max(a, c), min(b, d)) for a, b in found for c, d in spans if max(a, c) < min(b, d)]
    return found


def day_of(seed: int, home: int, number: int) -> Day:
    """`home` from 0, `number` of the day from 0."""
    rng = np.random.default_rng([seed, home, number])
    begin = number * DAY
    at_work = number % 7 < 5
    wake = [begin + (6.75 if at_work else 8.5) * HOUR + float(rng.normal(0, 20 * MINUTE)) for _ in range(RESIDENTS)]
    bed = [begin + 22.75 * HOUR + float(rng.uniform(-45, 50)) * MINUTE for _ in range(RESIDENTS)]
    away = _away(rng, begin, wake, bed, at_work)
    day = Day(away)
    for who in range(RESIDENTS):
        day.asleep.append([(begin, wake[who]), (bed[who], begin + DAY)])
        day.absent.append([(a + AWAY_AFTER + float(rng.uniform(0, 30)), b + float(rng.uniform(-20, 30)))
                           for a, b in away[who]])  # fmt: skip
        _wander(rng, day, who, wake[who], bed[who])
        day.shower.append((wake[who] + 5 * MINUTE, wake[who] + 13 * MINUTE))
    day.doors = {"front-door": _front_door(rng, away), "back-door": [], "bedroom-window": []}
    up = min(wake)
    if rng.random() < AIRS and all(up + 20 * MINUTE < a for spans in away for a, _ in spans):
        day.doors["bedroom-window"].append((up + 5 * MINUTE, up + 5 * MINUTE + float(rng.uniform(5, 12)) * MINUTE))
    _appliances(rng, day, begin, up)
    return day


def _away(
    rng: np.random.Generator, begin: float, wake: list[float], bed: list[float], at_work: bool
) -> list[list[Span]]:
    found: list[list[Span]] = [[] for _ in range(RESIDENTS)]
    if at_work:
        for who in range(RESIDENTS):
            if rng.random() < WORKS:
                leave = wake[who] + float(rng.uniform(50, 90)) * MINUTE
                found[who].append((leave, begin + 17.25 * HOUR + float(rng.normal(0, 30 * MINUTE))))
    elif rng.random() < OUT_ON_SUNDAY:
        leave = max(wake) + float(rng.uniform(80, 150)) * MINUTE
        back = leave + float(rng.uniform(2, 5)) * HOUR
        together = rng.random() < TOGETHER
        for who in range(RESIDENTS):
            if together or who == 0:
                found[who].append((leave + 3 * who, back + 3 * who))
    if rng.random() < GOES_OUT:
        leave = begin + float(rng.uniform(19.5, 20.5)) * HOUR
        together = rng.random() < TOGETHER
        for who in range(RESIDENTS):
            back = bed[who] - float(rng.uniform(12, 40)) * MINUTE
            free = not found[who] or found[who][-1][1] + SHORTEST_STAY < leave
            if (together or who == 0) and free and back - leave > HOUR:
                found[who].append((leave + 3 * who, back))
    return found


def _wander(rng: np.random.Generator, day: Day, who: int, wake: float, bed: float) -> None:
    """From room to room while awake and at home; through the hall when going and coming."""
    bounds = [wake, *(moment for span in day.away[who] for moment in span), bed]
    names, chances = list(KINDS_OF_ROOM), list(KINDS_OF_ROOM.values())
    for place in range(0, len(bounds), 2):
        at, end = bounds[place], bounds[place + 1]
        if place > 0:
            day.rooms["hall"].append((at + 3, min(at + 40, end)))
            at += 40
        last = end - 40 if place + 2 < len(bounds) else end
        while at < last:
            until = min(last, at + float(rng.exponential(DWELL_MINUTES)) * MINUTE + MINUTE)
            day.rooms[names[int(rng.choice(len(names), p=chances))]].append((at, until))
            at = until
        if place + 2 < len(bounds):
            day.rooms["hall"].append((max(at, end - 40), end))


def _front_door(rng: np.random.Generator, away: list[list[Span]]) -> list[Span]:
    found = []
    for leave, back in (span for spans in away for span in spans):
        found.append((leave - float(rng.uniform(6, 12)), leave))
        found.append((back, back + float(rng.uniform(6, 12))))
    return _merged(found)


def _appliances(rng: np.random.Generator, day: Day, begin: float, up: float) -> None:
    home_again = max((b for spans in day.away for _, b in spans if b < begin + 19.4 * HOUR), default=0.0)
    cook = max(begin + 17.75 * HOUR + float(rng.uniform(0, 45)) * MINUTE, home_again + 10 * MINUTE)
    until = cook + float(rng.uniform(25, 45)) * MINUTE
    leaving = min((a for spans in day.away for a, _ in spans if a > begin + 19.4 * HOUR), default=begin + DAY)
    if rng.random() < COOKS and until + 5 * MINUTE < leaving:
        day.stove.append((cook, until))
    day.kettle = [(up + 25 * MINUTE, up + 28 * MINUTE)]
    if day.stove:
        day.kettle.append((until + 20 * MINUTE, until + 23 * MINUTE))
    if rng.random() < WASHES:
        start = begin + float(rng.uniform(9, 19)) * HOUR
        day.washer.append((start, start + 2 * HOUR))
    at = begin + float(rng.uniform(0, 30)) * MINUTE
    while at < begin + DAY - 30 * MINUTE:
        on = float(rng.uniform(12, 17)) * MINUTE
        day.fridge.append((at, at + on))
        at += on + float(rng.uniform(24, 32)) * MINUTE


def _merged(spans: list[Span]) -> list[Span]:
    """Without overlaps, in order."""
    found: list[Span] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return found


def inside(spans: list[Span], at: Doubles) -> Bools:
    """Which of the moments lie in one of the spans, which may overlap."""
    bounds = np.array(_merged(spans), np.float64).ravel()
    return (np.searchsorted(bounds, at, "right") % 2).astype(np.bool_)
