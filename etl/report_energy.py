"""A report's energy: what appliances and meters counted, and what no hour has."""

from collections import defaultdict
from datetime import datetime, timedelta

from connections.warehouse import Reader
from fleet.catalog import System
from fleet.report import Device, Energy, Hog, Series

DRAWN = 6
"""Appliances by name in a plot; all others are one."""
USED = """\
SELECT device_type AS type, device_id, site, currency,
       coalesce(sum(watt_hours) FILTER (WHERE hour >= :start), 0) AS watt_hours,
       sum(cost) FILTER (WHERE hour >= :start) AS cost,
       sum(watt_hours) FILTER (WHERE hour < :start) AS before
  FROM energy_hours WHERE device_type = ANY(:types) AND hour >= :before AND hour < :end
 GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"""
BY_STEP = """\
SELECT time_bucket(:step, hour) AS at, device_id, site, sum(watt_hours) AS watt_hours
  FROM energy_hours WHERE device_type = ANY(:types) AND hour >= :start AND hour < :end
 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
UNATTRIBUTED = """\
SELECT reason, count(*) AS times, sum(watt_hours) AS watt_hours FROM energy_unattributed
 WHERE device_type = ANY(:types) AND ends_at > :start AND starts_at < :end GROUP BY 1 ORDER BY 1"""


def counting(system: System) -> dict[str, str]:
    """Types that count energy → unit of the counter: appliances count watt hours, meters kilowatt hours."""
    units = ("watt_hour", "kilowatt_hour")
    return {
        spec.type: metric.unit
        for spec in system.types
        for metric in spec.metrics.values()
        if metric.kind == "counter" and metric.unit in units
    }


def energy_of(reader: Reader, system: System, start: datetime, end: datetime, step: timedelta) -> Energy | None:
    units = counting(system)
    span = {"types": list(units), "start": start, "end": end}
    rows = reader.rows(USED, before=start - (end - start), **span) if units else []
    if not rows:
        return None
    meters = {name for name, unit in units.items() if unit == "kilowatt_hour"}
    appliances = set(units) - meters or meters
    hogs: dict[Device, Hog] = {}
    costs: dict[str, float] = defaultdict(float)
    of_meters = [row["watt_hours"] for row in rows if row["type"] in meters]
    for row in rows:
        device = Device(row["type"], row["device_id"], row["site"])
        if row["type"] in appliances:
            hog = hogs.get(device, Hog(device, 0.0, None, None))
            hogs[device] = Hog(
                device, hog.watt_hours + row["watt_hours"], _sum(hog.cost, row["cost"]),
                _sum(hog.before_watt_hours, row["before"]),
            )  # fmt: skip
        if row["currency"] and row["cost"] is not None and row["type"] in (meters or appliances):
            costs[row["currency"]] += row["cost"]
    ranked = sorted(hogs.values(), key=lambda hog: (-hog.watt_hours, hog.device.device_id, hog.device.site))
    lost = reader.rows(UNATTRIBUTED, **span)
    return Energy(
        sum(hog.watt_hours for hog in ranked),
        sum(of_meters) if of_meters and appliances != meters else None,
        dict(costs),
        ranked,
        {row["reason"]: (row["times"], row["watt_hours"]) for row in lost},
        _by_step(reader, ranked, {**span, "types": sorted(appliances)}, step),
    )


def _sum(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else one + other


def _by_step(reader: Reader, ranked: list[Hog], span: dict[str, object], step: timedelta) -> dict[str, Series]:
    names = {(h.device.device_id, h.device.site): f"{h.device.device_id}, {h.device.site}" for h in ranked[:DRAWN]}
    found: dict[str, dict[datetime, float]] = {name: defaultdict(float) for name in (*names.values(), "others")}
    for row in reader.rows(BY_STEP, step=step, **span):
        found[names.get((row["device_id"], row["site"]), "others")][row["at"]] += row["watt_hours"]
    return {name: sorted(points.items()) for name, points in found.items() if points}
