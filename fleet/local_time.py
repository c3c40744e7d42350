"""The local time of a site: hour, weekday, day and month of a moment, by zoneinfo."""

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator

from fleet.errors import ConfigurationError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class LocalTime:
    """A time zone by its IANA name. The minute last asked for is kept: most moments lie in the same one, and since 1972
    every zone's offset is, and changes at, a whole minute."""

    __slots__ = ("_local", "_minute", "name", "zone")

    def __init__(self, name: str = "UTC"):
        self.name = name
        self.zone: tzinfo
        try:
            self.zone = UTC if name == "UTC" else ZoneInfo(name)
        except (KeyError, ValueError, OSError) as error:  # ZoneInfoNotFoundError is a KeyError
            raise ConfigurationError(f"no time zone {name!r} (an IANA name, such as Europe/Berlin)") from error
        self._minute = 0
        self._local: datetime | None = None

    def at(self, time_us: int) -> datetime | None:
        """The local time to the minute, or None beyond all dates."""
        minute = time_us // 60_000_000
        if minute != self._minute or self._local is None:
            try:
                self._local = (EPOCH + timedelta(microseconds=time_us)).astimezone(self.zone)
            except (OverflowError, ValueError):
                self._local = None
            self._minute = minute
        return self._local

    def hour(self, time_us: int) -> float | None:
        local = self.at(time_us)
        return None if local is None else float(local.hour)

    def weekday(self, time_us: int) -> float | None:
        local = self.at(time_us)
        return None if local is None else float(local.weekday())

    def day(self, time_us: int) -> int | None:
        """Days by the local calendar; equal for moments of the same local day."""
        local = self.at(time_us)
        return None if local is None else local.toordinal()

    def month(self, time_us: int) -> int | None:
        local = self.at(time_us)
        return None if local is None else local.year * 12 + local.month


def _known(name: str) -> str:
    try:
        LocalTime(name)
    except ConfigurationError as error:
        raise ValueError(str(error)) from None
    return name


ZoneName = Annotated[str, AfterValidator(_known)]
"""An IANA name in a file that people write."""
