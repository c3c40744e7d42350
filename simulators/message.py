"""What travels through a run: a reading on its way to becoming a message, and what was done to it."""

from dataclasses import dataclass
from typing import Any

from fleet.reading import Reading


@dataclass(frozen=True, slots=True)
class Fault:
    """What a fault did to one message. `original` and `sent` are values, epoch ms or payloads, by kind."""

    kind: str
    original: Any = None
    sent: Any = None
    metric: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """`number` counts the messages as they were meant, from 0. A message carries at most one fault, so that what the
    books must show for it is certain."""

    number: int
    due_us: int
    """The event time as it was meant, which paces the run; `reading.event_time_us` may be skewed."""
    reading: Reading
    fault: Fault | None = None
    raw: bytes | None = None
    """The payload, where it is not what the device would say of `reading`."""
    dropped: bool = False
    """Never sent; it is here so that the truth knows of it."""
