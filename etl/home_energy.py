"""What each home has used today and this month, and will have by their ends: readings of the type `home_energy`, which
ordinary rules look at. Written to Kafka as devices' readings are; a home is a device of its site's name."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from kafka.errors import KafkaError

from connections import kafka
from connections.warehouse import Reader
from etl.consumption import BASELINE, Span, measured_types, unattributed, used
from etl.run import Job
from fleet.catalog import Catalog
from fleet.consumption import Used, counting_types, totals
from fleet.energy import IMPLAUSIBLE
from fleet.forecast import Forecast, Usual, day_of, forecast, history, month_of
from fleet.reading import Reading, encode_reading, to_epoch_us

TYPE = "home_energy"
CONFIRM_SECONDS = 20
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


def home_energies(reader: Reader, catalog: Catalog, system: str | None, now: datetime, site: str | None = None) -> (
    list[HomeEnergy]
):  # fmt: skip
    """Of every site with a meter. Raises ConfigurationError for a system that is none, Unavailable."""
    types = tuple(spec.type for spec in measured_types(catalog, system))
    # A day more: the month of the westernmost zone begins no sooner.
    start = min(now - BASELINE, now.replace(day=1) - timedelta(days=1))
    span = Span(start, now, types, site)
    hours, gaps = used(reader, span), unattributed(reader, span)
    last = reader.rows(
        "SELECT site, device_type, max(last_at) AS at FROM energy_ends WHERE device_type = ANY(:types) GROUP BY 1, 2",
        types=list(types),
    )
    known_to = {(row["site"], row["device_type"]): row["at"] for row in last}
    zones = {one.appliance.site: one.local.tzinfo for one in hours}
    found = []
    for home, type_name in sorted(counting_types(totals(hours)).items()):
        at = known_to.get((home, type_name))
        zone = zones[home]
        if at is None or not isinstance(zone, ZoneInfo):
            continue
        of_home = [one for one in hours if one.appliance.site == home and one.appliance.type == type_name]
        unplaced = [
            (row["starts_at"], row["watt_hours"])
            for row in gaps
            if row["site"] == home and row["device_type"] == type_name and row["reason"] != IMPLAUSIBLE
        ]
        spans = [_ahead(of_home, unplaced, *of(now, zone), at, zone) for of in (day_of, month_of)]
        found.append(HomeEnergy(home, at, *spans))
    return found


def _ahead(
    hours: list[Used], gaps: list[tuple[datetime, float]], begin: datetime, end: datetime, known_to: datetime,
    zone: ZoneInfo,
) -> Forecast:  # fmt: skip
    """What lies in no hour counts where it began in the span. The hour that is running is no past."""
    used_wh = sum(one.watt_hours for one in hours if one.local >= begin)
    used_wh += sum(watt_hours for starts_at, watt_hours in gaps if starts_at >= begin)
    whole = known_to - timedelta(hours=1)
    return forecast(
        used_wh / 1000, max(begin, known_to), end, zone,
        Usual(history(_by_hour(one for one in hours if one.local <= whole))),
    )  # fmt: skip


def _by_hour(hours: Iterator[Used]) -> list[tuple[datetime, float]]:
    """All devices together."""
    found: dict[datetime, tuple[datetime, float]] = {}
    for one in hours:
        at = one.local.astimezone(UTC)
        found[at] = one.local, found.get(at, (one.local, 0.0))[1] + one.watt_hours
    return list(found.values())


def publish(job: Job, now: datetime) -> list[HomeEnergy]:
    """To Kafka, where the rules hear of it. Nothing without a spec of the type. Raises Unavailable, Refused."""
    spec = job.catalog.types.get(TYPE)
    found = home_energies(job.warehouse, job.catalog, spec.system, now) if spec else []
    if spec is None or not found:
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
