"""From and to, as people write them: `2026-11-22`, `2026-11-22T03:00`, `-1h` or `now`. Times without a zone are UTC."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from fleet.duration import parse_duration
from fleet.errors import ConfigurationError
from fleet.lake_layout import Partition


class Window(NamedTuple):
    """Partitions that overlap [start, end) are in it; None is open."""

    start: datetime | None
    end: datetime | None

    def has(self, partition: Partition) -> bool:
        return (self.end is None or partition.start < self.end) and (self.start is None or partition.end > self.start)


OPEN = Window(None, None)


def parse_window(start: str | None, end: str | None, now: datetime) -> Window:
    """Raises ConfigurationError where a text is no time, or the window is empty."""
    window = Window(moment(start, "from", now), moment(end, "to", now))
    if window.start and window.end and window.start >= window.end:
        raise ConfigurationError(f"from {window.start.isoformat()} must be before to {window.end.isoformat()}")
    return window


def moment(text: str | None, name: str, now: datetime) -> datetime | None:
    if not text:
        return None
    if text == "now":
        return now
    try:
        if text.startswith("-"):
            return now - parse_duration(text[1:])
        given = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"{name}: {text!r} is no time; write 2026-11-22, 2026-11-22T03:00, -1h (ago) or now"
        ) from None
    return given.replace(tzinfo=UTC) if given.tzinfo is None else given.astimezone(UTC)


def micros(moment: datetime) -> int:
    """Since the epoch; UTC where it has no zone."""
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
