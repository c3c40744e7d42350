"""What is known in one Kafka partition: types with their rules, devices, sites, and what a reading of certain metrics
does. Holds and finds; decides nothing.
"""

import zlib
from collections.abc import Iterable

from fleet.alert_state import LONG_AGO
from fleet.device_state import DeviceState, Plan, TypeState
from fleet.local_time import LocalTime
from fleet.ruleset import CompiledRule, RuleSet
from fleet.site import DEFAULT_SITE, Site
from fleet.spec import RuledType

MAX_PLANS = 4096
"""Kept per type; metrics come in a few sets and orders. Beyond it a plan is made for each reading."""


class Partition:
    def __init__(self, specs: Iterable[RuledType] = ()):
        self.types: dict[str, TypeState] = {}
        self.sites: dict[str, Site] = {}
        self.floor = LONG_AGO
        """A rule test's `watermark`: also of types to come."""
        self.lookers: dict[tuple[str, str], list[tuple[TypeState, CompiledRule]]] = {}
        """(type, metric) → rules whose site functions look at it."""
        for spec in specs:
            self.types[spec.type] = TypeState(RuleSet(spec))
        self.index_lookers()

    def site(self, name: str) -> Site:
        if name not in self.sites:
            self.sites[name] = Site(name, LocalTime())
        return self.sites[name]

    def set_zone(self, name: str, time_zone: str) -> None:
        """Raises ConfigurationError for a zone that there is not, before anything is changed."""
        if self.site(name).local.name != time_zone:
            local = LocalTime(time_zone)
            self.sites[name].local = local
            self.sites[name].memo.clear()

    def device(self, type_name: str, device_id: str) -> DeviceState | None:
        type_ = self.types.get(type_name)
        return type_.devices.get(device_id) if type_ else None

    def add_device(self, type_: TypeState, device_id: str, site: str) -> DeviceState:
        device = DeviceState(device_id, type_, self.site(site or DEFAULT_SITE))
        type_.devices[device_id] = device
        device.site.join(device)
        if device_id in type_.retired:
            device.marks = dict(type_.retired.pop(device_id))
        return device

    def move(self, device: DeviceState, site: str) -> None:
        device.site.leave(device)
        device.site = self.site(site)
        device.site.join(device)

    def remove_device(self, device: DeviceState) -> None:
        device.site.leave(device)
        del device.type.devices[device.id]
        if device.marks:
            device.type.retired[device.id] = device.marks

    def index_lookers(self) -> None:
        """After any type's rules changed."""
        self.lookers.clear()
        for type_ in self.types.values():
            type_.plans.clear()
            for rule in type_.rules.rules:
                for looked_at in rule.looked_at:
                    self.lookers.setdefault(looked_at, []).append((type_, rule))
        for site in self.sites.values():
            site.memo.clear()

    def plan(self, type_: TypeState, names: tuple[str, ...]) -> Plan:
        """Of a reading that carries these metrics, in this order."""
        plan = type_.plans.get(names)
        if plan is None:
            plan = self._make_plan(type_, names)
            if len(type_.plans) < MAX_PLANS:
                type_.plans[names] = plan
        return plan

    def _make_plan(self, type_: TypeState, names: tuple[str, ...]) -> Plan:
        rules, places = type_.rules, type_.rules.places
        known = [name for name in names if name in places.metrics]
        kept = [(places.metrics[n], places.windows.get(n), places.previous.get(n), places.totals.get(n)) for n in known]
        used = [rule for rule in rules.rules if rule.own & set(known)]
        lookers = {
            (other.name, rule.place): (other, rule)
            for name in known
            for other, rule in self.lookers.get((type_.name, name), ())
        }
        return Plan(
            slots=[(p, *rules.ranges[p]) if (p := places.metrics.get(n)) is not None else None for n in names],
            kept=[k for k in kept if k[1:] != (None, None, None)],
            rules=used,
            with_silences=[rule for rule in rules.rules if rule in used or rule.no_data_us is not None],
            lookers=[lookers[key] for key in sorted(lookers)],
            key=zlib.crc32("\0".join(sorted(names)).encode()),
        )
