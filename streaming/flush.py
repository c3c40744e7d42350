"""What landing holds of one Kafka partition, and how it becomes data files and a manifest. No I/O: see landing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from fleet.channels import CONTROL, HEARTBEAT, MARK_HEADER, REJECTED, RETURNED, TRANSITIONS, is_reading, mark_of
from fleet.contract import LATEST_US, Intake, NotYetKnown, Reject
from fleet.dead_letter import DeadLetter, dead_letter_of_record, decode_dead_letter
from fleet.lake_layout import (
    JSON_COLUMNS,
    REJECTED_COLUMNS,
    TRANSITION_COLUMNS,
    ColumnType,
    Partition,
    columns,
    data_file_name,
    partition_of,
    rejected_partition_of,
    transitions_partition_of,
    units,
)
from fleet.manifest import DataFile, Manifest
from fleet.reading import Reading, to_datetime
from fleet.transition import Transition, decode_transition, row_of

Cells = dict[str, list[Any]]
"""Column name → its values."""
UNREADABLE = "unreadable"


class Landed(NamedTuple):
    """One data file in the making: where it goes, and its columns, with units where those of its version are known."""

    partition: Partition
    version: int
    path: str
    columns: dict[str, ColumnType]
    cells: Cells
    units: dict[str, str]


@dataclass
class Buffer:
    """The records of one Kafka partition from `first_offset` on that no manifest has yet.

    Offsets that the log does not give (retention was faster than landing) are counted as missing when the next record
    shows the gap; among transitions, which come by transactions, as unseen: there each commit leaves a mark.
    """

    topic: str
    kafka_partition: int
    first_offset: int
    intake: Intake
    next_offset: int = -1
    rows: int = 0
    unreadable: int = 0
    heartbeats: int = 0
    controls: int = 0
    missing: int = 0
    unseen: int = 0
    returned: list[tuple[int, int]] = field(default_factory=list)
    held_bytes: int = 0
    """Of the values held, for the bound on memory."""
    first_append_ms: int = -1
    last_append_ms: int = -1
    opened_at: float | None = None
    """When the first record came in, and when the first that makes a row did; seconds of the caller's clock."""
    rows_since: float | None = None
    _groups: dict[tuple[Partition, int], tuple[dict[str, ColumnType], Cells]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.next_offset = max(self.next_offset, self.first_offset)

    @property
    def offsets(self) -> int:
        return self.next_offset - self.first_offset

    @property
    def groups(self) -> int:
        """How many files a flush would write."""
        return len(self._groups)

    def skip_to(self, offset: int, now: float) -> None:
        """The log begins later than where we stand: what lies between is missing."""
        if offset > self.next_offset:
            self.missing += offset - self.next_offset
            self.next_offset = offset
            self._opened(now)

    def take(self, record: Any, now: float) -> bool:
        """A record as kafka-python gives it. Records before `next_offset` were taken before and are passed over.
        False, with nothing taken, where the catalog does not know the record's type or version yet."""
        offset, mark, value = record.offset, mark_of(record.headers), record.value or b""
        if offset < self.next_offset:
            return True
        result: Reading | Reject | None = None
        if is_reading(mark) and self.topic not in (REJECTED, TRANSITIONS):
            result = self.intake.read_record(self.topic, value, record.timestamp)
            if isinstance(result, NotYetKnown):
                return False
        if self.topic == TRANSITIONS:
            self.unseen += offset - self.next_offset
        else:
            self.missing += offset - self.next_offset
        self.next_offset = offset + 1
        timestamp = record.timestamp
        if self.first_append_ms < 0:
            self.first_append_ms = timestamp
        self.last_append_ms = timestamp
        self._opened(now)
        if mark == HEARTBEAT:
            self.heartbeats += 1
        elif mark == CONTROL:
            self.controls += 1
        else:
            self.held_bytes += len(value) + 100
            if self.rows_since is None:
                self.rows_since = now
            if self.topic == REJECTED:
                self._take_dead_letter(record, value)
            elif self.topic == TRANSITIONS:
                self._take_transition(record, value)
            else:
                self._take_reading(record, value, result or Reject(UNREADABLE, f"header {MARK_HEADER} is {mark!r:.80}"))
                if mark == RETURNED:
                    self._pass_over(offset)
        return True

    def _opened(self, now: float) -> None:
        if self.opened_at is None:
            self.opened_at = now

    def _pass_over(self, offset: int) -> None:
        first = offset
        if self.returned and self.returned[-1][1] == offset - 1:
            first, _ = self.returned.pop()
        self.returned.append((first, offset))

    def _take_reading(self, record: Any, value: bytes, result: Reading | Reject) -> None:
        if isinstance(result, Reject):
            self._reject(record, value, result)
            return
        spec = self.intake.catalog.types[result.device_type]
        partition = partition_of(spec, to_datetime(result.event_time_us))
        cells = self._cells(partition, result.version, lambda: columns(spec))
        _add_reading(cells, result, spec.metrics)
        self._add_source(cells, record)
        self.rows += 1

    def _take_dead_letter(self, record: Any, value: bytes) -> None:
        try:
            letter = decode_dead_letter(value)
            payload = letter.payload
            _check_numbers(letter)
        except Exception as error:  # not a dead letter, or its payload no base64
            self._reject(record, value, Reject(UNREADABLE, f"no dead letter: {error}"[:200]))
            return
        self._add_letter(record, letter, payload)
        self.rows += 1

    def _take_transition(self, record: Any, value: bytes) -> None:
        try:
            transition = decode_transition(value)
            row = row_of(transition) | {name: _json(getattr(transition, name)) for name in JSON_COLUMNS}
            _check_numbers_of(transition)
        except Exception as error:  # no transition, or of a time or number that no column takes
            self._reject(record, value, Reject(UNREADABLE, f"no transition: {error}"[:200]))
            return
        partition = transitions_partition_of(transition.system, to_datetime(transition.event_time_us))
        cells = self._cells(partition, 1, lambda: TRANSITION_COLUMNS)
        for name in TRANSITION_COLUMNS.keys() & row.keys():
            cells[name].append(row[name])
        self._add_source(cells, record)
        self.rows += 1

    def _reject(self, record: Any, value: bytes, reject: Reject) -> None:
        letter = dead_letter_of_record(
            reject, self.topic, self.kafka_partition, record.offset, value, record.timestamp
        )  # fmt: skip
        self._add_letter(record, letter, value)
        self.unreadable += 1

    def _add_letter(self, record: Any, letter: DeadLetter, payload: bytes) -> None:
        partition = rejected_partition_of(to_datetime(record.timestamp * 1000))
        cells = self._cells(partition, 1, lambda: REJECTED_COLUMNS)
        for name, value in {
            "reason": letter.reason,
            "detail": letter.detail,
            "system": letter.system,
            "device_type": letter.device_type,
            "version": letter.version,
            "mqtt_topic": letter.mqtt_topic,
            "source_topic": letter.topic,
            "source_partition": letter.partition,
            "source_offset": letter.offset,
            "received_at": letter.received_at,
            "payload": payload,
        }.items():
            cells[name].append(value)
        self._add_source(cells, record)

    def _add_source(self, cells: Cells, record: Any) -> None:
        cells["kafka_topic"].append(self.topic)
        cells["kafka_partition"].append(self.kafka_partition)
        cells["kafka_offset"].append(record.offset)
        cells["kafka_timestamp"].append(record.timestamp)

    def _cells(self, partition: Partition, version: int, names: Callable[[], dict[str, ColumnType]]) -> Cells:
        found = self._groups.get((partition, version))
        if found is None:
            types = names()
            found = self._groups[partition, version] = (types, {name: [] for name in types})
        return found[1]

    def files(self) -> Iterator[Landed]:
        """Named after the flush's first and last offset, whatever part of it they hold."""
        name = data_file_name(self.topic, self.kafka_partition, self.first_offset, self.next_offset - 1)
        for (partition, version), (types, cells) in sorted(self._groups.items(), key=lambda item: item[0]):
            spec = self.intake.catalog.types.get(partition.type)
            known = units(spec) if spec and spec.version == version else {}
            yield Landed(partition, version, f"{partition.folder(version)}/{name}", types, cells, known)

    def manifest(self, files: list[DataFile]) -> Manifest:
        return Manifest(
            self.topic, self.kafka_partition, self.first_offset, self.next_offset - 1, self.rows, self.unreadable,
            self.heartbeats, self.controls, self.missing, self.first_append_ms, self.last_append_ms, files, self.unseen,
            self.returned,
        )  # fmt: skip


def _add_reading(cells: Cells, reading: Reading, metrics: Any) -> None:
    cells["device_id"].append(reading.device_id)
    cells["site"].append(reading.site)
    cells["event_time"].append(reading.event_time_us)
    cells["seq"].append(reading.seq)
    cells["carried"].append(list(reading.values))
    get = reading.values.get
    for metric in metrics:
        cells[metric].append(get(metric))


def _check_numbers(letter: DeadLetter) -> None:
    """Raises ValueError where one does not fit its column: one such record must not stop a whole flush."""
    _check_bits((letter.version, 31), (letter.partition, 31), (letter.offset, 63))
    if not 0 <= letter.received_at < LATEST_US // 1000:
        raise ValueError(f"received_at {letter.received_at} is no epoch in milliseconds")


def _check_numbers_of(transition: Transition) -> None:
    """As _check_numbers."""
    t = transition
    _check_bits((t.number, 31), (t.spec_version, 31), (t.partition, 31), (t.offset, 63))


def _check_bits(*numbers: tuple[int | None, int]) -> None:
    for number, bits in numbers:
        if number is not None and not 0 <= number < 2**bits:
            raise ValueError(f"{number} does not fit {bits + 1} bits")


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
