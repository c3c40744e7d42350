"""What happened to an alert: the record of RULES.md §5, and the names that make it the same one on every replay."""

from hashlib import blake2b
from typing import Any

import msgspec

from fleet.reading import to_datetime


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a transition says alike in memory and on Kafka."""

    transition_id: str
    alert_id: str
    rule: str
    device: str
    site: str
    type: str
    system: str
    to: str
    """firing, escalated, deescalated, resolved, flapping, settled."""
    severity: str
    reason: str | None
    """Of resolved: recovered, rule_removed, device_retired, manual."""
    values: dict[str, float | None]
    """Of the rule's own metrics, the present values at event time."""
    spec_version: int
    flapping: bool
    title: str
    annotations: dict[str, str]
    labels: dict[str, str]
    capped: bool = False
    """Fired while its rule had `max_active_alerts` active in the partition: in the log, and nobody is to be told."""


class Transition(_Told, frozen=True, kw_only=True):
    """Times are epoch µs. `partition` and `offset` are the source: the record that caused it."""

    event_time_us: int
    detected_at_us: int
    since_us: int
    starts_at_us: int
    partition: int
    offset: int

    @property
    def number(self) -> int:
        """Within the alert, from 1."""
        return int(self.transition_id.rpartition("-")[2])


def alert_id(system: str, type_name: str, rule: str, device: str, starts_at_us: int, k: int) -> str:
    """32 hexadecimal digits. `k` counts earlier alerts of that rule and device with the same start."""
    identity = msgspec.msgpack.encode((system, type_name, rule, device, starts_at_us, k))
    return blake2b(identity, digest_size=16).hexdigest()


class Source(msgspec.Struct):
    partition: int
    offset: int


Milliseconds = int | float


class _Record(_Told, frozen=True, kw_only=True, omit_defaults=True):
    """The form on Kafka: compact JSON, times epoch milliseconds with a fraction only where there are microseconds."""

    event_time: Milliseconds
    detected_at: Milliseconds
    since: Milliseconds
    starts_at: Milliseconds
    source: Source


TIMES = ("event_time", "detected_at", "since", "starts_at")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Record).decode


def encode_transition(transition: Transition) -> bytes:
    fields: dict[str, Any] = {name: getattr(transition, name) for name in _Told.__struct_fields__}
    for name in TIMES:
        us = getattr(transition, f"{name}_us")
        fields[name] = us // 1000 if us % 1000 == 0 else us / 1000
    return _encode(_Record(**fields, source=Source(transition.partition, transition.offset)))


def decode_transition(value: bytes) -> Transition:
    """Raises msgspec.MsgspecError where the bytes are no transition."""
    record = _decode(value)
    fields: dict[str, Any] = {name: getattr(record, name) for name in _Told.__struct_fields__}
    for name in TIMES:
        fields[f"{name}_us"] = round(getattr(record, name) * 1000)
    return Transition(**fields, partition=record.source.partition, offset=record.source.offset)


_SAME = (
    "transition_id", "alert_id", "number", "system", "type", "rule", "site", "to", "severity", "reason", "title",
    "annotations", "labels", "values", "spec_version", "flapping", "capped",
)  # fmt: skip


def row_of(t: Transition) -> dict[str, object]:
    """By the names that tables and files have; times aware UTC. Raises OverflowError where one is no date."""
    moments = {name: to_datetime(getattr(t, f"{name}_us")) for name in TIMES}
    source = {"source_partition": t.partition, "source_offset": t.offset}
    return {**{name: getattr(t, name) for name in _SAME}, **moments, **source, "device_id": t.device}
