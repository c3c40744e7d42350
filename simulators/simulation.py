"""What a simulation of a system consists of: which types, how many devices, how often."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import takewhile

from fleet.catalog import Catalog
from fleet.channels import LEVEL
from fleet.errors import ConfigurationError
from fleet.reading import Reading
from fleet.spec import DeviceType
from simulators.independent import cadence_of, independent_readings
from simulators.room import MESSAGES_A_ROUND, room_readings

MODELS = {"independent": independent_readings, "room": room_readings}
"""What may stand under `simulation: model:` → its readings."""


@dataclass(frozen=True)
class Part:
    """One device type of a simulation. Every device reports once in a `cadence`."""

    spec: DeviceType
    site: str
    devices: int
    cadence: timedelta
    messages_a_round: int

    @property
    def rate(self) -> float:
        """Messages a second of event time."""
        return self.messages_a_round / (self.cadence / timedelta(seconds=1))


def simulated_types(catalog: Catalog, name: str) -> list[DeviceType]:
    """The types of a system, or one type, by name. Raises ConfigurationError where nothing can be simulated."""
    types = [catalog.types[name]] if name in catalog.types else list(catalog.system(name).types)
    found = [spec for spec in types if spec.simulation]
    if not found:
        raise ConfigurationError(
            f"{name} has no simulator: `simulation:` is missing in {', '.join(t.type for t in types)}"
        )
    return found


def plan_parts(
    types: Sequence[DeviceType], devices: int | None = None, rate: float | None = None, site: str | None = None
) -> list[Part]:
    """`rate` is in messages a second of event time, of all devices together. Raises ConfigurationError."""
    if len(types) > 1 and (devices is not None or rate is not None):
        raise ConfigurationError(f"--devices and --rate need one type; name one of {', '.join(t.type for t in types)}")
    if devices is not None and devices < 1:
        raise ConfigurationError(f"--devices {devices}: at least 1")
    if rate is not None and not 0 < rate < float("inf"):
        raise ConfigurationError(f"--rate {rate:g}: messages a second, above 0")
    if site is not None and not LEVEL.fullmatch(site):
        raise ConfigurationError(f"--site {site!r}: letters, digits and _ . : - , at most 64")
    return [_part(spec, devices, rate, site) for spec in types]


def _part(spec: DeviceType, devices: int | None, rate: float | None, site: str | None) -> Part:
    simulation = spec.simulation
    if simulation is None:
        raise ConfigurationError(f"{spec.type} has no `simulation:`")
    count = devices or simulation.devices
    if simulation.model == "room":
        a_round = MESSAGES_A_ROUND
    else:
        a_round = count * (len(spec.metrics) if spec.adapter.form == "feature" else 1)
    cadence = cadence_of(spec) if rate is None else timedelta(seconds=a_round / rate)
    return Part(spec, site or simulation.site, count, cadence, a_round)


def simulated_readings(
    parts: Sequence[Part], *, first_us: int, end_us: int | None, seed: int, with_seq: bool = False
) -> Iterator[Reading]:
    """Readings of all parts by event time, from `first_us` up to before `end_us`, or without end."""
    streams = [
        MODELS[part.spec.simulation.model if part.spec.simulation else "independent"](
            part.spec, site=part.site, devices=part.devices, cadence=part.cadence, first_us=first_us, seed=seed,
            with_seq=with_seq,
        )
        for part in parts
    ]  # fmt: skip
    merged = streams[0] if len(streams) == 1 else heapq.merge(*streams, key=lambda reading: reading.event_time_us)
    return merged if end_us is None else takewhile(lambda reading: reading.event_time_us < end_us, merged)
