"""What stands in a simulated home: rooms, residents and devices, the same in every home but for their ids."""

from collections.abc import Iterator
from dataclasses import dataclass, field

ROOMS = ("hall", "living", "kitchen", "bedroom", "bathroom")
RESIDENTS = 2
SYSTEM = "home"


@dataclass(frozen=True)
class Placed:
    """A device. `name` says what it is at, its id is the home's with that behind; `params` are those of its rules."""

    type: str
    name: str
    room: str = ""
    params: dict[str, float] = field(default_factory=dict)

    def device_id(self, site: str) -> str:
        return device_id(site, self.name)


def device_id(site: str, name: str) -> str:
    """Of the home itself, without a name, the site's."""
    return f"{site}-{name}" if name else site


LIMITS = {"day_limit": 12, "month_limit": 125}
"""kWh of a home, which usually uses 4 a day."""
DEVICES: tuple[Placed, ...] = (
    *(Placed("presence_tag", f"resident-{number + 1}") for number in range(RESIDENTS)),
    *(Placed("motion_detector", f"{room}-motion", room) for room in ("hall", "living", "kitchen", "bedroom")),
    Placed("door_sensor", "front-door", "hall"),
    Placed("door_sensor", "back-door", "kitchen"),
    Placed("door_sensor", "bedroom-window", "bedroom"),
    *(Placed("smoke_alarm", f"{room}-smoke", room) for room in ("kitchen", "hall")),
    *(Placed("room_climate", f"{room}-climate", room) for room in ("living", "kitchen", "bedroom", "bathroom")),
    *(Placed("lamp", f"{room}-lamp", room) for room in ("hall", "living", "kitchen", "bedroom")),
    Placed("smart_plug", "stove", "kitchen", {"stove": 1}),
    Placed("smart_plug", "fridge", "kitchen", {"fridge": 1}),
    Placed("smart_plug", "washer", "kitchen", {"month_limit": 18_000}),
    Placed("smart_plug", "kettle", "kitchen"),
    Placed("smart_plug", "tv", "living"),
    Placed("energy_meter", "meter", params=dict(LIMITS)),
    *(Placed("thermostat", f"{room}-thermostat", room) for room in ("living", "bedroom")),
    Placed("outdoor_station", "outdoors"),
)
WHOLE = Placed("home_energy", "", params=dict(LIMITS))
"""The home itself: no device, but what its meters counted, as Weir says it (etl/home_energy.py)."""


def sites(homes: int) -> list[str]:
    return [f"home-{number}" for number in range(1, homes + 1)]


def registry_lines(homes: int) -> Iterator[str]:
    """A CSV file for `weir devices import`. The homes' hours are UTC."""
    yield "type,device_id,site,room,time_zone,params"
    for site in sites(homes):
        for placed in (*DEVICES, WHOLE):
            params = " ".join(f"{name}={value:g}" for name, value in placed.params.items())
            yield f"{placed.type},{placed.device_id(site)},{site},{placed.room},UTC,{params}"
