"""Maintenance: recurring windows in which alerts are recorded and not told."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from croniter import CroniterError, croniter
from pydantic import Field, field_validator

from fleet.duration import Duration
from fleet.local_time import ZoneName
from fleet.rule import Strict
from fleet.selection import Selection


class Maintenance(Strict):
    """`{cron: "0 2 * * sun", duration: 2h, time_zone: Europe/Berlin, match: {site: roof}}`: each Sunday from two to
    four. What still fires at the end is told then."""

    name: str = ""
    cron: str
    """Minute, hour, day of month, month, day of week: when a window begins."""
    duration: Duration = Field(gt=timedelta(0))
    time_zone: ZoneName = "UTC"
    match: Selection = Selection()

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, value: str) -> str:
        if len(value.split()) != 5:
            raise ValueError("five fields: minute, hour, day of month, month, day of week, such as `0 2 * * sun`")
        try:
            croniter(value, datetime(2024, 1, 1)).get_next()
        except (CroniterError, ValueError) as error:
            raise ValueError(f"not a time that comes: {error}") from None
        return value

    def ends(self, now: datetime) -> datetime | None:
        """When the window that is open at `now` ends; None where none is. `now` is aware."""
        local = now.astimezone(ZoneInfo(self.time_zone))
        began = croniter(self.cron, local + timedelta(seconds=1)).get_prev(datetime)
        end: datetime = began.astimezone(now.tzinfo) + self.duration
        return end if now < end else None

    def begins(self, now: datetime) -> datetime:
        """The next time after `now`, in its zone."""
        local = now.astimezone(ZoneInfo(self.time_zone))
        begin: datetime = croniter(self.cron, local).get_next(datetime)
        return begin.astimezone(now.tzinfo)
