"""The registry's tables. Every change is one transaction: rows, and the control records that tell the log of it.

Changes take turns (each locks the one row of `registry` first), so revisions rise in the order of commits. Who
publishes the records is `connections.publication`.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, text

from connections.warehouse import Warehouse, copy_rows
from fleet.catalog import Catalog
from fleet.control import Resolve, Routed, Site, Spec, encode_control
from fleet.errors import RegistryError
from fleet.registry import Entry, milliseconds, new_entry, routed_change
from fleet.spec import DeviceType
from fleet.spec_file import without_rules

COLUMNS = "type, device_id, system, site, room, params, registered_at, retired_at, registered_by"


class Place(NamedTuple):
    """A site of a system."""

    system: str
    site: str
    time_zone: str
    devices: int = 0
    """That are not retired."""


class Announced(NamedTuple):
    """A type's spec as the log of a topic was last told it."""

    kafka_topic: str
    type: str
    version: int
    text: str
    is_in_force: bool = True
    """False: the type is no more, and the text has no rules."""


SPECS = text("SELECT kafka_topic, type, version, text, is_in_force FROM specs ORDER BY type")


class Changes:
    """One transaction on the registry; nothing of it is there before it ends. `at` is its time, whole milliseconds."""

    def __init__(self, connection: Connection, revision: int, at: datetime):
        self._connection = connection
        self.at = at.astimezone(UTC).replace(microsecond=at.microsecond // 1000 * 1000)
        self.revision = revision
        """Of the last change so far."""
        self._revisions = count(revision + 1)
        self._devices: dict[tuple[str, str], tuple[Entry, int]] = {}
        self._routed: list[Routed] = []
        self._zones: dict[tuple[str, str], str] = {}

    def entries(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Entry]:
        """The devices that are there, of those named by (type, id)."""
        if not keys:
            return {}
        rows = self._connection.execute(
            text(f"SELECT {COLUMNS} FROM devices JOIN unnest(:types, :ids) k(t, d) ON type = t AND device_id = d"),  # noqa: S608
            {"types": [t for t, _ in keys], "ids": [d for _, d in keys]},
        ).mappings()
        return {entry.key: entry for entry in (_entry(dict(row)) for row in rows)}

    def entry(self, spec: DeviceType, device_id: str) -> Entry:
        """Raises RegistryError where there is none, or it is retired."""
        found = self.entries([(spec.type, device_id)]).get((spec.type, device_id))
        if found is None:
            raise RegistryError(
                f"the registry has no {spec.type} {device_id[:80]!r}; `weir devices add` makes one, `weir devices list"
                f" --type {spec.type}` shows those there are"
            )
        if found.retired_at is not None:
            since = found.retired_at.astimezone(UTC)
            raise RegistryError(f"{spec.type} {device_id} is retired since {since:%Y-%m-%d %H:%M:%S} UTC")
        return found

    def time_zone(self, system: str, site: str) -> str:
        """A site that is new is in UTC."""
        key = (system, site)
        if key not in self._zones:
            self._connection.execute(
                text("INSERT INTO sites (system, site) VALUES (:system, :site) ON CONFLICT DO NOTHING"),
                {"system": system, "site": site},
            )
            found = self._connection.execute(
                text("SELECT time_zone FROM sites WHERE system = :system AND site = :site"),
                {"system": system, "site": site},
            )
            self._zones[key] = str(found.scalar_one())
        return self._zones[key]

    def set_time_zone(self, topic: str, system: str, site: str, time_zone: str) -> bool:
        """Whether it was another. Every partition hears of it."""
        if self.time_zone(system, site) == time_zone:
            return False
        self._connection.execute(
            text("UPDATE sites SET time_zone = :zone WHERE system = :system AND site = :site"),
            {"zone": time_zone, "system": system, "site": site},
        )
        self._zones[system, site] = time_zone
        self._tell_site(topic, site, time_zone)
        return True

    def _tell_site(self, topic: str, site: str, time_zone: str) -> None:
        record = Site(revision=next(self._revisions), at=milliseconds(self.at), site=site, time_zone=time_zone)
        self._add([Routed(topic, None, record)])

    def put(self, spec: DeviceType, before: Entry | None, after: Entry) -> None:
        """A device as it is now, retired or not; `before` is what `entries` said of it."""
        zone = self.time_zone(after.system, after.site)
        self._add(routed_change(spec, before, after, zone, self._revisions, self.at))
        self._devices[after.key] = (after, self.revision)

    def register(self, spec: DeviceType, sites: Mapping[str, str]) -> list[str]:
        """Devices (id → site) that have registered themselves, but for those that are there already, retired or not."""
        there = self.entries([(spec.type, device_id) for device_id in sites])
        made = []
        for device_id, site in sites.items():
            if (spec.type, device_id) not in there:
                self.put(spec, None, new_entry(spec, device_id, site, self.at, registered_by="self"))
                made.append(device_id)
        return made

    def resolve(self, spec: DeviceType, device_id: str, rule: str, by: str) -> None:
        """An alert ended by hand. Where partitions go by site, all hear of it: at which site it fired is not known."""
        record = Resolve(
            revision=next(self._revisions), at=milliseconds(self.at), type=spec.type, device=device_id, rule=rule, by=by
        )
        self._add([Routed(spec.topic, None if spec.partition_by == "site" else device_id, record)])

    def specs(self) -> "dict[tuple[str, str], Announced]":
        return {(row.kafka_topic, row.type): row for row in map(_announced, self._connection.execute(SPECS).mappings())}

    def reload(self, spec: DeviceType, text_: str) -> bool:
        """The type's spec is this text from here on; `spec` is what it says. False where the log has been told so."""
        before = self.specs().get((spec.topic, spec.type))
        if before is not None and before.is_in_force and before.text == text_:
            return False
        self._tell_spec(Announced(spec.topic, spec.type, spec.version, text_))
        if before is None or not before.is_in_force:
            self._repeat_devices([spec])  # who reads the log knew nothing of the type when it was told of them
        return True

    def withdraw(self, catalog: Catalog, topics: Collection[str]) -> list[str]:
        """Types that the log of these topics was told of and that the catalog does not have, or has in another topic:
        there they have no rules from here on. Returns their names."""
        there = {(spec.topic, spec.type) for spec in catalog}
        known = [spec for key, spec in self.specs().items() if key not in there and spec.is_in_force]
        gone = [spec for spec in known if spec.kafka_topic in topics]
        for spec in gone:
            self._tell_spec(spec._replace(text=without_rules(spec.text), is_in_force=False))
        return [spec.type for spec in gone]

    def _tell_spec(self, spec: "Announced") -> None:
        record = Spec(
            revision=next(self._revisions), at=milliseconds(self.at), type=spec.type, version=spec.version,
            text=spec.text,
        )  # fmt: skip
        self._connection.execute(
            text(
                "INSERT INTO specs (kafka_topic, type, version, text, is_in_force) VALUES (:kafka_topic, :type,"
                " :version, :text, :is_in_force) ON CONFLICT (kafka_topic, type) DO UPDATE SET"
                " version = excluded.version, text = excluded.text, is_in_force = excluded.is_in_force"
            ),
            spec._asdict(),
        )
        self._add([Routed(spec.kafka_topic, None, record)])

    def repeat(self, catalog: Catalog) -> tuple[int, int]:
        """Every spec, site and device again, for who has no longer the beginning of the log: (sites, devices)."""
        for spec in self.specs().values():
            self._tell_spec(spec)
        sites = 0
        for place in self._connection.execute(text("SELECT system, site, time_zone FROM sites")).mappings().all():
            if place["system"] in catalog.systems:
                self._tell_site(catalog.system(place["system"]).topic, place["site"], place["time_zone"])
                sites += 1
        return sites, self._repeat_devices(catalog)

    def _repeat_devices(self, specs: Iterable[DeviceType]) -> int:
        by_name = {spec.type: spec for spec in specs}
        rows = self._connection.execute(
            text(f"SELECT {COLUMNS} FROM devices WHERE retired_at IS NULL AND type = ANY(:types) ORDER BY revision"),  # noqa: S608
            {"types": list(by_name)},
        ).mappings()
        entries = [_entry(dict(row)) for row in rows]
        for entry in entries:
            self.put(by_name[entry.type], entry, entry)
        return len(entries)

    def _add(self, routed: Iterable[Routed]) -> None:
        for one in routed:
            self._routed.append(one)
            self.revision = one.record.revision

    def write(self) -> None:
        if not self._routed:
            return
        rows = [
            {**msgspec.to_builtins(entry), "revision": revision} for entry, revision in self._devices.values()
        ]  # fmt: skip
        self._connection.execute(
            text(
                f"INSERT INTO devices ({COLUMNS}, revision)"  # noqa: S608
                f" SELECT {COLUMNS}, revision FROM jsonb_populate_recordset(NULL::devices, CAST(:rows AS jsonb))"
                " ON CONFLICT (type, device_id) DO UPDATE SET"
                + ", ".join(f" {name} = excluded.{name}" for name in (*COLUMNS.split(", ")[2:], "revision"))
            ),
            {"rows": msgspec.json.encode(rows).decode()},
        )
        records = (
            (r.record.revision, r.topic, r.key, r.except_key, encode_control(r.record).decode()) for r in self._routed
        )
        copy_rows(
            self._connection, "control_records", ("revision", "kafka_topic", "key", "except_key", "record"), records
        )
        self._connection.execute(text("UPDATE registry SET revision = :revision"), {"revision": self.revision})


class Registry:
    """Reads need no more than SELECT, changes the role `registry`. Raises what the warehouse raises."""

    def __init__(self, warehouse: Warehouse):
        self.warehouse = warehouse

    @contextmanager
    def changes(self) -> Iterator[Changes]:
        with self.warehouse.transaction() as connection:
            row = connection.execute(
                text(
                    "UPDATE registry SET changed_at = greatest(changed_at, clock_timestamp())"
                    " RETURNING revision, changed_at"
                )
            ).one()
            # A warehouse put back from a backup would go on below what Kafka's log has; the clock does not.
            revision = max(row.revision, int(row.changed_at.timestamp() * 1000))
            changes = Changes(connection, revision, row.changed_at)
            yield changes
            changes.write()

    def state(self, topics: Collection[str]) -> tuple[int, bool]:
        """The revision, and whether control records for these topics wait to be published. Cheap: asked each second."""
        (row,) = self.warehouse.rows(
            "SELECT revision, EXISTS (SELECT FROM control_records WHERE published_at IS NULL"
            " AND kafka_topic = ANY(:topics)) AS waits FROM registry",
            topics=list(topics),
        )
        return row["revision"], row["waits"]

    def specs(self) -> list[Announced]:
        with self.warehouse.transaction() as connection:
            return [_announced(row) for row in connection.execute(SPECS).mappings()]

    def devices(
        self,
        type_name: str | None = None,
        site: str | None = None,
        after: int = -1,
        device_id: str | None = None,
    ) -> list[Entry]:
        """By type and id, retired ones too. `after`: only those that a revision above it changed."""
        rows = self.warehouse.rows(
            f"SELECT {COLUMNS} FROM devices WHERE revision > :after"  # noqa: S608
            " AND (CAST(:type AS text) IS NULL OR type = :type) AND (CAST(:site AS text) IS NULL OR site = :site)"
            " AND (CAST(:id AS text) IS NULL OR device_id = :id)"
            " ORDER BY type, device_id",
            after=after, type=type_name, site=site, id=device_id,
        )  # fmt: skip
        return [_entry(row) for row in rows]

    def sites(self) -> list[Place]:
        rows = self.warehouse.rows(
            "SELECT s.system, s.site, s.time_zone, count(d.device_id) AS devices FROM sites s"
            " LEFT JOIN devices d ON d.system = s.system AND d.site = s.site AND d.retired_at IS NULL"
            " GROUP BY s.system, s.site ORDER BY s.system, s.site"
        )
        return [Place(**row) for row in rows]


def _announced(row: Mapping[Any, Any]) -> Announced:
    return Announced(**row)


def _entry(values: dict[str, Any]) -> Entry:
    for name in ("registered_at", "retired_at"):
        if values[name] is not None:
            values[name] = values[name].astimezone(UTC)
    return Entry(**values)
