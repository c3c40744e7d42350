"""The devices of a partition that stand at one site, and what site functions say about their present values."""

from bisect import insort
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from fleet.local_time import LocalTime
from fleet.window import exact_sum

if TYPE_CHECKING:
    from fleet.device_state import DeviceState

DEFAULT_SITE = "default"
by_id = attrgetter("id")


class Site:
    __slots__ = ("devices", "local", "memo", "name")

    def __init__(self, name: str, local: LocalTime):
        self.name = name
        self.local = local
        self.devices: dict[str, list[DeviceState]] = {}
        """Type → its devices here, by id."""
        self.memo: dict[tuple[str, str, str, int], float | None] = {}
        """Values of site functions since a present value last changed here: each is asked for once per device."""

    def join(self, device: "DeviceState") -> None:
        insort(self.devices.setdefault(device.type.name, []), device, key=by_id)
        self.memo.clear()

    def leave(self, device: "DeviceState") -> None:
        self.devices[device.type.name].remove(device)
        self.memo.clear()


def site_value(function: str, type_name: str, metric: str, time_us: int, site: Site) -> float | None:
    """Over the known present values of the type's devices at the site; unknown if there is none."""
    key = (function, type_name, metric, time_us)
    if key not in site.memo:
        site.memo[key] = _site_value(function, type_name, metric, time_us, site)
    return site.memo[key]


def _site_value(function: str, type_name: str, metric: str, time_us: int, site: Site) -> float | None:
    devices = site.devices.get(type_name)
    if not devices:
        return None
    rules = devices[0].type.rules
    place = rules.places.metrics.get(metric)
    if place is None:
        return None
    oldest = time_us - rules.stale_us
    # By device id, so that of equal times the last is the greater id's.
    known: list[tuple[int, Any]] = [
        (device.times[place], device.values[place])
        for device in devices
        if device.values[place] is not None and device.times[place] >= oldest
    ]
    if not known:
        return None
    if function == "site_last":
        latest = max(time for time, _ in known)
        return float([value for time, value in known if time == latest][-1])
    values = [value for _, value in known]
    if function == "site_min":
        return float(min(values))
    if function == "site_max":
        return float(max(values))
    total = exact_sum(values)
    return total if total is None or function == "site_sum" else total / len(values)
