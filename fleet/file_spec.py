"""How rows of files become readings, as a type's spec says it under `files:`; fleet.file_row reads by it."""

from datetime import timedelta

from pydantic import Field, field_validator

from fleet.duration import Duration
from fleet.local_time import ZoneName
from fleet.rule import Number, Strict

FILE_WORDS = ("device_id", "event_time", "seq", "site")


class Scale(Strict):
    """value × factor + offset."""

    factor: Number = 1.0
    offset: Number = 0.0


class Files(Strict):
    """How rows of files in the inbox become readings. Without it columns are called as metrics, `device_id`,
    `event_time` (or `timestamp`), `seq` and `site`, or as in the device's own messages."""

    columns: dict[str, str | None] = {}
    """The file's own name → a metric, device_id, event_time, seq or site; null: not looked at."""
    scale: dict[str, Scale] = {}
    """By metric, where the file has another unit."""
    time_format: str | None = None
    """`s` or `ms` since 1970, or as strptime takes it, such as `%d.%m.%Y %H:%M:%S`. Without it numbers are as in the
    device's own messages, and texts RFC 3339."""
    time_zone: ZoneName = "UTC"
    """Of times that say none; of an hour that comes twice the first is meant."""
    site: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]*$", max_length=64)
    """Of devices that are not registered, where the row has none."""
    alerts_within: Duration = timedelta(hours=1)
    """Rules pass over rows that are older than this when they are taken."""

    @field_validator("time_format")
    @classmethod
    def _is_format(cls, text: str | None) -> str | None:
        if text is not None and text not in ("s", "ms") and "%" not in text:
            raise ValueError("a time format is s, ms, or as strptime takes it, such as %d.%m.%Y %H:%M:%S")
        return text
