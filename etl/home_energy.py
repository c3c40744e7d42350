"""What each home has used today and this month, and will have by their ends: readings of the type `home_energy`, which
ordinary rules look at. Written to Kafka as devices' readings are; a home is a device of its site's name."""

import logging
from datetime import datetime, timedelta

from kafka.errors import KafkaError

from connections import kafka
from connections.warehouse import Reader
from etl.consumption import Span, measured_types, unattributed, used
from etl.run import Job
from fleet.catalog import Catalog
from fleet.energy import IMPLAUSIBLE
from fleet.home_energy import BASELINE, TYPE, Home, HomeEnergy, Loaded
from fleet.home_energy import home_energies as of_homes
from fleet.reading import Reading, encode_reading, to_epoch_us

CONFIRM_SECONDS = 20
SILENT = timedelta(days=1)
log = logging.getLogger("weir.energy")


def home_energies(
    reader: Reader, catalog: Catalog, system: str | None, now: datetime, site: str | None = None
) -> list[HomeEnergy]:
    """Of every site with a meter. Raises ConfigurationError for a system that is none, Unavailable."""
    span = Span(now - BASELINE, now, tuple(spec.type for spec in measured_types(catalog, system)), site)
    gaps: dict[Home, list[tuple[datetime, float]]] = {}
    for row in unattributed(reader, span):
        if row["reason"] != IMPLAUSIBLE:
            gaps.setdefault((row["site"], row["device_type"]), []).append((row["starts_at"], row["watt_hours"]))
    last = reader.rows(
        "SELECT site, device_type, max(last_at) AS at FROM energy_ends"
        " WHERE device_type = ANY(:types) AND first_at >= :start GROUP BY 1, 2",
        types=list(span.types), start=span.start,
    )  # fmt: skip
    known_to = {(row["site"], row["device_type"]): row["at"] for row in last}
    return of_homes(Loaded(used(reader, span, by_type=True), gaps, known_to), now)


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
