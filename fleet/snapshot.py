"""The state of an engine as bytes, and back: msgpack, with its specs, in a version of its own.

What can be worked out again is left out: compiled rules, plans, heaps. A restored engine behaves as the one that was
written, from the next record on.
"""

from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import ValidationError

from fleet import timer
from fleet.alert_state import Alert, Machine
from fleet.counter_total import CounterTotal
from fleet.device_state import DeviceState, Mark, TypeState
from fleet.errors import DataError
from fleet.ruleset import RuleSet
from fleet.spec import RuledType
from fleet.window import Window

if TYPE_CHECKING:
    from fleet.engine import Engine

VERSION = 2
"""Of the layout below; bump it with any change, and say in `read_snapshot` how older ones are read."""

NOT_KEPT = {"title", "description", "adapter", "retention", "simulation", "examples"}
"""Parts of a spec that no rule looks at."""

FIELDS = ("clock", "heard", "registered", "lag", "place", "newest", "silences", "own_params", "pinned", "marks")
"""Of a device, written as they are."""


class SnapshotError(DataError):
    """These bytes are no snapshot that this program can read: the state has to be made from the log again."""


class _Device(msgspec.Struct, array_like=True):
    id: str
    site: str
    fields: list[Any]
    values: list[float | None]
    times: list[int]
    recent: bytes
    windows: list[tuple[bytes, bytes]]
    previous: list[float | None]
    totals: list[tuple[float | None, int | None, list[float], int | None, list[float]]]
    alerts: list[tuple[int, list[Any], list[list[Any]]]]
    """(rule's place, the alert's fields but the machines, each machine's fields)"""
    evaluated: list[tuple[int, int]]


class _Type(msgspec.Struct, array_like=True):
    spec: dict[str, Any]
    highest: int
    appended: int
    watermark: int
    retired: dict[str, dict[str, Mark]]
    devices: list[_Device]


class _Snapshot(msgspec.Struct, array_like=True):
    version: int
    partition: int
    offset: int
    floor: int
    zones: dict[str, str]
    """Site → time zone."""
    counts: list[int]
    errors: list[tuple[str, str, int]]
    revisions: list[tuple[tuple[str, ...], int]]
    types: list[_Type]


COUNTS = ("readings", "duplicates", "out_of_order", "late", "unreadable", "repeated", "evaluations")

by_name = attrgetter("name")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Snapshot).decode
_version = msgspec.msgpack.Decoder(list[Any]).decode


def write_snapshot(engine: "Engine") -> bytes:
    return _encode(
        _Snapshot(
            VERSION,
            engine.journal.partition,
            engine.offset,
            engine.known.floor,
            {site.name: site.local.name for site in sorted(engine.known.sites.values(), key=by_name)},
            [getattr(engine.counts, name) for name in COUNTS],
            [(*key, n) for key, n in sorted(engine.journal.errors.items())],
            list(engine.revisions.items()),
            [_write_type(type_) for type_ in engine.known.types.values()],
        )
    )


def _write_type(type_: TypeState) -> _Type:
    if type_.table is not None:
        type_.table.load_all()
    spec = type_.rules.spec.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude=NOT_KEPT)
    devices = [_write_device(device) for device in type_.devices.values()]
    return _Type(spec, type_.highest, type_.appended, type_.watermark, type_.retired, devices)


def _write_device(device: DeviceState) -> _Device:
    return _Device(
        device.id,
        device.site.name,
        [getattr(device, name) for name in FIELDS],
        device.values,
        device.times,
        device.recent.tobytes(),
        [window.dump() for window in device.windows],
        device.previous,
        [total.dump() for total in device.totals],
        [(place, *_write_alert(alert)) for place, alert in enumerate(device.alerts) if alert is not None],
        sorted((device.evaluated or {}).items()),
    )


def _write_alert(alert: Alert) -> tuple[list[Any], list[list[Any]]]:
    _, *fields = msgspec.structs.astuple(alert)
    machines = []
    for machine in alert.machines:
        *rest, outcomes = msgspec.structs.astuple(machine)
        # As bytes: of 10,000 outcomes, an integer is longer than msgpack's.
        machines.append([*rest, outcomes.to_bytes((outcomes.bit_length() + 7) // 8, "big")])
    return fields, machines


def read_snapshot(data: bytes) -> "Engine":
    from fleet.engine import Engine

    try:
        version = _version(data)[0]
        if version != VERSION:
            raise SnapshotError(f"the snapshot's version is {version!r}, this program's is {VERSION}")
        snapshot = _decode(data)
    except (msgspec.MsgspecError, IndexError) as error:
        raise SnapshotError(f"no snapshot of an engine: {error}") from None
    engine = Engine(snapshot.partition)
    engine.journal.offset, engine.known.floor = snapshot.offset, snapshot.floor
    for name, n in zip(COUNTS, snapshot.counts, strict=True):
        setattr(engine.counts, name, n)
    for type_name, rule, n in snapshot.errors:
        engine.journal.errors[type_name, rule] = n
    engine.revisions = dict(snapshot.revisions)
    for name, zone in snapshot.zones.items():
        engine.known.set_zone(name, zone)
    for stored in snapshot.types:
        type_ = TypeState(RuleSet(_read_spec(stored.spec)))
        type_.highest, type_.appended, type_.watermark = stored.highest, stored.appended, stored.watermark
        engine.known.types[type_.name] = type_
        for device in stored.devices:
            _read_device(engine, type_, device)
        type_.retired = stored.retired
    engine.known.index_lookers()
    return engine


def _read_spec(data: dict[str, Any]) -> RuledType:
    try:
        return RuledType.model_validate(data)
    except ValidationError as error:  # of a program that allowed more
        raise SnapshotError(f"the snapshot's spec of {data.get('type')!r} is none for this program: {error}") from None


def _read_device(engine: "Engine", type_: TypeState, stored: _Device) -> None:
    device = engine.known.add_device(type_, stored.id, stored.site)
    for name, value in zip(FIELDS, stored.fields, strict=True):
        setattr(device, name, value)
    if device.marks:
        device.marks = {rule: tuple(mark) for rule, mark in device.marks.items()}  # type: ignore[misc]
    device.params = type_.rules.params_of(device.own_params)
    device.values, device.times, device.previous = stored.values, stored.times, stored.previous
    device.recent.frombytes(stored.recent)
    device.windows = [Window(*window) for window in stored.windows]
    device.totals = [CounterTotal(*total) for total in stored.totals]
    for place, fields, machines in stored.alerts:
        alert = device.alerts[place] = Alert([_read_machine(*machine) for machine in machines], *fields)
        if alert.rank >= 0:
            type_.count(type_.rules.rules[place], alert, 1)
    device.evaluated = dict(stored.evaluated) or None
    timer.rearm(device)


def _read_machine(*fields: Any) -> Machine:
    machine = Machine(*fields)
    machine.outcomes = int.from_bytes(fields[-1], "big")
    return machine
