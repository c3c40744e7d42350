"""What a home has used today and this month, and will have by their ends, from what its meters counted. Pure: the
warehouse gives it its hours (etl.home_energy), and simulated homes theirs (simulators/home_batch.py)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from fleet.consumption import Used, counting_types, totals
from fleet.forecast import HOUR, Forecast, day_of, forecast, month_of

TYPE = "home_energy"
BASELINE = timedelta(weeks=8)
"""Before a span: by what was used in it, usual is meant."""
Home = tuple[str, str]
"""(site, type of its meters)"""


@dataclass(frozen=True)
class HomeEnergy:
    """Of a site; `known_to` is the time of the last value that was loaded."""

    site: str
    known_to: datetime
    day: Forecast
    month: Forecast

    @property
    def values(self) -> dict[str, float | None]:
        """kWh; what cannot be forecast is not known."""
        found = {
            "today": self.day.used, "month": self.month.used,
            "forecast_day": self.day.total, "forecast_month": self.month.total,
        }  # fmt: skip
        return {name: None if value is None else round(value, 3) for name, value in found.items()}


class Loaded(NamedTuple):
    """What is known of homes: hours of each type at a site, as one device; (since when, Wh) of what lies in no hour,
    but for what cannot be; and the time of the last value."""

    hours: Sequence[Used]
    gaps: Mapping[Home, Sequence[tuple[datetime, float]]]
    known_to: Mapping[Home, datetime]


def home_energies(of: Loaded, now: datetime) -> list[HomeEnergy]:
    """Of every site with a meter: by the type that counts for all of it."""
    by_type: dict[Home, list[Used]] = {}
    for one in of.hours:
        by_type.setdefault((one.appliance.site, one.appliance.type), []).append(one)
    found = []
    for home in sorted(counting_types(totals(of.hours)).items()):
        zone, at = by_type[home][-1].local.tzinfo, of.known_to.get(home)
        if at is not None and isinstance(zone, ZoneInfo):
            gaps = of.gaps.get(home, ())
            day, month = (_ahead(by_type[home], gaps, *span(now, zone), at, zone) for span in (day_of, month_of))
            found.append(HomeEnergy(home[0], at, day, month))
    return found


def _ahead(
    hours: Sequence[Used], gaps: Sequence[tuple[datetime, float]], begin: datetime, end: datetime, known_to: datetime,
    zone: ZoneInfo,
) -> Forecast:  # fmt: skip
    """What lies in no hour counts where it began in the span. The hour that is running is no past."""
    used_wh = sum(one.watt_hours for one in hours if one.local >= begin)
    used_wh += sum(watt_hours for starts_at, watt_hours in gaps if starts_at >= begin)
    past = [(one.local, one.watt_hours) for one in hours if one.local <= known_to - HOUR]
    return forecast(used_wh / 1000, max(begin, known_to), end, zone, past)
