"""What a reader of recordings gives: rows with readings, or why a row says nothing."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec

from fleet.reading import Reading


class Row(NamedTuple):
    """A row of the file: its line (from 1), its time by the recording's clock, and the readings that it holds."""

    line: int
    time_us: int
    readings: list[Reading]

    def shifted(self, by_us: int) -> "Row":
        """The same, by another clock."""
        readings = [
            msgspec.structs.replace(reading, event_time_us=reading.event_time_us + by_us) for reading in self.readings
        ]
        return Row(self.line, self.time_us + by_us, readings)


class Dirty(NamedTuple):
    """A row that says nothing usable, and why: a reason to count by, and what was found."""

    line: int
    reason: str
    detail: str


class Format(NamedTuple):
    """`read` takes the file's text, the site and the file's name. It raises DataError where the file is not of this
    format at all, with the line. Cadence and site of a replay are those of the first of its types."""

    types: tuple[str, ...]
    read: Callable[[Iterable[str], str, str], Iterator[Row | Dirty]]
    about: str
