"""Faults on the way from the devices: messages lost, sent twice, or overtaken.

Transformers as in simulators/faults.py."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace

from fleet.catalog import Catalog
from simulators.faults import Plan
from simulators.message import Fault, Message


def dropout(messages: Iterable[Message], rng: random.Random, plan: Plan, catalog: Catalog) -> Iterator[Message]:
    """A device is silent for `length` messages."""
    silent: dict[tuple[str, str, str], int] = {}
    for message in messages:
        chosen = plan.starts(rng)
        reading = message.reading
        key = (reading.device_type, reading.site, reading.device_id)
        if plan.covers(message):
            if chosen:
                silent.setdefault(key, plan.length)
            if key in silent:
                silent[key] -= 1
                if silent[key] == 0:
                    del silent[key]
                message = replace(message, dropped=True, fault=Fault(plan.kind, dict(reading.values)))
        yield message


def duplicate(messages: Iterable[Message], rng: random.Random, plan: Plan, catalog: Catalog) -> Iterator[Message]:
    """A message is sent again, after up to `length` others."""
    waiting: list[tuple[int, Message]] = []
    for message in messages:
        yield message
        if waiting:
            waiting = [(left - 1, copy) for left, copy in waiting]
        chosen = plan.touches(rng)
        if chosen and plan.covers(message):
            waiting.append((chosen.randrange(plan.length + 1), replace(message, fault=Fault(plan.kind))))
        if waiting:
            yield from (copy for left, copy in waiting if left <= 0)
            waiting = [(left, copy) for left, copy in waiting if left > 0]
    yield from (copy for _, copy in waiting)


def reordering(messages: Iterable[Message], rng: random.Random, plan: Plan, catalog: Catalog) -> Iterator[Message]:
    """A message is held back until 1 to `length` later ones have been sent; `sent` is how many those were."""
    waiting: list[tuple[int, Message]] = []  # (how many have overtaken it so far, the message and its goal)
    for message in messages:
        chosen = plan.touches(rng)
        # At most `length` are held at once: where all were, none would ever go.
        if chosen and plan.covers(message) and len(waiting) < plan.length:
            goal = 1 + chosen.randrange(plan.length)
            waiting.append((0, replace(message, fault=Fault(plan.kind, sent=goal))))
            continue
        yield message
        if waiting and not message.dropped:
            waiting = [(overtaken + 1, held) for overtaken, held in waiting]
            yield from (held for overtaken, held in waiting if _is_due(overtaken, held))
            waiting = [(overtaken, held) for overtaken, held in waiting if not _is_due(overtaken, held)]
    for overtaken, held in waiting:  # the run ended first; what nothing overtook is in its place
        yield replace(held, fault=Fault(plan.kind, sent=overtaken) if overtaken else None)


def _is_due(overtaken: int, held: Message) -> bool:
    return held.fault is not None and overtaken >= held.fault.sent
