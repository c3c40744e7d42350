"""The registry: what is known of devices beside what they say. What may stand in it, what the log hears of a change.

No I/O: the tables are `connections.registry`.
"""

import zoneinfo
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from math import isfinite
from typing import Literal

import msgspec

from fleet.channels import LEVEL
from fleet.control import Device, Retire, Routed, key_of
from fleet.nearest import did_you_mean, nearest
from fleet.quantity import named_numbers
from fleet.reading import to_epoch_us
from fleet.spec import DeviceType

MAX_ROOM = 100
"""Characters."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One device. `registered_at` and `retired_at` are whole milliseconds, UTC."""

    type: str
    device_id: str
    system: str
    site: str
    room: str | None = None
    params: dict[str, float] = {}
    registered_at: datetime
    retired_at: datetime | None = None
    registered_by: Literal["operator", "self"] = "operator"

    @property
    def key(self) -> tuple[str, str]:
        return self.type, self.device_id


def new_entry(
    spec: DeviceType,
    device_id: str,
    site: str,
    at: datetime,
    room: str | None = None,
    params: dict[str, float] | None = None,
    registered_by: Literal["operator", "self"] = "operator",
) -> Entry:
    return Entry(
        type=spec.type, device_id=device_id, system=spec.system, site=site, room=room, params=params or {},
        registered_at=at, registered_by=registered_by,
    )  # fmt: skip


def params_of(spec: DeviceType) -> dict[str, float]:
    """The params of the type's rules with their defaults, by name; of a name that two rules have, the first one's."""
    found: dict[str, float] = {}
    for rule in spec.alerts:
        for name, value in rule.params.items():
            found.setdefault(name, value)
    return found


def problems_of(
    spec: DeviceType, device_id: str, site: str, room: str | None = None, params: Mapping[str, float] | None = None
) -> list[str]:
    """What is wrong with a device for its type, in words; empty: nothing is."""
    problems = []
    if not LEVEL.fullmatch(device_id):
        problems.append(f"device id {device_id[:80]!r}: {LEVEL_SAYS}")
    if problem := site_problem(site):
        problems.append(problem)
    if room is not None and not (0 < len(room) <= MAX_ROOM and room.isprintable()):
        problems.append(f"room {room[:80]!r}: 1 to {MAX_ROOM} characters that can be printed")
    known = params_of(spec)
    for name, value in (params or {}).items():
        if name not in known:
            problems.append(f"param {name[:80]!r}: no rule of {spec.type} has it{nearest(name, known)}")
        elif not isfinite(value):
            problems.append(f"param {name}: {value} is not a number that a rule can use")
    return problems


def site_problem(site: str) -> str:
    """Empty: there is none."""
    return "" if LEVEL.fullmatch(site) else f"site {site[:80]!r}: {LEVEL_SAYS}"


LEVEL_SAYS = "letters, digits and _ . : - , at most 64, a letter or digit first"


def parse_params(texts: list[str]) -> dict[str, float]:
    """`["limit=35.5"]` → {"limit": 35.5}. Raises ValueError saying which is wrong."""
    return named_numbers(texts, "param", "limit=35.5")


@cache
def _time_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def time_zone_problem(name: str) -> str:
    """Why the name is none of a time zone; empty where it is one."""
    if name in _time_zones():
        return ""
    hint = did_you_mean(name, _time_zones())
    return f"time zone {name[:80]!r} is not known{hint} (a name of the IANA list, such as Europe/Berlin or UTC)"


def routed_change(
    spec: DeviceType, before: Entry | None, after: Entry, time_zone: str, revisions: Iterator[int], at: datetime
) -> list[Routed]:
    """What the log must hear of a device that is `after` now, in order of revision.

    With `partition_by: site` a device may have reported from sites that the registry does not know, so that it is
    retired in every partition.
    """
    at_ms = milliseconds(at)
    by_site = spec.partition_by == "site"
    if after.retired_at is not None:
        retire = Retire(revision=next(revisions), at=at_ms, type=after.type, device=after.device_id)
        return [Routed(spec.topic, None if by_site else after.device_id, retire)]
    device = Device(
        revision=next(revisions), at=at_ms, type=after.type, device=after.device_id, site=after.site, room=after.room,
        params=after.params, time_zone=time_zone, registered_at=milliseconds(after.registered_at),
    )  # fmt: skip
    found = [Routed(spec.topic, key_of(spec, after.device_id, after.site), device)]
    if by_site and before and before.retired_at is None and before.site != after.site:
        gone = Retire(
            revision=next(revisions), at=at_ms, type=after.type, device=after.device_id, moved_to=after.site
        )  # fmt: skip
        found.append(Routed(spec.topic, before.site, gone, except_key=after.site))
    return found


def milliseconds(moment: datetime) -> int:
    return to_epoch_us(moment) // 1000
