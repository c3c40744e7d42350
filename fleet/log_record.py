"""A record of a topic of readings, of any kind, and what it is to the rules."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from fleet.channels import CONTROL, HEARTBEAT, RETURNED
from fleet.contract import Reject, is_future, read_canonical
from fleet.control import decode_control
from fleet.engine import Engine
from fleet.errors import ConfigurationError, DataError, SpecError
from fleet.reading import digest_of
from fleet.transition import Transition


class LogRecord(NamedTuple):
    offset: int
    append_ms: int
    mark: bytes | None
    value: bytes | None


class NoReading(DataError):
    """Rules pass over it: it cannot be read, is of the future, or has a mark that nobody knows."""


class NoControl(DataError):
    """Whoever wrote the control record should have checked it. Everyone who reads this log passes over it alike."""


def take_record(engine: Engine, record: LogRecord, detected_at_us: int) -> Sequence[Transition]:
    """Through the scalar form. Raises NoReading, NoControl, with nothing changed."""
    offset, append_ms, mark, value = record
    where = {"offset": offset, "append_us": append_ms * 1000, "detected_at_us": detected_at_us}
    if mark == HEARTBEAT:
        return engine.heartbeat(**where)
    if mark == RETURNED:
        return ()
    if mark == CONTROL:
        try:
            return engine.control(decode_control(value or b""), **where)
        except (msgspec.MsgspecError, SpecError, ConfigurationError) as error:
            raise NoControl(f"offset {offset}: control record passed over: {error}") from error
    reading = read_canonical(value or b"")
    if mark is not None or isinstance(reading, Reject) or is_future(reading, append_ms):
        raise NoReading(f"offset {offset}: no reading")
    digest = digest_of(value or b"") if reading.seq is None else None
    return engine.reading(reading, digest=digest, **where)
