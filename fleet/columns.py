"""Readings by the thousand as columns: what a rule looks at for all readings of a batch at once.

Of each record of a readings topic it says either what fleet.contract.Intake.read_record says, a Reading, here as a
place in arrays; or nothing, and the record is left to read_record. Left are records that are no reading or not yet
known, and rare forms (a seq of null, a time beyond 2255), so there is one opinion on every record, and a bad one does
its neighbours no harm.

Where many records have one layout numpy reads them; the rest are read one by one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any

import msgspec
import numpy as np

from fleet.catalog import Catalog
from fleet.contract import EARLIEST_US, MAX_FUTURE_US
from fleet.layout import LATEST_MS, Layout, layout_of, read_layout
from fleet.names import Names
from fleet.reading import Reading
from fleet.spec import DeviceType
from fleet.text import PADDING, Bools, Doubles, Ints, Text

NO_SEQ = -(2**63)
NOT_CARRIED = float("inf")
"""Stands for a metric that a record does not have; JSON has no infinity, so no record can say it."""
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
FEW = 256
"""Records of a layout that are worth numpy's 0.3 ms for it; one by one they cost 1.3 µs each."""
SAMPLES = 4
"""How many records of a batch are looked at for layouts that are new."""


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

    def between(self, begin: int, end: int) -> "Columns":
        """Those of the records from `begin` up to `end`; views, no copies."""
        low, high = np.searchsorted(self.rows, (begin, end)).tolist()
        if high - low == len(self):
            return self
        some = slice(low, high)
        return Columns(
            self.type, self.rows[some], self.devices[some], self.sites[some], self.event_times_us[some],
            self.seqs[some], self.versions[some],
            {metric: column[some] for metric, column in self.values.items()},
            {metric: column[some] for metric, column in self.carried.items()},
            self.device_names, self.site_names,
        )  # fmt: skip

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


class ColumnReader:
    """Reads the records of one topic. `devices` (by type) and `sites` are the numbers to go on with, where one with a
    newer catalog takes over."""

    def __init__(
        self, catalog: Catalog, topic: str, devices: dict[str, Names] | None = None, sites: Names | None = None
    ):
        self.devices = {} if devices is None else devices
        self.sites = Names() if sites is None else sites
        self._specs = [spec for spec in catalog if spec.topic == topic]
        self._kinds = {spec.type: kind for kind, spec in enumerate(self._specs)}
        for spec in self._specs:
            self.devices.setdefault(spec.type, Names())
        records = [_record_of(spec) for spec in self._specs]
        self._kind_of = {record: kind for kind, record in enumerate(records)}
        union: Any = _NOTHING
        for record in records:
            union |= record
        self._decode = msgspec.json.Decoder(union).decode
        self._layouts: list[Layout] = []
        """The frequent ones of the last batch, the most frequent first."""

    def read(self, buffer: bytes, starts: Ints, lengths: Ints, append_ms: Ints) -> tuple[list[Columns], Ints]:
        """The readings, a Columns for each type that there is, and the places of the records that are left to
        Intake.read_record. A record's value is `lengths` bytes of the buffer from `starts` on, or null (-1);
        `append_ms` is its append time by the broker's clock."""
        table = _Table(len(starts), max((len(spec.metrics) for spec in self._specs), default=0))
        rows = np.flatnonzero(lengths >= 0)
        if len(rows) >= FEW:
            rows = self._by_layout(buffer, starts, starts + lengths, rows, table)
        self._one_by_one(buffer, starts, lengths, rows, table)
        good = table.good(append_ms)
        found = []
        for kind, spec in enumerate(self._specs):
            members = np.flatnonzero(good & (table.kinds == kind))
            if members.size:
                found.append(table.columns(spec, members, self.devices[spec.type], self.sites))
        return found, np.flatnonzero(~good)

    def _by_layout(self, buffer: bytes, starts: Ints, ends: Ints, rows: Ints, table: "_Table") -> Ints:
        """Into the table; returns the rows that are left."""
        if len(buffer) < int(ends[rows].max()) + PADDING:
            buffer += bytes(PADDING)
        text = Text(buffer)
        counts: dict[Layout, int] = {}
        for layout in chain(self._layouts, self._samples(buffer, starts, ends, rows, table)):
            if layout in counts:
                continue
            kind = self._kinds[layout.type]
            found = read_layout(layout, text, rows, starts, ends, self.devices[layout.type], self.sites)
            table.put(kind, found.rows, found.devices, found.sites, found.times_ms, found.seqs, layout.version)
            places = [list(self._specs[kind].metrics).index(metric) for metric in layout.metrics]
            table.put_values(found.rows, places, found.values)
            counts[layout] = len(found.rows)
            rows = rows[table.kinds[rows] < 0]
            if len(rows) < FEW:
                break
        frequent = [layout for layout, count in counts.items() if count >= FEW]
        self._layouts = sorted(frequent, key=lambda layout: -counts[layout])
        return rows

    def _samples(self, buffer: bytes, starts: Ints, ends: Ints, rows: Ints, table: "_Table") -> Iterator[Layout]:
        """Layouts of some of the rows that nothing has read until then."""
        for number in range(SAMPLES):
            rows = rows[table.kinds[rows] < 0]
            row = rows[number * len(rows) // SAMPLES]
            value = buffer[starts[row] : ends[row]]
            try:
                self._decode(value)
            except UNREADABLE:
                continue
            yield layout_of(value)

    def _one_by_one(self, buffer: bytes, starts: Ints, lengths: Ints, rows: Ints, table: "_Table") -> None:
        """Into the table, what is readable."""
        read: dict[int, tuple[list[int], list[Any]]] = {}
        for row, start, length in zip(rows.tolist(), starts[rows].tolist(), lengths[rows].tolist(), strict=True):
            try:
                record = self._decode(buffer[start : start + length])
            except UNREADABLE:
                continue
            places, records = read.setdefault(self._kind_of[type(record)], ([], []))
            places.append(row)
            records.append(record)
        for kind, (places, records) in read.items():
            at, count, metrics = np.array(places), len(records), len(self._specs[kind].metrics)
            devices = self.devices[self._specs[kind].type]
            table.put(
                kind,
                at,
                np.fromiter((devices[r.id] for r in records), np.int64, count),
                np.fromiter((self.sites[r.site] for r in records), np.int64, count),
                np.fromiter((r.time for r in records), np.float64, count),
                np.fromiter((r.seq for r in records), np.int64, count),
                np.fromiter((r.version for r in records), np.int64, count),
            )
            # A null is None, which numpy takes for NaN.
            flat = np.array(list(chain.from_iterable(msgspec.structs.astuple(r.values) for r in records)), np.float64)
            values = flat.reshape(count, metrics).T
            table.carried[:metrics, at] = values != NOT_CARRIED
            table.values[:metrics, at] = np.where(values != NOT_CARRIED, values, np.nan)


class _Table:
    """What is known of the records of a batch, of whatever type."""

    def __init__(self, records: int, metrics: int):
        self.kinds = np.full(records, -1, np.int64)
        """-1 where nothing is known."""
        self.devices, self.sites, self.times_us, self.seqs, self.versions = np.zeros((5, records), np.int64)
        self.values = np.full((metrics, records), np.nan)
        self.carried = np.zeros((metrics, records), np.bool_)

    def put(
        self, kind: int, rows: Ints, devices: Ints, sites: Ints, times_ms: Doubles, seqs: Any, versions: Any
    ) -> None:
        those = self._those(rows)
        self.kinds[those] = kind
        self.devices[those] = devices
        self.sites[those] = sites
        self.times_us[those] = np.rint(times_ms * 1000)
        self.seqs[those] = NO_SEQ if seqs is None else seqs
        self.versions[those] = versions

    def put_values(self, rows: Ints, places: Sequence[int], values: Sequence[Doubles]) -> None:
        """Of metrics that all these records carry."""
        those = self._those(rows)
        for place, of_metric in zip(places, values, strict=True):
            self.values[place, those] = of_metric
            self.carried[place, those] = True

    def _those(self, rows: Ints) -> Any:
        return slice(None) if len(rows) == len(self.kinds) else rows

    def good(self, append_ms: Ints) -> Bools:
        """Where read_record would have nothing to say against."""
        good = (self.kinds >= 0) & (self.devices >= 0) & (self.sites >= 0) & self.carried.any(axis=0)
        return good & (self.times_us >= EARLIEST_US) & (self.times_us <= append_ms * 1000 + MAX_FUTURE_US)

    def columns(self, spec: DeviceType, rows: Ints, devices: Names, sites: Names) -> Columns:
        those = self._those(rows)
        return Columns(
            spec.type, rows, self.devices[those], self.sites[those], self.times_us[those], self.seqs[those],
            self.versions[those],
            {metric: self.values[place][those] for place, metric in enumerate(spec.metrics)},
            {metric: self.carried[place][those] for place, metric in enumerate(spec.metrics)},
            devices, sites,
        )  # fmt: skip


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
