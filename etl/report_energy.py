"""A report's energy: what homes used, each counted once, which appliances, and what no hour has."""

from collections import defaultdict
from datetime import datetime, timedelta

from connections.warehouse import Reader
from etl.consumption import Span, hogs_of, shown, unattributed
from fleet.catalog import System
from fleet.consumption import Appliance, Hog, counting_types
from fleet.energy import IMPLAUSIBLE
from fleet.meter import meter_of
from fleet.report import Energy, Series

DRAWN = 6
"""Appliances by name in a plot; all others are one."""
BY_STEP = """\
SELECT time_bucket(:step, hour) AS at, site, device_type, device_id, sum(watt_hours) AS watt_hours
  FROM energy_hours WHERE device_type = ANY(:types) AND hour >= :start AND hour < :end
 GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"""


def energy_of(reader: Reader, system: System, start: datetime, end: datetime, step: timedelta) -> Energy | None:
    types = [spec for spec in system.types if meter_of(spec)]
    span = Span(start, end, tuple(spec.type for spec in types))
    rows = shown(reader, span, "all") if types else []
    if not rows:
        return None
    used: dict[Appliance, float] = defaultdict(float)
    for row in rows:
        used[Appliance(row["site"], row["device_type"], row["device_id"])] += row["watt_hours"]
    counting = counting_types(used)
    costs: dict[str, float] = defaultdict(float)
    for row in rows:
        if row["cost"] is not None and counting[row["site"]] == row["device_type"]:
            costs[row["currency"]] += row["cost"]
    hogs = sorted(hogs_of(reader, span, types), key=lambda hog: (-hog.watt_hours, hog.appliance))
    return Energy(
        sum(watt_hours for of, watt_hours in used.items() if counting[of.site] == of.type),
        dict(costs),
        hogs,
        _lost(reader, span, counting),
        _by_step(reader, hogs, span, step),
    )


def _lost(reader: Reader, span: Span, counting: dict[str, str]) -> dict[str, tuple[int, float]]:
    """Of the types that count: where a home fell silent, its meter and all plugs behind it lost the same energy. At a
    site that has no hours in the span, by what was lost there."""
    rows = unattributed(reader, span)
    lost: dict[Appliance, float] = defaultdict(float)
    for row in rows:
        known = 0.0 if row["reason"] == IMPLAUSIBLE else row["watt_hours"]
        lost[Appliance(row["site"], row["device_type"], row["device_id"])] += known
    counting = counting_types(lost) | counting
    found: dict[str, tuple[int, float]] = {}
    for row in rows:
        if counting[row["site"]] == row["device_type"]:
            times, watt_hours = found.get(row["reason"], (0, 0.0))
            more = 0.0 if row["reason"] == IMPLAUSIBLE else row["watt_hours"]
            found[row["reason"]] = times + 1, watt_hours + more
    return found


def _by_step(reader: Reader, hogs: list[Hog], span: Span, step: timedelta) -> dict[str, Series]:
    names = {
        hog.appliance: f"{hog.appliance.device}, {hog.appliance.site}" if place < DRAWN else "others"
        for place, hog in enumerate(hogs)
    }
    found: dict[str, dict[datetime, float]] = {name: defaultdict(float) for name in names.values()}
    for row in reader.rows(BY_STEP, step=step, types=list(span.types), start=span.start, end=span.end):
        name = names.get(Appliance(row["site"], row["device_type"], row["device_id"]))
        if name:
            found[name][row["at"]] += row["watt_hours"]
    return {name: sorted(points.items()) for name, points in found.items() if points}
