"""Readings by the thousand as columns: what a rule looks at for all readings of a batch at once.

Of each record of a readings topic it says either what fleet.contract.Intake.read_record says, a Reading, here as a
place in arrays; or nothing, and the record is left to read_record. Left are records that are no reading or not yet
known, and rare forms (a seq of null, a time beyond 2255), so there is one opinion on every record, and a bad one does
its neighbours no harm.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Annotated, Any

import msgspec
import numpy as np

from fleet.catalog import Catalog
from fleet.channels import LEVEL
from fleet.contract import EARLIEST_US, MAX_FUTURE_US
from fleet.reading import Reading
from fleet.spec import DeviceType

Ints = np.ndarray[Any, np.dtype[np.int64]]
Doubles = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

NO_SEQ = -(2**63)
LATEST_MS = 2**53 // 1000
"""In the year 2255: a double is exact to the microsecond up to there."""
NOT_CARRIED = float("inf")
"""Stands for a metric that a record does not have; JSON has no infinity, so no record can say it."""
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError)
"""What decoders raise; TypeError for a record whose value is null."""


class Names(dict[str, int]):
    """Names → numbers from 0, in the order in which they were first asked for; -1 for what cannot be an id or a site.
    Numbers are never given up: hold arrays of state by them."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        """By number."""

    def __missing__(self, name: str) -> int:
        if not LEVEL.fullmatch(name):
            return -1
        self[name] = number = len(self.names)
        self.names.append(name)
        return number


@dataclass(frozen=True, slots=True)
class Columns:
    """Readings of one type, in the order of the records. All arrays are as long as `rows`."""

    type: str
    rows: Ints
    """The place of each reading's record among those that were given; rising."""
    devices: Ints
    """Numbers in `device_names`, of this type alone: ids are unique within their type."""
    sites: Ints
    event_times_us: Ints
    seqs: Ints
    """NO_SEQ where a reading has none."""
    versions: Ints
    values: dict[str, Doubles]
    """Metric → values, NaN where unknown: sent as null, or not sent."""
    carried: dict[str, Bools]
    """Metric → whether the reading has it, null or not."""
    device_names: Names
    site_names: Names

    def __len__(self) -> int:
        return len(self.rows)

    def reading(self, place: int) -> Reading:
        """The same as fleet.reading.decode_reading makes of the record `rows[place]`."""
        values = {m: float(self.values[m][place]) for m, carried in self.carried.items() if carried[place]}
        seq = int(self.seqs[place])
        return Reading(
            self.device_names.names[self.devices[place]],
            self.type,
            self.site_names.names[self.sites[place]],
            int(self.event_times_us[place]),
            {metric: None if value != value else value for metric, value in values.items()},
            None if seq == NO_SEQ else seq,
            int(self.versions[place]),
        )

    def _only(self, kept: Bools) -> "Columns":
        arrays = {name: getattr(self, name)[kept] for name in ("rows", "devices", "sites", "event_times_us", "seqs",
                                                               "versions")}  # fmt: skip
        return replace(
            self, **arrays,
            values={metric: column[kept] for metric, column in self.values.items()},
            carried={metric: column[kept] for metric, column in self.carried.items()},
        )  # fmt: skip


class ColumnReader:
    """Reads the records of one topic. `devices` (by type) and `sites` are the numbers to go on with, where one with a
    newer catalog takes over."""

    def __init__(
        self, catalog: Catalog, topic: str, devices: dict[str, Names] | None = None, sites: Names | None = None
    ):
        self.devices = {} if devices is None else devices
        self.sites = Names() if sites is None else sites
        self._specs: dict[type, DeviceType] = {_record_of(spec): spec for spec in catalog if spec.topic == topic}
        self._numbers = {kind: number for number, kind in enumerate(self._specs)}
        for spec in self._specs.values():
            self.devices.setdefault(spec.type, Names())
        union: Any = _NOTHING
        for kind in self._specs:
            union |= kind
        self._decode = msgspec.json.Decoder(union).decode

    def read(self, values: Sequence[bytes | None], append_ms: Ints) -> tuple[list[Columns], Ints]:
        """The readings, a Columns for each type that there is, and the places of the records that are left to
        Intake.read_record. `append_ms`: of each record, the broker's clock."""
        places: Ints | None = None
        try:
            records = [self._decode(value) for value in values]  # type: ignore[arg-type]
            left: list[int] = []
        except UNREADABLE:
            records, places, left = self._one_by_one(values)
        found = []
        for kind, of_kind, members in self._by_type(records):
            rows = members if places is None else places[members]
            columns = self._columns(self._specs[kind], of_kind, rows)
            wrong = columns.event_times_us > append_ms[rows] * 1000 + MAX_FUTURE_US
            wrong |= (columns.devices < 0) | (columns.sites < 0)
            wrong |= ~np.logical_or.reduce(list(columns.carried.values()))
            if wrong.any():
                left += rows[wrong].tolist()
                columns = columns._only(~wrong)
            if len(columns):
                found.append(columns)
        return found, np.array(sorted(left), np.int64)

    def _one_by_one(self, values: Sequence[bytes | None]) -> tuple[list[Any], Ints, list[int]]:
        """(records, their places, the places of what is no record)"""
        records, places, left = [], [], []
        for place, value in enumerate(values):
            try:
                records.append(self._decode(value))  # type: ignore[arg-type]
                places.append(place)
            except UNREADABLE:
                left.append(place)
        return records, np.array(places, np.int64), left

    def _by_type(self, records: list[Any]) -> list[tuple[type, list[Any], Ints]]:
        """(type, its records, their places among the records)"""
        if not records:
            return []
        if len(self._numbers) == 1:
            return [(kind, records, np.arange(len(records), dtype=np.int64)) for kind in self._numbers]
        numbers = np.fromiter(map(self._numbers.__getitem__, map(type, records)), np.int64, len(records))
        found = []
        for kind, number in self._numbers.items():
            members = np.flatnonzero(numbers == number)
            if members.size:
                found.append((kind, [records[place] for place in members.tolist()], members))
        return found

    def _columns(self, spec: DeviceType, records: list[Any], rows: Ints) -> Columns:
        count = len(records)
        devices = self.devices[spec.type]
        times_ms = np.fromiter([r.time for r in records], np.float64, count)
        metrics = _matrix([r.values for r in records], len(spec.metrics))
        carried = metrics != NOT_CARRIED
        if not carried.all():
            metrics[~carried] = np.nan
        return Columns(
            spec.type,
            rows,
            np.fromiter(map(devices.__getitem__, [r.id for r in records]), np.int64, count),
            np.fromiter(map(self.sites.__getitem__, [r.site for r in records]), np.int64, count),
            np.rint(times_ms * 1000).astype(np.int64),
            np.fromiter([r.seq for r in records], np.int64, count),
            np.fromiter([r.version for r in records], np.int64, count),
            dict(zip(spec.metrics, metrics, strict=True)),
            dict(zip(spec.metrics, carried, strict=True)),
            devices,
            self.sites,
        )


def _matrix(values: list[Any], metrics: int) -> Doubles:
    """(metrics, readings)"""
    flat = chain.from_iterable(map(msgspec.structs.astuple, values))
    try:
        column = np.fromiter(flat, np.float64, len(values) * metrics)
    except TypeError:  # there is a null
        column = np.array(list(chain.from_iterable(map(msgspec.structs.astuple, values))), np.float64)
    return np.ascontiguousarray(column.reshape(len(values), metrics).T)


_NOTHING = msgspec.defstruct(
    "Nothing", [("nothing", Annotated[int, msgspec.Meta(ge=1, le=0)])], tag="", tag_field="device_type"
)
"""No record is one. A union of two makes msgspec insist on `device_type`, which it does not for one type."""


def _record_of(spec: DeviceType) -> type:
    """fleet.reading.Record of this type alone, with what read_record asks for as far as msgspec can."""
    names = {f"m{place}": metric for place, metric in enumerate(spec.metrics)}
    fields: list[Any] = [(field, float | None, NOT_CARRIED) for field in names]
    values = msgspec.defstruct("Values", fields, rename=names, forbid_unknown_fields=True, gc=False)
    span = msgspec.Meta(ge=EARLIEST_US // 1000, le=LATEST_MS)
    version = Annotated[int, msgspec.Meta(ge=1, le=spec.version)]
    seq = Annotated[int, msgspec.Meta(ge=NO_SEQ + 1, le=2**63 - 1)]
    fields = [("id", str), ("site", str), ("time", Annotated[int, span] | Annotated[float, span]), ("values", values)]
    fields += [("version", version), ("seq", seq, NO_SEQ)]
    return msgspec.defstruct(
        "Record", fields, rename={"id": "device_id", "time": "event_time"}, tag=spec.type, tag_field="device_type",
        forbid_unknown_fields=True, gc=False,
    )  # fmt: skip
