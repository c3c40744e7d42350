"""RULES §3 (time), the rest of §4, §5 (transitions) and §6 (the input of a rule test), to the letter and slowly.

    transitions = run(document["specs"], test)      # a rule test of RULES §6

Beyond §6, lines may carry `append` (append time, a duration from the origin), `{heartbeat: 50s}` is a heartbeat
appended at 50 s, `{at, register: {device, site, params}}` a change of the registry, `{at, zone: {site, time_zone}}` one
of a site's time zone; with `payloads: true` readings without seq are told by their payload. One Oracle is a partition.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

from fleet.duration import parse_duration
from fleet.rule import Rule
from fleet.spec import DeviceType
from tests.oracle.conditions import (
    Device,
    Micros,
    Moment,
    Taken,
    condition,
    local,
    micros,
    present,
    read,
    site_metrics,
    used_metrics,
)  # fmt: skip
from tests.oracle.states import Machine, flaps, max_gap_of

SEVERITIES = ("info", "warning", "critical")
DUPLICATES_AMONG = 32
NOT_METRICS = {"at", "device", "type", "site", "seq", "append"}
EXAMPLES = {"good": [{"payload": {}, "values": {}}], "bad": [{"payload": {}, "reason": "x"}]}


def load(spec: dict[str, Any]) -> DeviceType:
    """A spec inline: §6, it needs no examples, and `partition_by: site` is taken as given."""
    return DeviceType.model_validate({"examples": EXAMPLES, "partition_by": "site", **spec})


def at_of(text: object) -> Micros:
    return micros(parse_duration(text))


@dataclass
class Alert:
    """§5: `since` and `starts_at` are settled at firing and stay; k counts earlier alerts of the same identity with the
    same starts_at; transitions are numbered within the alert."""

    identity: tuple[str, str, str, str]
    starts_at: Micros
    since: Micros
    severity: str
    k: int
    number: int = 0
    open: bool = True


@dataclass
class RuleState:
    """What a (rule, device) remembers. Machines are by severity; None for a rule without levels."""

    machines: dict[str | None, Machine] = field(default_factory=dict)
    last_evaluation: Micros | None = None
    quiet: bool = False
    alert: Alert | None = None
    """The latest, even a resolved one."""
    evaluated: list[bool] = field(default_factory=list)
    flapping: bool = False
    no_data_due: Micros | None = None
    no_data_since: Micros | None = None

    @property
    def fires(self) -> bool:
        return self.alert is not None and self.alert.open


class Oracle:
    def __init__(self, specs: list[DeviceType], registry: list[dict[str, Any]], payloads: bool = False):
        self.specs = {spec.type: spec for spec in specs}
        self.first = specs[0].type
        self.zones: dict[str, str] = {}
        self.payloads = payloads
        """Whether a reading without seq has its payload for one. §3: lines of a rule test have not."""
        self.devices: dict[tuple[str, str], Device] = {}
        self.states: dict[tuple[str, str, str], RuleState] = {}
        self.alerts: list[Alert] = []
        self.transitions: list[dict[str, Any]] = []
        self.watermarks: dict[str, Micros] = {}
        self.highest_event: dict[str, Micros] = {}
        self.highest_append: dict[str, Micros] = {}
        self.append_before: dict[str, Micros] = {}
        self.late = self.duplicates = 0
        self.source = -1
        for entry in registry:
            self.register(entry)

    # §6: the input

    def take(self, line: Any, source: int) -> None:
        """One line of `input`."""
        self.source = source
        if line == "restart":
            self.__dict__ = copy.deepcopy(self.__dict__)
            return
        if "heartbeat" in line:
            self.heartbeat(at_of(line["heartbeat"]))
        elif "watermark" in line:
            for name in self.specs:
                self.raise_watermark(name, at_of(line["watermark"]))
            self.timers_reached(self.specs)
        elif "retire" in line:
            self.retire(at_of(line["at"]), (line.get("type", self.first), line["retire"]))
        elif "zone" in line:
            self.zones[line["zone"]["site"]] = line["zone"]["time_zone"]
        elif "register" in line:
            self.register(line["register"], at_of(line["at"]))
        elif "resolve" in line:
            asked = line["resolve"]
            self.resolve(at_of(line["at"]), (line.get("type", self.first), asked["device"]), asked["rule"])
        elif "spec" in line:
            self.change(at_of(line["at"]), load(line["spec"]))
        else:
            self.reading(line)

    def register(self, entry: dict[str, Any], at: Micros = 0) -> None:
        """§6: each of the test's `registry` is known from 0 s, readings or not. `{at, register: {device, …}}` makes one
        known later, or gives a known one another site and other params."""
        name, params = entry.get("type", self.first), dict(entry.get("params", {}))
        device = self.devices.get((name, entry["device"]))
        if device is None:
            self.add(Device(entry["device"], name, entry.get("site", "default"), at, params))
        else:
            device.site, device.params = entry.get("site", device.site), params

    def add(self, device: Device) -> None:
        self.devices[device.type, device.id] = device
        for rule in self.specs[device.type].alerts:
            self.start_no_data(rule, device)

    def state(self, rule: Rule, device: Device) -> RuleState:
        return self.states.setdefault((device.type, device.id, rule.id), RuleState())

    # §3 Watermark

    def raise_watermark(self, name: str, to: Micros) -> None:
        self.watermarks[name] = max(to, self.watermarks.get(name, to))

    def move_watermark(self, name: str, event: Micros, append: Micros | None) -> None:
        """min(highest event time, highest append time) - lateness, never falling. §6: without an append time nothing
        holds it back."""
        self.highest_event[name] = max(event, self.highest_event.get(name, event))
        highest = self.highest_event[name]
        if append is not None:
            self.append_before[name] = append
            self.highest_append[name] = max(append, self.highest_append.get(name, append))
            highest = min(highest, self.highest_append[name])
        self.raise_watermark(name, highest - micros(self.specs[name].lateness))

    def heartbeat(self, append: Micros) -> None:
        """Moves it on by the append time that passed since the record before it: the type's reading, or the heartbeat.
        Where no device of the type was ever heard, those of the registry are silent by the heartbeats alone."""
        for name in self.specs:
            if name in self.watermarks:
                passed = append - self.append_before.get(name, append)
                self.watermarks[name] += max(0, passed)
            elif any(device.type == name for device in self.devices.values()):
                self.watermarks[name] = append - micros(self.specs[name].lateness)
            self.append_before[name] = append
        self.timers_reached(self.specs)

    # §3 Readings, Out of order, Duplicates

    def reading(self, line: dict[str, Any]) -> None:
        name = line.get("type", self.first)
        spec, at = self.specs[name], at_of(line["at"])
        values = {key: read(line[key], key, spec) for key in line if key not in NOT_METRICS}
        seq = line.get("seq")
        if seq is None and self.payloads:
            seq = payload(line)
        device = self.devices.get((name, line["device"]))
        if device is not None and seq is not None:
            for earlier in device.taken[-DUPLICATES_AMONG:]:
                if (earlier.at, earlier.seq, set(earlier.values)) == (at, seq, set(values)):
                    self.duplicates += 1
                    return
        if device is None:
            device = Device(line["device"], name, line.get("site", "default"))
            self.add(device)
        before = self.watermarks.get(name)
        self.move_watermark(name, at, at_of(line["append"]) if "append" in line else None)
        behind = max(0, self.watermarks[name] - at)
        if device.clock is not None and at < device.clock:
            device.taken.append(Taken(at, values, seq, in_order=False, in_windows=behind == 0))
            self.late += behind > 0
            if self.watermarks[name] == before:  # it was not evaluated, and its watermark reaches nothing
                return
        else:
            device.lag = behind
            self.in_order(device, Taken(at, values, seq, in_order=True, in_windows=True), line.get("site"))
        self.timers_reached([name])

    def in_order(self, device: Device, reading: Taken, site: str | None) -> None:
        """First the device's timers due at or before that time; then its rules that use a metric it carries, in the
        spec's order; then those that look at it by a site function."""
        self.run_timers(lambda due, timer_device, _: timer_device is device and due <= reading.at)
        device.clock = reading.at
        device.site = site or device.site  # §7: a line without site leaves the device where it is
        reading.local_date = local(reading.at, self.zone(device)).date()
        device.taken.append(reading)
        evaluated = set()
        for rule in self.specs[device.type].alerts:
            if rule.no_data is not None:
                self.heard(rule, device, reading.at)
            elif used_metrics(rule, self.specs[device.type]) & set(reading.values):
                self.evaluate(rule, device, reading.at)
                evaluated.add((device.type, device.id, rule.id))
        carried = {f"{device.type}.{metric}" for metric in reading.values}
        for other, rule in self.at_site(device.site):
            if site_metrics(rule) & carried and (other.type, other.id, rule.id) not in evaluated:
                self.evaluate(rule, other, reading.at)

    def at_site(self, site: str) -> list[tuple[Device, Rule]]:
        """§3 Sites: by device id, then rule; §7: the order of timers, device id, type name, place in the spec."""
        devices = sorted((d for d in self.devices.values() if d.site == site), key=lambda d: (d.id, d.type))
        return [(device, rule) for device in devices for rule in self.specs[device.type].alerts]

    # §3 Timers

    def timers(self) -> list[tuple[Micros, str, str, int, Device, Rule]]:
        """(due, device id, type, place in the spec, device, rule), in that order. Timers of one alert due together are
        one."""
        found = []
        for device in self.devices.values():
            for place, rule in enumerate(self.specs[device.type].alerts):
                state = self.state(rule, device)
                dues = {machine.due for machine in state.machines.values()} | {state.no_data_due}
                found += [(due, device.id, device.type, place, device, rule) for due in dues - {None}]
        return sorted(found, key=lambda timer: timer[:4])

    def run_timers(self, due_now: Any) -> None:
        """One after the other, each time looking anew which is the first."""
        while timer := next((t for t in self.timers() if due_now(t[0], t[4], t[5])), None):
            self.act(timer[0], timer[4], timer[5])

    def timers_reached(self, types: Iterable[str]) -> None:
        """A timer acts when the watermark reaches its due time plus the device's lag."""

        def reached(due: Micros, device: Device, _: Rule) -> bool:
            known = device.type in types and device.type in self.watermarks
            return known and due + device.lag <= self.watermarks[device.type]

        self.run_timers(reached)

    def act(self, due: Micros, device: Device, rule: Rule) -> None:
        """The transition carries the due time, and the device's clock moves there."""
        state = self.state(rule, device)
        acted = False
        if state.no_data_due == due:
            state.no_data_due, acted = None, True
            self.open(rule, device, due, state.no_data_since, rule.severity or "warning")
        max_gap = self.max_gap(rule, device)
        for machine in state.machines.values():
            if machine.due == due:
                acted = machine.act(max_gap) or acted
        if rule.no_data is None:
            self.compare(rule, device, due)
        if acted:
            device.clock = due if device.clock is None else max(due, device.clock)

    def max_gap(self, rule: Rule, device: Device) -> Micros | None:
        return max_gap_of(rule.max_gap, self.specs[device.type].cadence)

    # §4 no_data

    def start_no_data(self, rule: Rule, device: Device) -> None:
        """Due at the last in-order reading's event time + duration; of devices never seen from their registration."""
        if rule.no_data is None:
            return
        seen = [reading.at for reading in device.in_order()]
        since = seen[-1] if seen else device.registered
        state = self.state(rule, device)
        if since is not None:
            state.no_data_since, state.no_data_due = since, since + micros(rule.no_data)

    def heard(self, rule: Rule, device: Device, at: Micros) -> None:
        """Any in-order reading resolves it, at its place in the spec (§7)."""
        if self.state(rule, device).fires:
            self.close(rule, device, at, "recovered")
        self.start_no_data(rule, device)

    # §3 Sites, §4 States, levels, flap

    def evaluate(self, rule: Rule, device: Device, event: Micros) -> None:
        """At the latest of the reading's event time, the device's clock and the rule's last evaluation; the rule's
        timers due by then run first."""
        state, spec = self.state(rule, device), self.specs[device.type]
        at = max(t for t in (event, device.clock, state.last_evaluation) if t is not None)
        self.run_timers(lambda due, d, r: d is device and r is rule and due <= at)
        state.last_evaluation = at
        moment = Moment(device, rule, spec, at, list(self.devices.values()), self.specs, self.zone(device))
        looked = {}
        for severity, level in levels(rule).items():
            machine = state.machines.setdefault(severity, Machine())
            when = condition(level.when, moment)
            breach = machine.look(at, when, level, self.max_gap(rule, device))
            if level.clear is not None:
                clear = condition(level.clear, moment)
            else:
                clear = None if breach is None else not breach
            looked[severity] = (breach, clear)
        known = [breach for breach, _ in looked.values() if breach is not None]
        event_time = at
        if state.quiet:
            # §7 manual: quiet until a known outcome finds no level in breach.
            state.quiet = not known or True in known
        else:
            for severity, level in levels(rule).items():
                changed = state.machines[severity].step(at, *looked[severity], level)
                event_time = min(event_time, changed) if changed is not None else event_time
        self.compare(rule, device, event_time)
        if known and rule.flap is not None:
            self.take_state(rule, device, at)

    def zone(self, device: Device) -> ZoneInfo:
        return ZoneInfo(self.zones.get(device.site, "UTC"))

    def severity(self, rule: Rule, state: RuleState) -> str | None:
        """§4 levels: the highest firing (or clearing) one; None where none is."""
        found = [severity or rule.severity or "warning" for severity, m in state.machines.items() if m.fires]
        return max(found, key=SEVERITIES.index, default=None)

    def compare(self, rule: Rule, device: Device, at: Micros) -> None:
        """§4 levels: one reading or timer gives at most one transition."""
        state = self.state(rule, device)
        after = self.severity(rule, state)
        if not state.fires and after is not None:
            began = min(m.breach_start for m in state.machines.values() if m.fires)
            self.open(rule, device, at, began, after)
        elif state.fires and after is None:
            self.close(rule, device, at, "recovered")
        elif state.fires and rule.levels and after != state.alert.severity:
            higher = SEVERITIES.index(after) > SEVERITIES.index(state.alert.severity)
            state.alert.severity = after
            self.tell(rule, device, at, "escalated" if higher else "deescalated")

    def take_state(self, rule: Rule, device: Device, at: Micros) -> None:
        """§4 flap. The reading's own transition came first, with the flag as it was."""
        state = self.state(rule, device)
        state.evaluated.append(state.fires)
        flapping = flaps(state.evaluated, state.flapping, rule.flap)
        if flapping != state.flapping and state.alert is not None:
            state.flapping = flapping
            self.tell(rule, device, at, "flapping" if flapping else "settled")

    # §4 Control records

    def control_time(self, at: Micros, device: Device) -> Micros:
        """The later of theirs and the device's clock."""
        return at if device.clock is None else max(at, device.clock)

    def retire(self, at: Micros, key: tuple[str, str]) -> None:
        """§7: a retired device that reports again is a new device."""
        if key not in self.devices:
            return
        device = self.devices[key]
        for rule in self.specs[device.type].alerts:
            if self.state(rule, device).fires:
                self.close(rule, device, self.control_time(at, device), "device_retired")
            del self.states[device.type, device.id, rule.id]
        del self.devices[key]

    def resolve(self, at: Micros, key: tuple[str, str], rule_id: str) -> None:
        """§7: on an alert that is not firing it does nothing."""
        rule = next((rule for rule in self.specs[key[0]].alerts if rule.id == rule_id), None)
        if key not in self.devices or rule is None:
            return
        device = self.devices[key]
        state = self.state(rule, device)
        if state.fires:
            self.close(rule, device, self.control_time(at, device), "manual")
            state.quiet = rule.no_data is None
            for machine in state.machines.values():
                machine.reset()

    def change(self, at: Micros, spec: DeviceType) -> None:
        """A rule that is gone resolves its alerts; a changed rule keeps the state of its id; §7: a change among when,
        levels and no_data is a removal and a new rule; a new no_data counts from the last reading before it."""
        old = self.specs[spec.type]
        new_kinds = {rule.id: kind(rule) for rule in spec.alerts}
        gone = [rule for rule in old.alerts if new_kinds.get(rule.id) != kind(rule)]
        fresh = [rule for rule in spec.alerts if rule.id not in {r.id for r in old.alerts if r not in gone}]
        devices = sorted((d for d in self.devices.values() if d.type == spec.type), key=lambda d: d.id)
        self.specs[spec.type] = spec
        for device in devices:
            for rule in gone:
                if self.state(rule, device).fires:
                    self.close(rule, device, self.control_time(at, device), "rule_removed")
                del self.states[device.type, device.id, rule.id]
            for rule in spec.alerts:
                self.changed(rule, self.state(rule, device))
            for rule in fresh:
                self.start_no_data(rule, device)

    def changed(self, rule: Rule, state: RuleState) -> None:
        """A level that is gone takes its machine along; the rule's next evaluation tells what severity is left. What
        does not flap any more has no flap history."""
        for severity in set(state.machines) - set(levels(rule)):
            del state.machines[severity]
        if rule.flap is None:
            state.evaluated, state.flapping = [], False

    # §5 Transitions

    def open(self, rule: Rule, device: Device, at: Micros, since: Micros, severity: str) -> None:
        identity = (self.specs[device.type].system, device.type, rule.id, device.id)
        k = sum(alert.identity == identity and alert.starts_at == at for alert in self.alerts)
        alert = Alert(identity, at, since, severity, k)
        self.alerts.append(alert)
        self.state(rule, device).alert = alert
        self.tell(rule, device, at, "firing")

    def close(self, rule: Rule, device: Device, at: Micros, reason: str) -> None:
        self.state(rule, device).alert.open = False
        self.tell(rule, device, at, "resolved", reason)

    def values(self, rule: Rule, device: Device, at: Micros) -> dict[str, float | None]:
        """The rule's own metrics: present values at event time."""
        spec = self.specs[device.type]
        return {metric: present(device, metric, at, spec) for metric in used_metrics(rule, spec)}

    def tell(self, rule: Rule, device: Device, at: Micros, to: str, reason: str | None = None) -> None:
        state, alert = self.state(rule, device), self.state(rule, device).alert
        self.transitions.append(
            {
                "alert": (*alert.identity, alert.starts_at, alert.k), "number": alert.number,
                "rule": rule.id, "device": device.id, "site": device.site, "type": device.type,
                "system": alert.identity[0], "to": to,
                "severity": alert.severity if rule.levels else rule.severity or "warning",
                "reason": reason, "event_time": at, "since": alert.since, "starts_at": alert.starts_at,
                "values": self.values(rule, device, at),
                "spec_version": self.specs[device.type].version, "flapping": state.flapping, "source": self.source,
            }
        )  # fmt: skip
        alert.number += 1


def payload(line: dict[str, Any]) -> str:
    return repr([(key, line[key]) for key in sorted(line) if key != "append"])


def levels(rule: Rule) -> dict[str | None, Any]:
    return dict(rule.levels) if rule.levels else {None: rule}


def kind(rule: Rule) -> str:
    return "levels" if rule.levels else "no_data" if rule.no_data is not None else "when"


def run(specs: list[dict[str, Any]], test: dict[str, Any]) -> list[dict[str, Any]]:
    """The transitions of a rule test (its `registry` and `input`)."""
    oracle = Oracle([load(spec) for spec in specs], test.get("registry", []), test.get("payloads", False))
    for place, line in enumerate(test["input"]):
        oracle.take(line, place)
    return oracle.transitions
