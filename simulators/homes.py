"""Homes with residents, for a run: their messages in the order in which they are sent, and the truth about them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

import numpy as np

from fleet.catalog import Catalog
from fleet.errors import ConfigurationError
from fleet.reading import Reading
from simulators import home_truth
from simulators.home import Home, Track
from simulators.home_truth import Energy
from simulators.household import DEVICES, sites
from simulators.incidents import OFTEN, Schedule, Told, schedule
from simulators.message import Message
from simulators.routine import DAY, HOUR, day_of

DAY_US = round(DAY * 1e6)
LEAD = 28 * DAY
"""What is known of before a run that is scored: enough to say what is usual (fleet.forecast)."""


@dataclass(frozen=True)
class Town:
    """Some homes for some time. `every` is what lies between two readings of a device."""

    homes: int
    first_us: int
    span_us: int
    seed: int = 0
    every: timedelta = timedelta(seconds=5)
    often: float = OFTEN

    def __post_init__(self) -> None:
        if not 1 <= self.homes <= 10_000:
            raise ConfigurationError(f"--homes {self.homes}: from 1 to 10,000")
        if not timedelta(seconds=1) <= self.every <= timedelta(minutes=1):
            raise ConfigurationError(f"--every {self.every.total_seconds():g}s: from 1s to 1m")

    @property
    def origin_us(self) -> int:
        return self.first_us // DAY_US * DAY_US

    @property
    def span(self) -> tuple[float, float]:
        """Seconds since the origin."""
        begin = (self.first_us - self.origin_us) / 1e6
        return begin, begin + self.span_us / 1e6

    def schedule(self) -> Schedule:
        day = lru_cache(maxsize=4096)(lambda home, number: day_of(self.seed, home, number))
        return schedule(self.seed, self.homes, self.span, self.often, day)

    def home(self, number: int, planned: Schedule, endless: bool = False) -> Home:
        """`endless`: after the span it goes on, and nothing goes wrong any more."""
        span = (self.span[0], float("inf")) if endless else self.span
        site, every = sites(self.homes)[number], self.every.total_seconds()
        return Home(self.seed, number, site, self.origin_us, span, every, planned.of(number))

    def truth(self, number: int, planned: Schedule, with_past: bool = False) -> Iterator[Told]:
        """What alerts must tell of a home. `with_past`: meters have counted for LEAD before, and batches know of it."""
        for incident in planned.of(number):
            yield from incident.told
        home = self.home(number, planned)
        for told in (home_truth.doors_told, home_truth.stove_told, home_truth.room_told):
            yield from told(home, self.span)
        used = self.energy(home, with_past)
        yield from home_truth.energy_told(used, self.span, self.origin_us, with_past)

    def energy(self, home: Home, with_past: bool) -> Energy:
        """Of the span; `with_past`: from LEAD before it, or the beginning of its month, to the end of its month."""
        begin, end = self.span
        if with_past:
            months = [p for p in home_truth.periods(self.span, self.origin_us) if p.name == "month"]
            begin, end = min(begin - LEAD, months[0].begin), months[-1].end
        return home_truth.energy(home, begin, end)

    def micros(self, seconds: float) -> int:
        return self.origin_us + round(seconds * 1e6)


def readings_of(tracks: Iterable[tuple[str, Track]], versions: dict[str, int], with_seq: bool) -> "Sorted":
    """(site, what a device of it sends) → all of it in order of sending."""
    found = list(tracks)
    due = np.concatenate([track.due_us for _, track in found]) if found else np.zeros(0, np.int64)
    rows: list[Reading] = []
    for site, (placed, _, event_us, seqs, values) in found:
        device, names, version = placed.device_id(site), tuple(values), versions[placed.type]
        columns = zip(event_us.tolist(), seqs.tolist(), *(column.tolist() for column in values.values()), strict=True)
        for at, seq, *said in columns:
            spoken = dict(zip(names, said, strict=True))
            rows.append(Reading(device, placed.type, site, at, spoken, seq if with_seq else None, version))
    order = np.argsort(due, kind="stable")
    return Sorted(due[order].tolist(), [rows[place] for place in order.tolist()])


@dataclass
class Sorted:
    due_us: list[int]
    readings: list[Reading]

    def split(self, at_us: int) -> tuple["Sorted", "Sorted"]:
        """What is sent before that moment, and the rest."""
        place = int(np.searchsorted(np.array(self.due_us, np.int64), at_us))
        return (
            Sorted(self.due_us[:place], self.readings[:place]),
            Sorted(self.due_us[place:], self.readings[place:]),
        )

    def merged(self, other: "Sorted") -> "Sorted":
        due, readings = self.due_us + other.due_us, self.readings + other.readings
        order = sorted(range(len(due)), key=due.__getitem__)
        return Sorted([due[place] for place in order], [readings[place] for place in order])


def sent(
    town: Town, homes: Iterable[Home], catalog: Catalog, with_seq: bool, wanted: Callable[[str], bool] = lambda _: True,
    endless: bool = False,
) -> Iterator[tuple[int, Reading]]:  # fmt: skip
    """(when it is sent, reading), hour by hour, of the types that are wanted."""
    versions = {placed.type: catalog.type(placed.type).version for placed in DEVICES}
    homes, (begin, end) = list(homes), town.span
    rest = Sorted([], [])
    hour = int(begin // HOUR)
    while endless or hour * HOUR < end:
        tracks = ((home.site, track) for home in homes for track in home.hour(hour, wanted))
        found = readings_of(tracks, versions, with_seq)
        if rest.due_us:
            found = found.merged(rest)
        hour += 1
        now, rest = found.split(town.micros(hour * HOUR))
        yield from zip(now.due_us, now.readings, strict=True)
    yield from zip(rest.due_us, rest.readings, strict=True)


def messages(town: Town, planned: Schedule, catalog: Catalog, with_seq: bool, endless: bool) -> Iterator[Message]:
    homes = [town.home(number, planned, endless) for number in range(town.homes)]
    for number, (due_us, reading) in enumerate(sent(town, homes, catalog, with_seq, endless=endless)):
        yield Message(number, due_us, reading)
