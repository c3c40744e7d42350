"""Faults of devices: what they measure and what their clocks say. Each is a a small pure transformer over a stream of
messages; those of the way from them are in simulators/delivery.py and simulators/malformed.py.

A transformer takes (messages, its own random source, its plan, the catalog) and yields messages. It leaves alone what
another fault has touched, and marks what it touches with a `Fault`: original, sent.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

import msgspec

from fleet.catalog import Catalog
from fleet.spec import Metric
from simulators.message import Fault, Message


@dataclass(frozen=True, slots=True)
class Plan:
    """`share` of the messages that are touched (0 to 1); `length` of one episode, in messages; `by` for clocks; only
    messages of `device` and values of `metric`, where given."""

    kind: str
    share: float
    length: int = 1
    by: timedelta | None = None
    device: str | None = None
    metric: str | None = None

    def covers(self, message: Message) -> bool:
        is_free = message.fault is None and not message.dropped
        return is_free and (self.device is None or self.device == message.reading.device_id)

    def touches(self, rng: random.Random) -> random.Random | None:
        """A random source for what happens to this message, or None. Draws once for every message, so that what
        happens to one does not depend on the others."""
        return _chosen(rng, self.share)

    def starts(self, rng: random.Random) -> random.Random | None:
        """The same, where an episode of `length` messages starts at this one."""
        return _chosen(rng, self.share / self.length)


def _chosen(rng: random.Random, share: float) -> random.Random | None:
    draw = rng.random()
    return random.Random(draw) if draw < share else None  # noqa: S311


BEHIND, AHEAD = timedelta(hours=-1), timedelta(days=30)
Transformer = Callable[[Iterable[Message], random.Random, Plan, Catalog], Iterator[Message]]


def _values(message: Message, plan: Plan, catalog: Catalog) -> list[tuple[str, Metric, float]]:
    """The known values that the plan may touch."""
    metrics = catalog.type(message.reading.device_type).metrics
    return [
        (name, metrics[name], value)
        for name, value in message.reading.values.items()
        if value is not None and plan.metric in (None, name)
    ]


def _say(message: Message, kind: str, metric: str, value: float) -> Message:
    reading = message.reading
    changed = msgspec.structs.replace(reading, values={**reading.values, metric: value})
    return replace(message, reading=changed, fault=Fault(kind, reading.values[metric], value, metric))


def _room(metric: Metric) -> tuple[float, float]:
    """The range that the sensor can say."""
    return (metric.range.low, metric.range.high) if metric.range else (-1e6, 1e6)


def spike(messages: Iterable[Message], rng: random.Random, plan: Plan, catalog: Catalog) -> Iterator[Message]:
    """One gauge jumps close to the far end of its range: possible, and not true."""
    for message in messages:
        chosen = plan.touches(rng)
        if chosen and plan.covers(message):
            gauges = [v for v in _values(message, plan, catalog) if v[1].kind == "gauge"]
            if gauges:
                name, metric, value = gauges[chosen.randrange(len(gauges))]
                low, high = _room(metric)
                far = high if high - value > value - low else low
                sent = round(value + (far - value) * chosen.uniform(0.8, 0.95), 6)
                if sent != value:
                    message = _say(message, plan.kind, name, sent)
        yield message


def out_of_range(messages: Iterable[Message], rng: random.Random, plan: Plan, catalog: Catalog) -> Iterator[Message]:
    """One value beyond what the sensor can say; what becomes of it is the metric's `outside`."""
    for message in messages:
        chosen = plan.touches(rng)
        if chosen and plan.covers(message):
            ranged = [v for v in _values(message, plan, catalog) if v[1].range]
            if ranged:
                name, metric, _ = ranged[chosen.randrange(len(ranged))]
                low, high = _room(metric)
                beyond = (high - low) * chosen.uniform(0.1, 1)
                sent = high + beyond if chosen.random() < 0.5 else low - beyond
                message = _say(message, plan.kind, name, float(f"{sent:.6g}"))
        yield message


def stuck(messages: Iterable[Message], rng: random.Random, plan: Plan, catalog: Catalog) -> Iterator[Message]:
    """A gauge repeats its value for the next `length` readings. One that would have said the same is no fault."""
    held: dict[tuple[str, str, str], tuple[str, float, int]] = {}
    for message in messages:
        chosen = plan.starts(rng)
        if plan.covers(message):
            reading = message.reading
            key = (reading.device_type, reading.site, reading.device_id)
            if key in held:
                name, value, left = held[key]
                if name in reading.values:
                    held[key] = (name, value, left - 1)
                    if left == 1:
                        del held[key]
                    if reading.values[name] not in (None, value):
                        message = _say(message, plan.kind, name, value)
            elif chosen:
                gauges = [v for v in _values(message, plan, catalog) if v[1].kind == "gauge"]
                if gauges:
                    name, _, value = gauges[chosen.randrange(len(gauges))]
                    held[key] = (name, value, plan.length)
        yield message


def clock_skew(messages: Iterable[Message], rng: random.Random, plan: Plan, catalog: Catalog) -> Iterator[Message]:
    """A device's clock is off by `by` for `length` messages; without `by`, an hour behind (which is late, and read)
    or thirty days ahead (which is refused), one as often as the other."""
    off: dict[tuple[str, str, str], tuple[timedelta, int]] = {}
    for message in messages:
        chosen = plan.starts(rng)
        if plan.covers(message):
            reading = message.reading
            key = (reading.device_type, reading.site, reading.device_id)
            if chosen and key not in off:
                by = plan.by if plan.by is not None else (BEHIND if chosen.random() < 0.5 else AHEAD)
                off[key] = (by, plan.length)
            if key in off:
                by, left = off[key]
                off[key] = (by, left - 1)
                if left == 1:
                    del off[key]
                says_us = reading.event_time_us + by // timedelta(microseconds=1)
                fault = Fault(plan.kind, reading.event_time_us / 1000, says_us / 1000)
                message = replace(
                    message, reading=msgspec.structs.replace(reading, event_time_us=says_us), fault=fault
                )  # fmt: skip
        yield message
