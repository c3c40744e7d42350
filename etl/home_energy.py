"""What each home has used today and this month, and will have by their ends: readings of the type `home_energy`, which
ordinary rules look at. Written to Kafka as devices' readings are; a home is a device of its site's name."""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from kafka.errors import KafkaError

from connections import kafka
from connections.warehouse import Reader
from etl.consumption import BASELINE, Span, measured_types, unattributed, used
from etl.run import Job
from fleet.catalog import Catalog
from fleet.consumption import Used, counting_types, totals
from fleet.energy import IMPLAUSIBLE
from fleet.forecast import Forecast, day_of, forecast, month_of
from fleet.reading import Reading, encode_reading, to_epoch_us

TYPE = "home_energy"
CONFIRM_SECONDS = 20
SILENT = timedelta(days=1)
log = logging.getLogger("weir.energy")


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


def home_energies(
    reader: Reader, catalog: Catalog, system: str | None, now: datetime, site: str | None = None
) -> list[HomeEnergy]:
    """Of every site with a meter. Raises ConfigurationError for a system that is none, Unavailable."""
    span = Span(now - BASELINE, now, tuple(spec.type for spec in measured_types(catalog, system)), site)
    hours, gaps = used(reader, span, by_type=True), unattributed(reader, span)
    last = reader.rows(
        "SELECT site, device_type, max(last_at) AS at FROM energy_ends"
        " WHERE device_type = ANY(:types) AND first_at >= :start GROUP BY 1, 2",
        types=list(span.types), start=span.start,
    )  # fmt: skip
    known_to = {(row["site"], row["device_type"]): row["at"] for row in last}
    by_type: dict[tuple[str, str], list[Used]] = {}
    for one in hours:
        by_type.setdefault((one.appliance.site, one.appliance.type), []).append(one)
    found = []
    for home in sorted(counting_types(totals(hours)).items()):
        unplaced = [
            (row["starts_at"], row["watt_hours"])
            for row in gaps
            if (row["site"], row["device_type"]) == home and row["reason"] != IMPLAUSIBLE
        ]
        zone, at = by_type[home][-1].local.tzinfo, known_to.get(home)
        if at is not None and isinstance(zone, ZoneInfo):
            day, month = (_ahead(by_type[home], unplaced, *of(now, zone), at, zone) for of in (day_of, month_of))
            found.append(HomeEnergy(home[0], at, day, month))
    return found


def _ahead(
    hours: list[Used], gaps: list[tuple[datetime, float]], begin: datetime, end: datetime, known_to: datetime,
    zone: ZoneInfo,
) -> Forecast:  # fmt: skip
    """What lies in no hour counts where it began in the span. The hour that is running is no past."""
    used_wh = sum(one.watt_hours for one in hours if one.local >= begin)
    used_wh += sum(watt_hours for starts_at, watt_hours in gaps if starts_at >= begin)
    past = [(one.local, one.watt_hours) for one in hours if one.local <= known_to - timedelta(hours=1)]
    return forecast(used_wh / 1000, max(begin, known_to), end, zone, past)


def publish(job: Job, now: datetime) -> list[HomeEnergy]:
    """To Kafka, where the rules hear of it; nothing of a home that was not heard of for a day, and nothing at all
    without a spec of the type. Raises Unavailable, Refused."""
    spec = job.catalog.types.get(TYPE)
    if spec is None:
        return []
    all_ = home_energies(job.warehouse, job.catalog, spec.system, now)
    found = [home for home in all_ if now - home.known_to < SILENT]
    if not found:
        return []
    producer = kafka.producer(job.settings, "weir-home-energy")
    try:
        sent = []
        for home in found:
            reading = Reading(home.site, TYPE, home.site, to_epoch_us(now), home.values, None, spec.version)
            sent.append(producer.send(spec.topic, encode_reading(reading), home.site.encode()))
            log.info("%s: day %s; month %s", home.site, home.day.explanation, home.month.explanation)
        for one in sent:
            one.get(timeout=CONFIRM_SECONDS)
    except KafkaError as error:
        raise kafka.unavailable(job.settings, error) from error
    finally:
        kafka.close(producer)
    return found
