"""One simulated home: what its devices say, an hour at a time, as arrays.

Routines (simulators/routine.py) and incidents (simulators/incidents.py) are intervals; here they become readings. The
same seed, home and hour give the same values. Rooms are worked out by the minute and looked at in between.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from fleet.text import Bools, Doubles, Ints
from simulators.household import DEVICES, RESIDENTS, Placed
from simulators.incidents import BATTERY_AT_FIRST, BATTERY_LASTS, SKEW, Incident
from simulators.obedience import BRIGHTNESS
from simulators.routine import DAY, HOUR, MINUTE, Day, Span, day_of, inside

SEES = 0.6
"""A detector in a room where somebody is awake."""
SEES_NOTHING_A_DAY = 0.02
"""Movements that a detector sees where nobody is: the sun, a spider."""
BASE_WATT, LAMP_WATT, FRIDGE_WATT, TV_WATT, KETTLE_WATT, STOVE_WATT = 60.0, 9.0, 95.0, 110.0, 2000.0, 1800.0
STANDBY_WATT = {"stove": 0.0, "fridge": 2.5, "washer": 0.8, "kettle": 0.0, "tv": 0.5}
WASHER_HEATS_WATT = 2000.0
STOVE_TURN_SECONDS, STOVE_ON_SECONDS = 60.0, 40.0
WARM_CELSIUS, COOL_CELSIUS, HYSTERESIS = 20.5, 17.5, 0.2
HEATING_KELVIN, LOSS_HOURS, BODY_KELVIN = 3.0, 60.0, 0.15
"""A room warms by so much an hour while it is heated, loses its difference to outdoors in so many hours, and warms by
so much an hour while somebody is in it."""
DRY_PERCENT, DRIES_HOURS, BODY_PERCENT, COOKING_PERCENT, SHOWER_PERCENT = 45.0, 1.5, 2.0, 20.0, 120.0
"""A room's humidity goes back to that of the house, and rises by so much an hour."""
DAMP_PERCENT = 30.0
"""Of washing that dries in a room: it ends up at 90 % of humidity."""
OUTDOOR_CELSIUS, OUTDOOR_SWING = 4.0, 4.0


COUNTS: dict[str, tuple[float, int]] = {"smart_plug": (1.0, 2), "energy_meter": (1000.0, 5)}
"""Wh in a unit of a counter, and its decimals."""


def shown(type_name: str, watt_hours: Doubles) -> Doubles:
    """As the counter of such a device shows it."""
    unit, decimals = COUNTS[type_name]
    found: Doubles = np.round(watt_hours / unit, decimals)
    return found


class Track(NamedTuple):
    """What one device sends. All arrays are as long as each other, in order of `due_us`."""

    placed: Placed
    due_us: Ints
    """When it is sent. What a clock says that is off, or what comes again, is no other time."""
    event_us: Ints
    seqs: Ints
    values: dict[str, Doubles]


class Climate(NamedTuple):
    """Of a room, by the minute: °C, % of humidity, and whether it is heated."""

    celsius: list[float]
    percent: list[float]
    heating: list[bool]


class Home:
    """Ask for hours one after the other. `origin_us`: the midnight with which the first day begins; `span`: what of it
    is sent, in seconds from there."""

    def __init__(
        self, seed: int, number: int, site: str, origin_us: int, span: Span, every: float, incidents: list[Incident]
    ):
        self.site, self.number = site, number
        self._seed, self._origin_us, self._span, self._every = seed, origin_us, span, every
        self.incidents = incidents
        self._days: dict[int, Day] = {}
        rng = self._rng(0)
        rooms = ("living", "kitchen", "bedroom", "bathroom")
        self._celsius = {room: WARM_CELSIUS + float(rng.normal(0, 0.5)) for room in rooms}
        self._percent = {room: DRY_PERCENT + float(rng.normal(0, 3)) for room in rooms}
        self._heating = dict.fromkeys(rooms, False)
        self._battery = [float(rng.uniform(45, 100)) for _ in DEVICES]
        self.counted = [float(rng.uniform(200, 5000)) * 1000 for _ in DEVICES]
        """Wh of each device's counter. They have counted for years."""
        self._stuck: dict[Incident, dict[str, float]] = {}

    def day(self, number: int) -> Day:
        if number not in self._days:
            self._days = {known: day for known, day in self._days.items() if known >= number - 1}
            self._days[number] = day_of(self._seed, self.number, number)
        return self._days[number]

    def hour(self, number: int, wanted: Callable[[str], bool] = lambda _: True) -> Iterator[Track]:
        """Of the hour that begins `number` hours after the origin, what lies in the span, of the types wanted."""
        begin, end = number * HOUR, (number + 1) * HOUR
        day = self.day(int(begin // DAY))
        minutes: Doubles = np.arange(61, dtype=np.float64) * MINUTE + begin
        climate = self.climate(day, minutes)
        for place, placed in enumerate(DEVICES):
            ticks = self._ticks(place, begin, end)
            if not len(ticks) or not wanted(placed.type):
                continue
            rng = np.random.default_rng([self._seed, self.number, number, place])
            values = self._values(day, place, placed, ticks, rng, minutes, climate)
            if placed.type not in ("lamp", "smart_plug", "energy_meter", "thermostat", "outdoor_station"):
                values["battery"] = self._battery_of(place, placed, ticks)
            yield self._sent(place, placed, ticks, values)

    def _rng(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, self.number, 7, purpose])

    def _ticks(self, place: int, begin: float, end: float) -> Doubles:
        """When a device reports, in whole ms. Devices take turns within `every`."""
        low, high = max(begin, self._span[0]), min(end, self._span[1])
        offset = round(place * self._every / len(DEVICES), 3)
        first = math.ceil((low - offset) / self._every)
        return np.round(np.arange(first, math.ceil((high - offset) / self._every)) * self._every + offset, 3)

    def _of(self, kind: str, device: str = "") -> list[Incident]:
        return [i for i in self.incidents if i.kind == kind and device in ("", i.device)]

    def _while(self, kind: str, device: str = "") -> list[Span]:
        return [(i.begin, i.end) for i in self._of(kind, device)]

    # What is there

    def outdoors(self, at: Doubles) -> Doubles:
        """°C: colder at night, from day to day another weather."""
        days = np.array([np.random.default_rng([self._seed, 11, max(0, int(at[0] // DAY) + n)]).normal(0, 2.5)
                         for n in (0, 1)])  # fmt: skip
        rest = at / DAY % 1
        weather = days[0] * (1 - rest) + days[1] * rest
        return OUTDOOR_CELSIUS + weather + OUTDOOR_SWING * np.sin(2 * np.pi * (at / HOUR - 9) / 24)

    def climate(self, day: Day, minutes: Doubles) -> dict[str, Climate]:
        """By room, at 61 full minutes; to be asked hour by hour."""
        outdoors = self.outdoors(minutes).tolist()
        nobody, asleep = inside(day.nobody, minutes), self._asleep(day, minutes)
        wanted = np.where(nobody | asleep, COOL_CELSIUS, WARM_CELSIUS).tolist()
        cooking, shower = inside(self.cooking(day), minutes).tolist(), inside(day.shower, minutes).tolist()
        found = {}
        for room in self._celsius:
            there = inside(day.rooms[room], minutes).tolist()
            damp = inside(self._while("damp_room", f"{room}-climate"), minutes).tolist()
            celsius, percent, heating = self._celsius[room], self._percent[room], self._heating[room]
            said = Climate([], [], [])
            for minute in range(61):
                said.celsius.append(celsius)
                said.percent.append(percent)
                said.heating.append(heating)
                if minute == 60:
                    break
                heating = celsius < wanted[minute] + (HYSTERESIS if heating else -HYSTERESIS)
                gain = HEATING_KELVIN * heating + BODY_KELVIN * there[minute]
                celsius += (gain + (outdoors[minute] - celsius) / LOSS_HOURS) / 60
                wet = BODY_PERCENT * there[minute]
                wet += COOKING_PERCENT * (cooking[minute] and room == "kitchen")
                wet += SHOWER_PERCENT * (shower[minute] and room == "bathroom")
                wet += DAMP_PERCENT * damp[minute]
                percent = min(95.0, percent + (wet + (DRY_PERCENT - percent) / DRIES_HOURS) / 60)
            self._celsius[room], self._percent[room], self._heating[room] = celsius, percent, heating
            found[room] = said
        return found

    def _asleep(self, day: Day, at: Doubles) -> Bools:
        found = np.ones(len(at), np.bool_)
        for spans in day.asleep:
            found &= inside(spans, at)
        return found

    def cooking(self, day: Day) -> list[Span]:
        """While the stove is on."""
        return [*day.stove, *self._while("stove_left_on")]

    def _dark(self, at: Doubles) -> Bools:
        hours = at / HOUR % 24
        return (hours < 7.75) | (hours > 16.75)

    def _lamp(self, day: Day, room: str, at: Doubles) -> Doubles:
        return (inside(day.rooms[room], at) & self._dark(at)).astype(np.float64)

    def watt(self, day: Day, placed: Placed, at: Doubles) -> Doubles:
        """What a plug or the meter has behind it."""
        if placed.type == "energy_meter":
            return self._whole_watt(day, at)
        name = placed.name
        if name == "stove":
            on = inside(self.cooking(day), at) & (at % STOVE_TURN_SECONDS < STOVE_ON_SECONDS)
            return np.where(on, STOVE_WATT, STANDBY_WATT[name])
        if name == "fridge":
            watt = np.where(inside(day.fridge, at), FRIDGE_WATT, STANDBY_WATT[name])
            for incident in self._of("fridge_failing"):
                broken = FRIDGE_WATT if incident.begin % 2 < 1 else STANDBY_WATT[name]
                watt = np.where(inside([(incident.begin, incident.end)], at), broken, watt)
            return watt
        if name == "washer":
            watt = np.full(len(at), STANDBY_WATT[name])
            for begin, end in day.washer:
                since = at - begin
                running = (since >= 0) & (at < end)
                stage = np.where(since < 20 * MINUTE, 2000.0, np.where(since < 100 * MINUTE, 150.0, 400.0))
                watt = np.where(running, stage, watt)
            return np.where(inside(self._while("washer_failing"), at), WASHER_HEATS_WATT, watt)
        if name == "kettle":
            return np.where(inside(day.kettle, at), KETTLE_WATT, STANDBY_WATT[name])
        evening = at / HOUR % 24 > 17.5
        return np.where(inside(day.rooms["living"], at) & evening, TV_WATT, STANDBY_WATT[name])

    def _whole_watt(self, day: Day, at: Doubles) -> Doubles:
        watt = np.full(len(at), BASE_WATT)
        for placed in DEVICES:
            if placed.type == "smart_plug":
                watt += self.watt(day, placed, at)
            elif placed.type == "lamp":
                watt += LAMP_WATT * self._lamp(day, placed.room, at)
        return watt

    # What devices say of it

    def _values(
        self, day: Day, place: int, placed: Placed, at: Doubles, rng: np.random.Generator, minutes: Doubles,
        climate: dict[str, Climate],
    ) -> dict[str, Doubles]:  # fmt: skip
        count = len(at)
        match placed.type:
            case "presence_tag":
                return {"present": (~inside(day.absent[place % RESIDENTS], at)).astype(np.float64)}
            case "motion_detector":
                there = inside(day.rooms[placed.room], at) | inside(self._burglar_in(placed.room), at)
                seen = there & (rng.random(count) < SEES)
                seen |= rng.random(count) < SEES_NOTHING_A_DAY * self._every / DAY
                sun = np.where(self._dark(at), 0.0, np.sin((at / HOUR % 24 - 7) / 10 * np.pi))
                lux = 300 * np.maximum(0.0, sun) + 150 * self._lamp(day, placed.room, at)
                light: Doubles = np.asarray(np.round(np.maximum(0.0, lux * rng.normal(1, 0.02, count)), 1), np.float64)
                return {"motion": seen.astype(np.float64), "light": light, "tamper": self._tamper(placed, at)}
            case "door_sensor":
                spans = [*day.doors[placed.name], *self._while("burglary", placed.name)]
                spans = [(a, max(b, a + self._every)) for a, b in spans]
                return {"open": inside(spans, at).astype(np.float64), "tamper": self._tamper(placed, at)}
            case "smoke_alarm":
                return {
                    "smoke": inside(self._while("smoke", placed.name), at).astype(np.float64),
                    "tamper": self._tamper(placed, at),
                }
            case "room_climate":
                celsius, percent, _ = climate[placed.room]
                values = {
                    "temperature": np.round(np.interp(at, minutes, celsius) + rng.normal(0, 0.02, count), 2),
                    "humidity": np.round(np.interp(at, minutes, percent) + rng.normal(0, 0.1, count), 1),
                }
                return self._freeze(placed, at, values)
            case "lamp":
                on = self._lamp(day, placed.room, at)
                return {"on": on, "brightness": np.where(on > 0, BRIGHTNESS, 0.0)}
            case "smart_plug":
                watt = self.watt(day, placed, at)
                said = np.round(watt * rng.normal(1, 0.01, count), 1)
                return {"on": np.ones(count), "power": said, "energy": self._counted(place, placed, at, watt)}
            case "energy_meter":
                watt = self.watt(day, placed, at)
                said = np.round(watt * rng.normal(1, 0.005, count), 1)
                return {"power": said, "energy": self._counted(place, placed, at, watt)}
            case "thermostat":
                celsius, _, heating = climate[placed.room]
                setpoint = np.where(inside(day.nobody, at) | self._asleep(day, at), COOL_CELSIUS, WARM_CELSIUS)
                minute = np.minimum(((at - minutes[0]) // MINUTE).astype(np.int64), 59)
                temperature = np.round(np.interp(at, minutes, celsius) + rng.normal(0, 0.02, count), 2)
                return {
                    "temperature": temperature, "setpoint": setpoint,
                    "heating": np.array(heating, np.float64)[minute],
                }  # fmt: skip
        celsius_outdoors = self.outdoors(at)
        humidity = np.clip(80 - 3 * (celsius_outdoors - OUTDOOR_CELSIUS) + rng.normal(0, 0.3, count), 20, 100)
        return {
            "temperature": np.round(celsius_outdoors + rng.normal(0, 0.05, count), 2),
            "humidity": np.round(humidity, 1),
        }

    def _burglar_in(self, room: str) -> list[Span]:
        return [(a, b) for i in self._of("burglary") for r, a, b in i.rooms if r == room]

    def _tamper(self, placed: Placed, at: Doubles) -> Doubles:
        spans = [
            (told.begin, told.begin + MINUTE)
            for i in self.incidents for told in i.told
            if told.rule == "tamper" and told.device == placed.name
        ]  # fmt: skip
        return inside(spans, at).astype(np.float64)

    def _freeze(self, placed: Placed, at: Doubles, values: dict[str, Doubles]) -> dict[str, Doubles]:
        for incident in self._of("sensor_stuck", placed.name):
            frozen = inside([(incident.begin, incident.end)], at)
            if frozen.any():
                first = int(np.argmax(frozen))
                held = self._stuck.setdefault(incident, {name: float(v[first]) for name, v in values.items()})
                values = {name: np.where(frozen, held[name], column) for name, column in values.items()}
        return values

    def _counted(self, place: int, placed: Placed, at: Doubles, watt: Doubles) -> Doubles:
        """The counter of energy, which may fall back to zero."""
        steps = watt * self._every / HOUR
        total = self.counted[place] + np.cumsum(steps)
        for incident in self._of("meter_reset", placed.name):
            reset = int(np.searchsorted(at, incident.begin))
            if at[0] - self._every < incident.begin <= at[-1]:
                total[reset:] -= total[reset] - steps[reset]
        self.counted[place] = float(total[-1])
        return shown(placed.type, total)

    def _battery_of(self, place: int, placed: Placed, at: Doubles) -> Doubles:
        percent = self._battery[place] - 0.5 * at / DAY
        for incident in self._of("battery_dying", placed.name):
            dying = BATTERY_AT_FIRST * (1 - (at - incident.begin) / BATTERY_LASTS)
            percent = np.where(at < incident.begin, percent, np.minimum(percent, np.maximum(dying, 0.0)))
        return np.round(percent, 1)

    # What becomes of it on the way

    def _sent(self, place: int, placed: Placed, at: Doubles, values: dict[str, Doubles]) -> Track:
        rows = np.arange(len(at))
        for incident in self._of("battery_dying", placed.name):
            rows = rows[at[rows] < incident.end]
        due = at[rows]
        for incident in self._of("duplicate", placed.name):
            again = rows[inside([(incident.begin, incident.end)], at[rows])]
            rows, due = np.append(rows, again), np.append(due, at[again] + 0.4 * self._every)
        seqs = np.floor(at[rows] / self._every + 1e-9).astype(np.int64)
        for incident in self._of("reordering", placed.name):
            held = inside([(incident.begin, incident.end)], at[rows]) & (seqs % 3 == 0)
            due = np.where(held, due + 1.5 * self._every, due)
        event = at[rows]
        for incident in self._of("clock_skew", placed.name):
            event = np.where(inside([(incident.begin, incident.end)], event), event - SKEW, event)
        order = np.argsort(due, kind="stable")
        return Track(
            placed, self._micros(due[order]), self._micros(event[order]), seqs[order],
            {name: column[rows][order] for name, column in values.items()},
        )  # fmt: skip

    def _micros(self, at: Doubles) -> Ints:
        return self._origin_us + np.round(at * 1000).astype(np.int64) * 1000
