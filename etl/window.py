"""From and to, as people write them: `2026-11-22`, `2026-11-22T03:00`, `-1h` or `now`. Times without a zone are UTC."""

from datetime import UTC, datetime
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


def parse_window(start: str | None, end: str | None, now: datetime) -> Window:
    """Raises ConfigurationError where a text is no time, or the window is empty."""
    window = Window(_moment(start, "from", now), _moment(end, "to", now))
    if window.start and window.end and window.start >= window.end:
        raise ConfigurationError(f"from {window.start.isoformat()} must be before to {window.end.isoformat()}")
    return window


def _moment(text: str | None, name: str, now: datetime) -> datetime | None:
    if not text:
        return None
    if text == "now":
        return now
    try:
        if text.startswith("-"):
            return now - parse_duration(text[1:])
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"{name}: {text!r} is no time; write 2026-11-22, 2026-11-22T03:00, -1h (ago) or now"
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
