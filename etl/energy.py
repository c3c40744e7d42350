"""Energy of a folder of the lake into the warehouse, in the transaction that replaces its rollups.

The kernel has attributed what lies within the folder. Between a meter's last value in one folder and its first in the
next lies a *link*, which belongs to the later one: where a folder changes, the links into it and out of it are made
anew. Tables and their columns: sql/0023_energy.sql. One load of a type at a time does this, whatever loads beside it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import Connection, text

from connections.warehouse import Warehouse, copy_rows
from etl.derive import Derived
from etl.kernel_energy import Phases
from etl.lake_index import PartitionFiles
from etl.window import micros
from fleet.energy import Intervals, Meter, attribute
from fleet.local_time import LocalTime
from fleet.meter import meter_of, phase_us
from fleet.reading import to_datetime
from fleet.settings import Settings
from fleet.spec import DeviceType
from fleet.tariff import Tariffs, load_tariffs

PIECES = ("partition", "is_link", "device_type", "device_id", "site", "hour", "watt_hours")
UNATTRIBUTED = ("partition", "is_link", "device_type", "device_id", "site", "starts_at", "ends_at", "watt_hours",
                "most_watt_hours", "reason")  # fmt: skip
ENDS = ("partition", "device_type", "device_id", "site", "first_at", "first", "last_at", "last", "pace_us")
HOURS = ("site", "device_type", "device_id", "hour", "watt_hours", "cost", "currency", "time_zone")
Hours = set[tuple[str, datetime]]
"""(device, hour)"""
UTC_TIME = LocalTime()


@dataclass(frozen=True)
class Places:
    """What is known of the sites of a system."""

    zones: Mapping[str, LocalTime]
    tariffs: Tariffs

    def zone(self, site: str) -> LocalTime:
        return self.zones.get(site, UTC_TIME)

    def phase_us(self, site: str, at_us: int) -> int:
        return phase_us(self.zone(site), at_us)

    def phases(self, partitions: Iterable[PartitionFiles]) -> Phases:
        """Those that are not 0."""
        starts = {micros(files.partition.start) for files in partitions}
        all_ = {(site, at): self.phase_us(site, at) for site in self.zones for at in starts}
        return {key: phase for key, phase in all_.items() if phase}

    def priced(self, site: str, hour: datetime, watt_hours: float) -> tuple[float | None, str | None, str]:
        """Cost, currency and time zone."""
        zone = self.zone(site)
        local = zone.at(micros(hour))
        price = self.tariffs.price(site, local) if local else None
        return (price.cost(watt_hours), price.currency, zone.name) if price else (None, None, zone.name)


NOWHERE = Places({}, Tariffs())


def places(settings: Settings, warehouse: Warehouse, spec: DeviceType) -> Places:
    """Of the type's system; none, for a type without a counter of energy. Raises SpecError where the file of tariffs is
    wrong; without one nothing has a price."""
    if meter_of(spec) is None:
        return NOWHERE
    rows = warehouse.rows("SELECT site, time_zone FROM sites WHERE system = :system", system=spec.system)
    return Places({row["site"]: LocalTime(row["time_zone"]) for row in rows}, tariffs_of(settings))


def tariffs_of(settings: Settings) -> Tariffs:
    file = settings.tariffs_file
    return load_tariffs(file.read_text(encoding="utf-8"), str(file)) if file.is_file() else Tariffs()


def store_energy(c: Connection, spec: DeviceType, derived: Derived, of: Places) -> None:
    """Nothing, for a type without a counter of energy."""
    meter = meter_of(spec)
    if meter is None or derived.ends is None or derived.energy is None or derived.unattributed is None:
        return
    lock(c, spec.type)
    span = {"key": derived.files.partition.key, "type": spec.type, "end": derived.files.partition.end}
    gone = c.execute(text("DELETE FROM energy_ends WHERE partition = :key RETURNING device_id"), span).scalars()
    devices = {*gone, *derived.ends["device_id"].to_pylist()}
    touched: Hours = {
        (row.device_id, row.hour)
        for row in c.execute(text("DELETE FROM energy_pieces WHERE partition = :key RETURNING device_id, hour"), span)
    }
    c.execute(text("DELETE FROM energy_unattributed WHERE partition = :key"), span)

    fixed = (span["key"], False, spec.type)
    copy_rows(c, "energy_ends", ENDS, ((span["key"], spec.type, *row) for row in _rows(derived.ends, ENDS[2:])))
    pieces = [(*fixed, *row) for row in _rows(derived.energy, PIECES[3:])]
    names = ("device_id", "site", "begins", "ends", "watt_hours", "most_watt_hours", "reason")
    unattributed = [(*fixed, *row) for row in _rows(derived.unattributed, names)]
    links = c.execute(text(LINKS), {**span, "devices": sorted(devices)}).mappings().all()
    touched |= _unlink(c, [link for link in links if link["partition"] != span["key"]])
    for rows, more in zip((pieces, unattributed), _linked(spec.type, meter, links, of), strict=True):
        rows += more
    copy_rows(c, "energy_pieces", PIECES, pieces)
    copy_rows(c, "energy_unattributed", UNATTRIBUTED, ([*map(_number, row)] for row in unattributed))
    touched |= {(row[3], row[5]) for row in pieces}
    _sum_up(c, spec.type, touched, of)


def lock(c: Connection, type_name: str) -> None:
    c.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": f"energy/{type_name}"})


LINKS = """
WITH device AS (SELECT unnest(CAST(:devices AS text[])) AS device_id),
target AS (
    SELECT e.* FROM energy_ends e JOIN device USING (device_id) WHERE e.device_type = :type AND e.partition = :key
    UNION ALL
    SELECT next.* FROM device d CROSS JOIN LATERAL (
        SELECT * FROM energy_ends e
         WHERE e.device_type = :type AND e.device_id = d.device_id AND e.first_at >= :end ORDER BY first_at LIMIT 1
    ) next
)
SELECT target.partition, target.device_id, target.site, target.first_at, target.first,
       before.last_at, before.last, before.pace_us
  FROM target LEFT JOIN LATERAL (
       SELECT * FROM energy_ends e
        WHERE e.device_type = :type AND e.device_id = target.device_id AND e.first_at < target.first_at
        ORDER BY e.first_at DESC LIMIT 1) before ON true
 ORDER BY target.device_id, target.first_at"""
"""Into the folder, and out of it to the next that has a value of the meter."""


def _unlink(c: Connection, links: Sequence[Any]) -> Hours:
    """What the links out of the folder gave so far."""
    which = {"keys": [link["partition"] for link in links], "devices": [link["device_id"] for link in links]}
    old = (
        " USING unnest(CAST(:keys AS text[]), CAST(:devices AS text[])) AS old (partition, device_id)"
        " WHERE t.is_link AND t.partition = old.partition AND t.device_id = old.device_id"
    )
    c.execute(text(f"DELETE FROM energy_unattributed t{old}"), which)  # noqa: S608
    rows = c.execute(text(f"DELETE FROM energy_pieces t{old} RETURNING t.device_id, t.hour"), which)  # noqa: S608
    return {(row.device_id, row.hour) for row in rows}


def _linked(type_name: str, meter: Meter, links: Sequence[Any], of: Places) -> tuple[list[Any], list[Any]]:
    """Rows of energy_pieces and of energy_unattributed."""
    links = [link for link in links if link["last_at"] is not None]
    begin, end = (np.array([micros(link[name]) for link in links], np.int64) for name in ("last_at", "first_at"))
    was, now = (np.array([link[name] for link in links], float) for name in ("last", "first"))
    pace = np.array([link["pace_us"] for link in links], np.int64)
    phase = np.array([of.phase_us(link["site"], micros(link["first_at"])) for link in links], np.int64)
    shares, out = attribute(Intervals(begin, end, was, now, pace, phase), meter)

    def row(place: int, *more: object) -> tuple[object, ...]:
        link = links[place]
        return (link["partition"], True, type_name, link["device_id"], link["site"], *more)

    pieces = [
        row(place, to_datetime(hour), watt_hours)
        for place, hour, watt_hours in zip(*(column.tolist() for column in shares), strict=True)
    ]
    unattributed = [
        row(place, links[place]["last_at"], links[place]["first_at"], *more)
        for place, *more in zip(*(column.tolist() for column in out), strict=True)
    ]
    return pieces, unattributed


SUMS = """
SELECT p.site, p.device_id, p.hour, sum(p.watt_hours ORDER BY p.partition, p.is_link) AS watt_hours
  FROM energy_pieces p
  JOIN unnest(CAST(:devices AS text[]), CAST(:hours AS timestamptz[])) AS t (device_id, hour)
    ON p.device_type = :type AND p.device_id = t.device_id AND p.hour = t.hour
 GROUP BY p.site, p.device_id, p.hour ORDER BY p.site, p.device_id, p.hour"""


def _sum_up(c: Connection, type_name: str, touched: Hours, of: Places) -> None:
    asked = {
        "type": type_name, "devices": [device for device, _ in touched], "hours": [hour for _, hour in touched],
    }  # fmt: skip
    c.execute(
        text(
            "DELETE FROM energy_hours h"
            " USING unnest(CAST(:devices AS text[]), CAST(:hours AS timestamptz[])) AS t (device_id, hour)"
            " WHERE h.device_type = :type AND h.device_id = t.device_id AND h.hour = t.hour"
        ),
        asked,
    )
    found = c.execute(text(SUMS), asked).all()
    copy_rows(
        c, "energy_hours", HOURS,
        ((r.site, type_name, r.device_id, r.hour, r.watt_hours, *of.priced(r.site, r.hour, r.watt_hours))
         for r in found),
    )  # fmt: skip


def reprice(warehouse: Warehouse, spec: DeviceType, of: Places) -> int:
    """Today's tariffs for all hours that are stored of a type, in one transaction; how many."""
    with warehouse.transaction() as c:
        lock(c, spec.type)
        stored = text("SELECT DISTINCT site, hour FROM energy_hours WHERE device_type = :type")
        hours = c.execute(stored, {"type": spec.type}).all()
        prices = [(row.site, row.hour, *of.priced(row.site, row.hour, 1000.0)) for row in hours]
        done = c.execute(
            text(
                "UPDATE energy_hours h SET cost = h.watt_hours / 1000 * p.per_kwh, currency = p.currency"
                "  FROM unnest(CAST(:sites AS text[]), CAST(:hours AS timestamptz[]),"
                "              CAST(:per_kwh AS double precision[]), CAST(:currencies AS text[]))"
                "       AS p (site, hour, per_kwh, currency)"
                " WHERE h.site = p.site AND h.hour = p.hour AND h.device_type = :type"
            ),
            {
                "type": spec.type, "sites": [p[0] for p in prices], "hours": [p[1] for p in prices],
                "per_kwh": [p[2] for p in prices], "currencies": [p[3] for p in prices],
            },
        )  # fmt: skip
        return int(done.rowcount)


def _rows(table: pa.Table, names: Sequence[str]) -> Iterable[tuple[Any, ...]]:
    return zip(*(table[name].to_pylist() for name in names), strict=True)


def _number(value: object) -> object:
    """No limit is null."""
    return None if value == np.inf else value
