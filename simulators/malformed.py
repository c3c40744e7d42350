"""Payloads that no contract reads, made from the ones that devices meant to send. Transformers as in
simulators/faults.py; each name says the reason code that it must be rejected with, or nearly."""

import random
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import msgspec

from fleet.catalog import Catalog
from fleet.contract import MAX_PAYLOAD_BYTES
from fleet.spec import DeviceType
from simulators.faults import Plan, Transformer
from simulators.message import Fault, Message
from simulators.wire import Wire

_encode = msgspec.json.Encoder().encode
Spoil = Callable[[dict[str, Any], DeviceType, random.Random], tuple[bytes, Any]]
"""(the message, its type, a random source) → (what is sent, how the truth shows it)."""


def _truncated(fields: dict[str, Any], spec: DeviceType, rng: random.Random) -> tuple[bytes, Any]:
    payload = _encode(fields)
    sent = payload[: rng.randrange(len(payload))]
    return sent, sent.decode("utf-8", "replace")


def _not_utf8(fields: dict[str, Any], spec: DeviceType, rng: random.Random) -> tuple[bytes, Any]:
    payload = _encode(fields)
    place = rng.randrange(1, len(payload))
    sent = payload[:place] + b"\xff" + payload[place:]
    return sent, {"base64": b64encode(sent).decode("ascii")}


def _wrong_type(fields: dict[str, Any], spec: DeviceType, rng: random.Random) -> tuple[bytes, Any]:
    inside, keys = _value_keys(fields, spec)
    inside[keys[rng.randrange(len(keys))]] = rng.choice(("n/a", [1.5], {"v": 1.5}))
    return _shown(_encode(fields))


def _unknown_metric(fields: dict[str, Any], spec: DeviceType, rng: random.Random) -> tuple[bytes, Any]:
    inside, _ = _value_keys(fields, spec)
    inside[f"undocumented_{rng.randrange(100)}"] = round(rng.random(), 3)
    return _shown(_encode(fields))


def _oversized(fields: dict[str, Any], spec: DeviceType, rng: random.Random) -> tuple[bytes, Any]:
    sent = _encode(fields).ljust(MAX_PAYLOAD_BYTES + 1 + rng.randrange(1024))  # JSON but for its length
    return sent, {"bytes": len(sent)}


def _shown(sent: bytes) -> tuple[bytes, Any]:
    return sent, sent.decode("utf-8")


def _value_keys(fields: dict[str, Any], spec: DeviceType) -> tuple[dict[str, Any], list[str]]:
    """The part of the message that holds the values, and their keys."""
    adapter = spec.adapter
    if adapter.form == "canonical":
        return fields["values"], list(fields["values"])
    if adapter.form == "feature":
        return fields, [adapter.value]
    return fields, [key for key in fields if key not in (adapter.device_id, adapter.event_time, adapter.seq)]


def _spoiling(spoil: Spoil) -> Transformer:
    def transform(
        messages: Iterable[Message], rng: random.Random, plan: Plan, catalog: Catalog
    ) -> Iterator[Message]:  # fmt: skip
        wires: dict[str, Wire] = {}
        for message in messages:
            chosen = plan.touches(rng)
            if chosen and plan.covers(message):
                spec = catalog.type(message.reading.device_type)
                wire = wires.setdefault(spec.type, Wire(spec))
                meant = wire.fields(message.reading)
                raw, shown = spoil(wire.fields(message.reading), spec, chosen)
                message = replace(message, raw=raw, fault=Fault(plan.kind, meant, shown))
            yield message

    return transform


truncated = _spoiling(_truncated)
not_utf8 = _spoiling(_not_utf8)
wrong_type = _spoiling(_wrong_type)
unknown_metric = _spoiling(_unknown_metric)
oversized = _spoiling(_oversized)
