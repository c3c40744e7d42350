"""Energy as the warehouse has it, for fleet.consumption and fleet.tariff: hours, what no hour has, standby power."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from connections.warehouse import Reader
from fleet.catalog import Catalog
from fleet.consumption import LEAST_NIGHT_MINUTES, NIGHT_HOURS, STANDBY_QUANTILE, Appliance, Hog, Used, hogs
from fleet.home_energy import BASELINE
from fleet.meter import kind_of, meter_of, power_of
from fleet.registry import params_of
from fleet.spec import DeviceType
from fleet.tariff import Tariffs

OF = " device_type = ANY(:types) AND (CAST(:site AS text) IS NULL OR site = :site)"


class Span(NamedTuple):
    """[start, end), aware, of these types; `site` None: of every site."""

    start: datetime
    end: datetime
    types: tuple[str, ...]
    site: str | None = None


def measured_types(catalog: Catalog, system: str | None = None) -> list[DeviceType]:
    """Those with a counter of energy. Raises ConfigurationError for a system that is none."""
    return [spec for spec in (catalog.system(system).types if system else catalog) if meter_of(spec)]


def used(reader: Reader, span: Span, by_type: bool = False) -> list[Used]:
    """Whole hours, by their beginning; `by_type`: the devices of a type at a site together, as one without a name."""
    device = "''" if by_type else "device_id"
    rows = reader.rows(
        f"SELECT site, device_type, {device} AS device_id, hour, time_zone, sum(watt_hours) AS watt_hours"  # noqa: S608
        f" FROM energy_hours WHERE hour >= :start AND hour < :end AND {OF}"
        " GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4",
        start=span.start, end=span.end, types=list(span.types), site=span.site,
    )  # fmt: skip
    return [
        Used(
            Appliance(row["site"], row["device_type"], row["device_id"]),
            row["hour"].astimezone(ZoneInfo(row["time_zone"])), row["watt_hours"],
        )
        for row in rows
    ]  # fmt: skip


def shown(reader: Reader, span: Span, by: str) -> list[dict[str, Any]]:
    """A row for each appliance, currency and hour, day (local) or all: site, device_type, device_id, at, hours,
    watt_hours, cost, currency."""
    at = {"hour": "hour", "day": "(hour AT TIME ZONE time_zone)::date", "all": "NULL::date"}[by]
    return reader.rows(
        f"SELECT site, device_type, device_id, {at} AS at, count(*) AS hours,"  # noqa: S608
        " sum(watt_hours) AS watt_hours, sum(cost) AS cost, currency FROM energy_hours"
        f" WHERE hour >= :start AND hour < :end AND {OF}"
        " GROUP BY 1, 2, 3, 4, currency ORDER BY 4, 1, 2, 3, currency",
        start=span.start, end=span.end, types=list(span.types), site=span.site,
    )  # fmt: skip


def unattributed(reader: Reader, span: Span) -> list[dict[str, Any]]:
    """Rows that end in the span."""
    return reader.rows(
        "SELECT site, device_type, device_id, starts_at, ends_at, watt_hours, reason, most_watt_hours"  # noqa: S608
        f" FROM energy_unattributed WHERE ends_at >= :start AND ends_at < :end AND {OF}"
        " ORDER BY ends_at, site, device_type, device_id",
        start=span.start, end=span.end, types=list(span.types), site=span.site,
    )  # fmt: skip


STANDBY = """
SELECT r.site, r.device_id, percentile_cont(:quantile) WITHIN GROUP (ORDER BY r.mean) AS watts
  FROM rollups r LEFT JOIN sites s ON s.system = r.system AND s.site = r.site
 WHERE r.type = :type AND r.metric = :metric AND r.grain = '1m' AND r.bucket >= :start AND r.bucket < :end
   AND (CAST(:site AS text) IS NULL OR r.site = :site)
   AND extract(hour FROM r.bucket AT TIME ZONE coalesce(s.time_zone, 'UTC')) < :hours
 GROUP BY r.site, r.device_id HAVING count(*) >= :least"""


def standby(reader: Reader, span: Span, types: Iterable[DeviceType]) -> dict[Appliance, float]:
    """Of each minute its mean power; watts."""
    found: dict[Appliance, float] = {}
    for spec in types:
        if power := power_of(spec):
            rows = reader.rows(
                STANDBY, type=spec.type, metric=power, start=span.start, end=span.end, site=span.site,
                hours=NIGHT_HOURS, least=LEAST_NIGHT_MINUTES, quantile=STANDBY_QUANTILE,
            )  # fmt: skip
            found |= {Appliance(row["site"], spec.type, row["device_id"]): row["watts"] for row in rows}
    return found


def kinds(reader: Reader, span: Span, types: Iterable[DeviceType]) -> dict[Appliance, str]:
    """By what the registry knows now."""
    defaults = {spec.type: params_of(spec) for spec in types}
    rows = reader.rows(
        "SELECT site, type, device_id, params FROM devices"
        " WHERE type = ANY(:types) AND (CAST(:site AS text) IS NULL OR site = :site)",
        types=list(defaults), site=span.site,
    )  # fmt: skip
    found = {Appliance(r["site"], r["type"], r["device_id"]): kind_of(defaults[r["type"]], r["params"]) for r in rows}
    return {appliance: kind for appliance, kind in found.items() if kind is not None}


def hogs_of(reader: Reader, span: Span, types: Sequence[DeviceType]) -> list[Hog]:
    before = span._replace(start=span.start - BASELINE, end=span.start)
    return hogs(used(reader, span), used(reader, before), standby(reader, span, types), kinds(reader, span, types))


class Bill(NamedTuple):
    """Of a site, tariff and band; `band` empty: the standing charge of so many days."""

    site: str
    tariff: str
    band: str
    currency: str
    watt_hours: float
    days: int
    cost: float


def bills(hours: Iterable[Used], tariffs: Tariffs) -> list[Bill]:
    """By today's tariffs, of hours that count for their site once. Hours without a tariff cost nothing, and are in the
    last bill of their site, whose tariff and currency are empty."""
    sums: dict[tuple[str, str, str, str], tuple[float, float]] = {}
    days: set[tuple[str, date]] = set()
    for one in hours:
        site, price = one.appliance.site, tariffs.price(one.appliance.site, one.local)
        key = (site, price.tariff, price.band, price.currency) if price else (site, "", "", "")
        watt_hours, cost = sums.get(key, (0.0, 0.0))
        sums[key] = watt_hours + one.watt_hours, cost + (price.cost(one.watt_hours) if price else 0.0)
        days.add((site, one.local.date()))
    found = [
        Bill(site, tariff, band, currency, watt_hours, 0, cost)
        for (site, tariff, band, currency), (watt_hours, cost) in sums.items()
    ]
    found += [
        Bill(site, tariff, "", currency, 0.0, number, cost)
        for (site, tariff, currency), (number, cost) in tariffs.standing_charges(days).items()
    ]
    return sorted(found, key=lambda bill: (bill.site, not bill.tariff, bill.tariff, not bill.band, -bill.watt_hours))
