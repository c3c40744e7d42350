"""The state of an engine as bytes, and back: msgpack, with its specs, in a version of its own.

What can be worked out again is left out: compiled rules, plans, heaps. A restored engine behaves as the one that was
written, from the next record on.
"""

from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import ValidationError

from fleet.device_state import Mark, TypeState
from fleet.errors import ConfigurationError, DataError
from fleet.ruleset import RuleSet
from fleet.snapshot_devices import Devices, read_devices, write_devices
from fleet.spec import RuledType

if TYPE_CHECKING:
    from fleet.engine import Engine

VERSION = 2
"""Of the layout below; bump it with any change, and say in `read_snapshot` how older ones are read."""

NOT_KEPT = {"title", "description", "adapter", "retention", "simulation", "examples"}
"""Parts of a spec that no rule looks at."""


class SnapshotError(DataError):
    """These bytes are no snapshot that this program can read: the state has to be made from the log again."""


class _Type(msgspec.Struct, array_like=True):
    spec: dict[str, Any]
    highest: int
    appended: int
    watermark: int
    retired: dict[str, dict[str, Mark]]
    devices: Devices


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
    spec = type_.rules.spec.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude=NOT_KEPT)
    return _Type(spec, type_.highest, type_.appended, type_.watermark, type_.retired, write_devices(type_))


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
        try:
            engine.known.set_zone(name, zone)
        except ConfigurationError as error:
            raise SnapshotError(f"the snapshot's site {name!r}: {error}") from None
    for stored in snapshot.types:
        type_ = TypeState(RuleSet(_read_spec(stored.spec)))
        type_.highest, type_.appended, type_.watermark = stored.highest, stored.appended, stored.watermark
        engine.known.types[type_.name] = type_
    engine.known.index_lookers()
    for stored, type_ in zip(snapshot.types, engine.known.types.values(), strict=True):
        read_devices(engine.known, type_, stored.devices)
        type_.retired = stored.retired
    return engine


def _read_spec(data: dict[str, Any]) -> RuledType:
    try:
        return RuledType.model_validate(data)
    except ValidationError as error:  # of a program that allowed more
        raise SnapshotError(f"the snapshot's spec of {data.get('type')!r} is none for this program: {error}") from None
