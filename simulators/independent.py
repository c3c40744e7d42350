"""Devices that know nothing of each other: each metric by its own profile in the spec."""

import random
from collections.abc import Callable, Iterator
from datetime import timedelta

from fleet.errors import ConfigurationError
from fleet.reading import Reading
from fleet.spec import DeviceType, Metric, Profile

EVENT_TICK = timedelta(seconds=5)
"""How often a device that reports only changes looks whether there is one."""
Draw = Callable[[float | None], float]
"""The value before (None at first) → the next one."""


def cadence_of(spec: DeviceType) -> timedelta:
    return EVENT_TICK if spec.cadence == "event" else spec.cadence


def device_ids(spec: DeviceType, devices: int) -> list[str]:
    prefix = spec.simulation.device_prefix if spec.simulation else "d"
    return [f"{prefix}{number}" for number in range(1, devices + 1)]


def independent_readings(
    spec: DeviceType, *, site: str, devices: int, cadence: timedelta, first_us: int, seed: int, with_seq: bool = False
) -> Iterator[Reading]:
    """Readings without end, by event time. Devices take turns evenly within the cadence; the same seed, devices and
    cadence give the same values. Devices that report changes only are silent where nothing changed.

    Raises ConfigurationError where a device would report more than once a millisecond.
    """
    step_us = cadence // timedelta(microseconds=1)
    if step_us < 1000:
        raise ConfigurationError(f"each device would report every {step_us} µs; once a millisecond is the limit")
    rng = random.Random(f"{seed}/{spec.type}")  # noqa: S311
    ids = device_ids(spec, devices)
    draws = [(name, _draw(metric, rng)) for name, metric in spec.metrics.items()]
    last: list[dict[str, float | None]] = [{} for _ in ids]
    turn = 0
    while True:
        for place, device_id in enumerate(ids):
            before = last[place]
            values = last[place] = {name: draw(before.get(name)) for name, draw in draws}
            if spec.cadence == "event":
                values = {name: value for name, value in values.items() if before.get(name) != value}
                if not values:
                    continue
            # Whole ms: what devices' clocks show, and exact in every wire form.
            time_us = first_us + (turn * step_us + place * step_us // devices) // 1000 * 1000
            yield Reading(device_id, spec.type, site, time_us, values, turn + 1 if with_seq else None, spec.version)
        turn += 1


def _draw(metric: Metric, rng: random.Random) -> Draw:
    profile = metric.simulate or Profile(shape="binary" if metric.kind == "state" else "uniform")
    span = profile.range or metric.range
    low, high = (span.low, span.high) if span else (0.0, 1.0)
    step = profile.step if profile.step is not None else (high - low) / 50
    decimals, p, uniform = profile.decimals, profile.p, rng.uniform

    def within(value: float) -> float:
        return min(high, max(low, round(value, decimals)))

    def walk(before: float | None) -> float:
        if before is None:
            return within(uniform(low, high))
        value = before + uniform(-step, step)
        # Reflected at the bounds: clipped, a walk would stick to them.
        return within(2 * low - value if value < low else 2 * high - value if value > high else value)

    def count(before: float | None) -> float:
        value = low if before is None else before + uniform(0, step)
        return within(value) if value <= high else low  # a meter that is full starts over

    shapes: dict[str, Draw] = {
        "uniform": lambda before: within(uniform(low, high)),
        "walk": walk,
        "binary": lambda before: float(rng.random() < p),
        "counter": count,
    }
    return shapes[profile.shape]
