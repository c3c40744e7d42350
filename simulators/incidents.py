"""What goes wrong in simulated homes, when and where, and which alerts must tell of it: the ground truth.
What must be told of a home however it came about is in simulators/home_truth.py.

Times are seconds as in simulators/routine.py. What an incident does to devices is in simulators/home.py.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from fleet.errors import ConfigurationError
from simulators.routine import DAY, HOUR, MINUTE, Day, Span

OFTEN = 0.1
"""Of each kind, a home and a day."""
SKEW = 15 * MINUTE
"""A clock that is behind by so much."""
BATTERY_LASTS, BATTERY_AT_FIRST, BATTERY_LIMIT = 4 * HOUR, 40.0, 15.0
"""A battery that dies; `limit` is that of the rules battery_low."""
TOLD_WITHIN = 5 * MINUTE
"""An alert about something short may come so long after it began."""
SMOKE_TOLD_WITHIN = 30.0
"""Of the alarm's first word of it; a reading more than that apart may come too late."""
NIGHT = (23.0, 5.0)
"""Hours, as in the rule door_opened_at_night."""


@dataclass(frozen=True)
class Told:
    """`rule` must tell of the device, some time between these."""

    rule: str
    device: str
    """As in simulators.household, without the home."""
    begin: float
    end: float


@dataclass(frozen=True)
class Incident:
    kind: str
    home: int
    device: str
    """Where it is, as in Told."""
    begin: float
    end: float
    told: tuple[Told, ...] = ()
    rooms: tuple[tuple[str, float, float], ...] = ()
    """Where a burglar is, from when to when."""


Placing = Callable[[np.random.Generator, int, Day, Span], Incident | None]
"""(random source, home, its day, the part of it that is in the run) → the incident, if there is room for it."""


def _burglary(rng: np.random.Generator, home: int, day: Day, part: Span) -> Incident | None:
    absences = [(max(a, part[0]), min(b, part[1])) for a, b in day.nobody]
    absences = [(a + 10 * MINUTE, b - 25 * MINUTE) for a, b in absences if b - a > HOUR]
    if not absences:
        return None
    a, b = absences[int(rng.integers(len(absences)))]
    begin = float(rng.uniform(a, b))
    door = ("front-door", "back-door", "bedroom-window")[int(rng.integers(3))]
    opened = float(rng.uniform(4, 300))
    at, rooms = begin + 2, []
    way = {"front-door": ["hall"], "back-door": ["kitchen"], "bedroom-window": ["bedroom"]}[door]
    for room in [*way, *rng.permutation([r for r in ("living", "bedroom", "kitchen") if r not in way])[:2]]:
        until = at + float(rng.uniform(90, 240))
        rooms.append((str(room), at, until))
        at = until
    told = [Told("door_opened_away", door, begin, begin + opened + TOLD_WITHIN)]
    told += [Told("motion_while_away", f"{room}-motion", r, s + TOLD_WITHIN) for room, r, s in rooms]
    if rng.random() < 0.5:
        told.append(Told("tamper", door, begin + 30, begin + 30 + TOLD_WITHIN))
    return Incident("burglary", home, door, begin, begin + opened, tuple(told), tuple(rooms))


def _stove_left_on(rng: np.random.Generator, home: int, day: Day, part: Span) -> Incident | None:
    for begin, until in day.stove:
        end = until + 3 * HOUR
        if part[0] < begin and end < part[1]:
            return Incident("stove_left_on", home, "stove", until, end, (Told("stove_left_on", "stove", until, end),))
    return None


def _lasting(
    kind: str,
    hours: float,
    devices: Sequence[str],
    rules: Sequence[str],
    late: float = 0.0,
    within: float | None = None,
) -> Placing:
    """At any time of the day, if it ends within the run; told until `late` seconds after its end, or `within` seconds
    of its begin."""

    def place(rng: np.random.Generator, home: int, day: Day, part: Span) -> Incident | None:
        device = devices[int(rng.integers(len(devices)))]
        length = hours * HOUR
        if part[1] - part[0] < length + 2 * late + 10 * MINUTE:
            return None
        begin = float(rng.uniform(part[0] + 5 * MINUTE, part[1] - length - late))
        until = begin + (length + late if within is None else within)
        told = tuple(Told(rule, device, begin, until) for rule in rules)
        return Incident(kind, home, device, begin, begin + length, told)

    return place


def _battery(rng: np.random.Generator, home: int, day: Day, part: Span) -> Incident | None:
    found = _lasting("battery_dying", BATTERY_LASTS / HOUR, ("bathroom-climate", "hall-smoke"), (), 20 * MINUTE)(
        rng, home, day, part
    )
    if found is None:
        return None
    low = found.begin + BATTERY_LASTS * (1 - BATTERY_LIMIT / BATTERY_AT_FIRST)
    told = (
        Told("battery_low", found.device, low, found.end),
        Told("silent", found.device, found.end, found.end + 20 * MINUTE),
    )
    return Incident(found.kind, home, found.device, found.begin, found.end, told)


KINDS: dict[str, Placing] = {
    "burglary": _burglary,
    "smoke": _lasting("smoke", 5 / 60, ("kitchen-smoke",), ("smoke",), within=SMOKE_TOLD_WITHIN),
    "stove_left_on": _stove_left_on,
    "fridge_failing": _lasting("fridge_failing", 5, ("fridge",), ("fridge_failing",)),
    "meter_reset": _lasting("meter_reset", 1 / 60, ("meter", "washer", "tv"), ("counter_reset",)),
    "sensor_stuck": _lasting("sensor_stuck", 3, ("kitchen-climate",), ("sensor_stuck",)),
    "battery_dying": _battery,
    "clock_skew": _lasting("clock_skew", 0.75, ("living-climate",), ("silent",), SKEW),
    "duplicate": _lasting("duplicate", 0.5, ("front-door", "kettle"), ()),
    "reordering": _lasting("reordering", 0.5, ("bedroom-motion", "kettle"), ()),
    "washer_failing": _lasting("washer_failing", 5, ("washer",), (), HOUR),
    "damp_room": _lasting("damp_room", 9, ("bedroom-climate", "kitchen-climate"), ()),
}
"""Of duplicates and reordering nothing must be told. Of a washer that heats on and on, and of a room that is damp,
simulators/home_truth.py knows what, and when."""


@dataclass
class Schedule:
    """All that goes wrong in a run."""

    incidents: list[Incident] = field(default_factory=list)

    def of(self, home: int) -> list[Incident]:
        return [incident for incident in self.incidents if incident.home == home]

    def counts(self) -> dict[str, int]:
        return dict(Counter(incident.kind for incident in self.incidents))


def schedule(seed: int, homes: int, span: Span, often: float, day_of: Callable[[int, int], Day]) -> Schedule:
    """Of each kind `often` a home and a day, at least one where there is room; none for 0. No two of a kind on one day
    in one home. `day_of`: (home, number of the day) → the day. Raises ConfigurationError."""
    if not 0 <= often <= 1:
        raise ConfigurationError(f"--incidents {often:g}: of each kind a home and a day, from 0 to 1")
    found = Schedule()
    if not often:
        return found
    days = range(int(span[0] // DAY), int(-(-span[1] // DAY)))
    wanted = max(1, round(often * homes * (span[1] - span[0]) / DAY))
    for place, (_, placing) in enumerate(KINDS.items()):
        rng = np.random.default_rng([seed, 1_000_003, place])
        left = wanted
        for number in rng.permutation(homes * len(days)).tolist():
            home, day = divmod(number, len(days))
            part = (max(span[0], days[day] * DAY), min(span[1], (days[day] + 1) * DAY))
            if left and (incident := placing(rng, home, day_of(home, days[day]), part)):
                found.incidents.append(incident)
                left -= 1
    return found


def openings_at_night(day: Day, incidents: Sequence[Incident], span: Span) -> Iterator[Told]:
    """Doors that somebody opened at night, whoever it was: the rule asks no more."""
    opened = [(door, at) for door, spans in day.doors.items() for at, _ in spans]
    opened += [(incident.device, incident.begin) for incident in incidents if incident.kind == "burglary"]
    for door, at in opened:
        if span[0] <= at < span[1] and not NIGHT[1] <= at % DAY / HOUR < NIGHT[0]:
            yield Told("door_opened_at_night", door, at, at + TOLD_WITHIN)
