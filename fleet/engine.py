"""The rule engine of one Kafka partition: its records in order, transitions out. What it means is RULES.md.

No clock, no I/O. The state is a function of the records, so that a log replayed gives the same transitions, with the
same ids. Modules around it: fleet.ruleset (a type's rules, compiled), fleet.alert_state (the machine), fleet.timer,
fleet.control, fleet.spec_change, fleet.snapshot.

A reading does two things, apart, so that a batch can be filtered by columns between them:
1. `_take`: duplicates (`recent`, `newest`), the type's `highest`, `appended`, `watermark`; if in order, the device's
   due timers, `clock`, `heard`, `lag`, `site`, present `values` and `times`, and where rules keep more: `windows`,
   `previous`, `totals`. Every reading must do this, whatever its rules say.
2. `_evaluate_own`, `_evaluate_lookers`, `_run_timers`: rules, which may be skipped for a (rule, device) where nothing
   is remembered (`device.alerts[rule.place] is None`), the rule is `plain`, and its condition is not true.
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleet import alert_state, timer
from fleet.alert_state import LONG_AGO, NEVER, Alert, Machine
from fleet.control import Control, Device, Resolve, Retire, Spec
from fleet.control import Site as SiteChange
from fleet.device_state import RECENT, DeviceState, Plan, TypeState
from fleet.evaluation import Value
from fleet.local_time import LocalTime
from fleet.reading import Reading
from fleet.ruleset import LARGEST, SEVERITIES, CompiledRule, RuleSet
from fleet.site import DEFAULT_SITE, Site
from fleet.spec import RuledType
from fleet.template import render
from fleet.transition import Transition, alert_id

NOTHING: tuple[Transition, ...] = ()
MAX_PLANS = 4096
"""Kept per type; metrics come in a few sets and orders. Beyond it a plan is made for each reading."""


@dataclass
class Counts:
    readings: int = 0
    duplicates: int = 0
    out_of_order: int = 0
    late: int = 0
    """Of those out of order, the ones too old for windows."""
    unreadable: int = 0
    """Of a type that there is no spec for, or of an impossible time."""
    evaluations: int = 0
    errors: "Counter[tuple[str, str]]" = field(default_factory=Counter)
    """(type, rule) → what raised inside it, and was taken as unknown."""


class Engine:
    def __init__(self, partition: int = 0, specs: Iterable[RuledType] = ()):
        self.partition = partition
        self.offset = -1
        """Of the last record taken."""
        self.counts = Counts()
        self.types: dict[str, TypeState] = {}
        self.sites: dict[str, Site] = {}
        self.revisions: dict[tuple[str, ...], int] = {}
        """Of the registry: the last one of each subject."""
        self.floor = LONG_AGO
        """A rule test's `watermark`: also of types to come."""
        self.lookers: dict[tuple[str, str], list[tuple[TypeState, CompiledRule]]] = {}
        """(type, metric) → rules whose site functions look at it."""
        self._detected_at = 0
        self._out: list[Transition] = []
        for spec in specs:
            self.types[spec.type] = TypeState(RuleSet(spec))
        self.index_lookers()

    # Records

    def reading(
        self,
        reading: Reading,
        *,
        offset: int,
        append_us: int | None = None,
        detected_at_us: int = 0,
        digest: int | None = None,
    ) -> Sequence[Transition]:
        """`append_us`: None never holds the watermark back. `digest` stands for `seq` where there is none; without
        both, a reading is no duplicate. A reading without site leaves the device where it is."""
        self._begin(offset, detected_at_us)
        type_ = self.types.get(reading.device_type)
        if type_ is None or not LONG_AGO < reading.event_time_us < NEVER:  # such times no contract lets in
            self.counts.unreadable += 1
            return NOTHING
        names = tuple(reading.values)
        plan = type_.plans.get(names) or self._plan(type_, names)
        device = type_.devices.get(reading.device_id)
        if device is None:
            device = self.add_device(type_, reading.device_id, reading.site)
        if self._take(type_, device, plan, reading, append_us, digest):
            self._evaluate_own(type_, device, plan, reading.event_time_us)
            if plan.lookers:
                self._evaluate_lookers(device, plan, reading.event_time_us)
        if type_.heap and type_.heap[0][0] <= type_.watermark:
            self._run_timers((type_,))
        return self._out or NOTHING

    def heartbeat(self, *, offset: int, append_us: int, detected_at_us: int = 0) -> Sequence[Transition]:
        """Moves each type's watermark on by the append time since the type's record, or the heartbeat, before it."""
        self._begin(offset, detected_at_us)
        for type_ in self.types.values():
            passed = append_us - type_.appended
            if type_.watermark != LONG_AGO and type_.appended != LONG_AGO and passed > 0:
                type_.watermark += passed
            elif type_.watermark == LONG_AGO and type_.devices:
                # Devices of the registry, none ever heard: their silence counts by the heartbeats alone.
                type_.watermark = append_us - type_.rules.lateness_us
            type_.appended = max(type_.appended, append_us)
        self._run_timers(self.types.values())
        return self._out or NOTHING

    def advance(self, watermark_us: int, *, offset: int, detected_at_us: int = 0) -> Sequence[Transition]:
        """Every type's watermark is at least this, as rule tests say it."""
        self._begin(offset, detected_at_us)
        self.floor = max(self.floor, watermark_us)
        for type_ in self.types.values():
            type_.watermark = max(type_.watermark, watermark_us)
        self._run_timers(self.types.values())
        return self._out or NOTHING

    def control(
        self, control: Control, *, offset: int, append_us: int | None = None, detected_at_us: int = 0
    ) -> Sequence[Transition]:
        """Moves neither clock nor watermark, and runs no timers. A wrong Spec raises SpecError and changes nothing;
        what names an unknown type, device or rule does nothing. A revision that its subject had is the same again."""
        self._begin(offset, detected_at_us)
        if control.revision:
            if control.revision <= self.revisions.get(control.subject, 0):
                return NOTHING
            self.revisions[control.subject] = control.revision
        match control:
            case Spec():
                from fleet.spec_change import change_spec

                change_spec(self, control)
            case SiteChange():
                self._set_zone(control.site, control.time_zone)
            case Device():
                self._register(control)
            case Retire():
                self._retire(control)
            case Resolve():
                self._resolve(control)
        return self._out or NOTHING

    def snapshot(self) -> bytes:
        from fleet.snapshot import write_snapshot

        return write_snapshot(self)

    @classmethod
    def restore(cls, data: bytes) -> "Engine":
        """Raises SnapshotError where the bytes are of another version, or no snapshot."""
        from fleet.snapshot import read_snapshot

        return read_snapshot(data)

    def _begin(self, offset: int, detected_at_us: int) -> None:
        self.offset = offset
        self._detected_at = detected_at_us
        if self._out:
            self._out = []

    # Devices, sites, plans

    def site(self, name: str) -> Site:
        if name not in self.sites:
            self.sites[name] = Site(name, LocalTime())
        return self.sites[name]

    def add_device(self, type_: TypeState, device_id: str, site: str) -> DeviceState:
        device = DeviceState(device_id, type_, self.site(site or DEFAULT_SITE))
        type_.devices[device_id] = device
        device.site.join(device)
        if device_id in type_.retired:
            device.marks = dict(type_.retired.pop(device_id))
        return device

    def _move(self, device: DeviceState, site: str) -> None:
        device.site.leave(device)
        device.site = self.site(site)
        device.site.join(device)

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

    def _plan(self, type_: TypeState, names: tuple[str, ...]) -> Plan:
        rules, places = type_.rules, type_.rules.places
        known = [name for name in names if name in places.metrics]
        kept = [(places.metrics[n], places.windows.get(n), places.previous.get(n), places.totals.get(n)) for n in known]
        used = [rule for rule in rules.rules if rule.own & set(known)]
        lookers = {
            (other.name, rule.place): (other, rule)
            for name in known
            for other, rule in self.lookers.get((type_.name, name), ())
        }
        plan = Plan(
            slots=[(p, *rules.ranges[p]) if (p := places.metrics.get(n)) is not None else None for n in names],
            kept=[k for k in kept if k[1:] != (None, None, None)],
            rules=used,
            with_silences=[rule for rule in rules.rules if rule in used or rule.no_data_us is not None],
            lookers=[lookers[key] for key in sorted(lookers)],
            key=zlib.crc32("\0".join(sorted(names)).encode()),
        )
        if len(type_.plans) < MAX_PLANS:
            type_.plans[names] = plan
        return plan

    # A reading: what it always changes

    def _take(
        self,
        type_: TypeState,
        device: DeviceState,
        plan: Plan,
        reading: Reading,
        append_us: int | None,
        digest: int | None,
    ) -> bool:
        """Returns whether the reading is in order, so that rules are to be evaluated at its event time."""
        time_us = reading.event_time_us
        self.counts.readings += 1
        said = digest if reading.seq is None else reading.seq
        identity = None if said is None else (time_us, said, plan.key, reading.seq is None)
        if not self._is_new(device, time_us, identity):
            self.counts.duplicates += 1
            return False
        if time_us > type_.highest:
            type_.highest = time_us
        bound = type_.highest
        if append_us is not None:
            if append_us > type_.appended:
                type_.appended = append_us
            bound = min(bound, type_.appended)
        watermark = bound - type_.rules.lateness_us
        if watermark > type_.watermark:
            type_.watermark = watermark
        else:
            watermark = type_.watermark
        if time_us < device.clock:
            self.counts.out_of_order += 1
            if time_us < watermark:
                self.counts.late += 1
            else:
                self._keep_out_of_order(device, plan, reading)
            return False
        if time_us >= device.next_due:
            for due, place in timer.due_by(device, time_us):
                self._act(device, type_.rules.rules[place], due)
            timer.rearm(device)
        device.clock = device.heard = time_us
        if device.pinned:
            device.pinned = None
        if reading.site and reading.site != device.site.name:
            self._move(device, reading.site)
        elif device.site.memo:
            device.site.memo.clear()
        values, times = device.values, device.times
        for slot, value in zip(plan.slots, reading.values.values(), strict=True):
            if slot is not None:
                place, low, high = slot
                if value.__class__ is not float:
                    value = _number(value)
                values[place] = value if value is not None and low <= value <= high else None
                times[place] = time_us
        if plan.kept:
            self._keep(device, plan, time_us)
        lag = watermark - time_us
        if lag < 0:
            lag = 0
        silence = type_.rules.shortest_silence_us
        if lag != device.lag:
            device.lag = lag
            timer.rearm(device)
        elif silence is not None and device.next_due > time_us + silence:
            device.next_due = time_us + silence
            timer.arm(device)
        return True

    def _is_new(self, device: DeviceState, time_us: int, identity: tuple[int, int, int, bool] | None) -> bool:
        # A hash of ints is the same in every process. What has no identity takes its place among the last ones too.
        key = 0 if identity is None else hash(identity)
        recent = device.recent
        if time_us > device.newest:
            device.newest = time_us
        elif key and key in recent:
            return False
        if len(recent) < RECENT:
            recent.append(key)
        else:
            recent[device.place] = key
            device.place = (device.place + 1) % RECENT
        return True

    def _keep(self, device: DeviceState, plan: Plan, time_us: int) -> None:
        lengths = list(device.type.rules.windows.values())
        for place, window, previous, total in plan.kept:
            value = device.values[place]
            if value is None:
                continue
            if window is not None:
                device.windows[window].add(time_us, value, device.clock - lengths[window])
            if previous is not None:
                last = previous + len(device.previous) // 2
                device.previous[previous] = device.previous[last]
                device.previous[last] = value
            if total is not None:
                device.totals[total].add(time_us, value, device.site.local)

    def _keep_out_of_order(self, device: DeviceState, plan: Plan, reading: Reading) -> None:
        lengths = list(device.type.rules.windows.values())
        carried = {
            slot[0]: (slot, value) for slot, value in zip(plan.slots, reading.values.values(), strict=True) if slot
        }
        for place, window, _, _ in plan.kept:
            (_, low, high), value = carried[place]
            number = _number(value)
            if window is not None and number is not None and low <= number <= high:
                device.windows[window].add(reading.event_time_us, number, device.clock - lengths[window])

    # A reading: its rules

    def _evaluate_own(self, type_: TypeState, device: DeviceState, plan: Plan, time_us: int) -> None:
        rules = plan.with_silences if device.silences else plan.rules
        self.counts.evaluations += len(plan.rules)
        values, times, alerts = device.values, device.times, device.alerts
        oldest = time_us - type_.rules.stale_us
        beyond = device.evaluated
        for rule in rules:
            when = rule.when
            if when is not None and alerts[rule.place] is None and not beyond:
                try:
                    if when(values, times, oldest, time_us, device) is not True:
                        continue
                except Exception:
                    self._failed(device, rule)
                    continue
            self._evaluate(device, rule, time_us)

    def _evaluate_lookers(self, device: DeviceState, plan: Plan, time_us: int) -> None:
        """Rules of the site that look at what the reading carries, by device id, then rule."""
        pairs = [
            (other.id, type_.name, rule.place, other, rule)
            for type_, rule in plan.lookers
            for other in device.site.devices.get(type_.name, ())
            if not (other is device and rule in plan.rules)
        ]
        self.counts.evaluations += len(pairs)
        for _, _, _, other, rule in sorted(pairs, key=lambda pair: pair[:3]):
            self._evaluate(other, rule, time_us)

    def _evaluate(self, device: DeviceState, rule: CompiledRule, time_us: int) -> None:
        """One rule for one device, at the latest of the reading's time, the device's clock, its last evaluation."""
        if rule.no_data_us is not None:
            self._heard_again(device, rule, time_us)
            return
        if rule.looked_at:
            time_us = self._site_time(device, rule, time_us)
        alert = device.alerts[rule.place]
        if alert is None:
            alert = Alert([Machine() for _ in rule.levels])
        known = in_breach = False
        changed_at = LONG_AGO
        for level, machine in zip(rule.levels, alert.machines, strict=True):
            outcome = self._answer(device, rule, level.when, time_us)
            breach = alert_state.observe(machine, level, outcome, time_us, rule.max_gap_us)
            known |= breach is not None
            in_breach |= breach is True
            clear: bool | None = None if breach is None else not breach
            if level.clear is not None and machine.state >= alert_state.FIRING and breach is not True:
                clear = self._answer(device, rule, level.clear, time_us)
            at = alert_state.advance(machine, level, breach, clear, time_us, alert.quiet)
            if at is not None:
                changed_at = max(changed_at, at)
            if machine.due < device.next_due:
                device.next_due = machine.due
                timer.arm(device)
        if alert.quiet and known and not in_breach:
            alert.quiet = False
        self._settle(device, rule, alert, time_us if changed_at == LONG_AGO else changed_at, time_us)
        if rule.flap is not None and known:
            turn = alert_state.flap_turn(alert, rule.flap)
            if turn is not None:
                self._tell(device, rule, alert, turn, time_us, time_us)
        device.alerts[rule.place] = None if alert.forgettable(rule.flap is not None) else alert

    def _site_time(self, device: DeviceState, rule: CompiledRule, time_us: int) -> int:
        evaluated = device.evaluated.get(rule.place, LONG_AGO) if device.evaluated else LONG_AGO
        time_us = max(time_us, device.clock, evaluated)
        if time_us >= device.next_due:
            for due, place in timer.due_by(device, time_us):
                if place == rule.place:
                    self._act(device, rule, due)
        if time_us > device.clock:
            device.evaluated = {**(device.evaluated or {}), rule.place: time_us}
        elif evaluated != LONG_AGO:
            assert device.evaluated is not None
            del device.evaluated[rule.place]
        return time_us

    def _answer(self, device: DeviceState, rule: CompiledRule, function: Value, time_us: int) -> Any:
        try:
            return function(device.values, device.times, time_us - device.type.rules.stale_us, time_us, device)
        except Exception:
            self._failed(device, rule)
            return None

    def _failed(self, device: DeviceState, rule: CompiledRule) -> None:
        self.counts.errors[device.type.name, rule.id] += 1

    def _heard_again(self, device: DeviceState, rule: CompiledRule, time_us: int) -> None:
        alert = device.alerts[rule.place]
        if alert is not None:
            device.alerts[rule.place] = None
            device.silences -= 1
            if alert.rank >= 0:
                alert.rank = -1
                self._tell(device, rule, alert, "resolved", time_us, time_us, "recovered")
            timer.rearm(device)

    # Timers

    def _run_timers(self, types: Iterable[TypeState]) -> None:
        acting, looked_at = timer.reached(types)
        for (due, _, _, place), device in acting:
            self._act(device, device.type.rules.rules[place], due)
        for device in looked_at:
            timer.rearm(device)

    def _act(self, device: DeviceState, rule: CompiledRule, due_us: int) -> None:
        """All timers of one alert that are due at that time."""
        if rule.no_data_us is not None:
            alert = device.alerts[rule.place] = Alert([], rank=0)
            device.silences += 1
            device.clock = max(device.clock, due_us)
            self._open(device, rule, alert, device.silent_since(), due_us, due_us)
            return
        known = device.alerts[rule.place]
        if known is None:
            return
        acted = False
        for machine in known.machines:
            if machine.due == due_us:
                acted |= alert_state.expire(machine, due_us, rule.max_gap_us)
        if acted:
            device.clock = max(device.clock, due_us)
            self._settle(device, rule, known, due_us, due_us)
        if known.forgettable(rule.flap is not None):
            device.alerts[rule.place] = None

    # Transitions

    def _settle(self, device: DeviceState, rule: CompiledRule, alert: Alert, event_us: int, now_us: int) -> None:
        """Tells what the machines' states make of the alert: at most one transition."""
        firing = [
            (level.rank, machine.since)
            for level, machine in zip(rule.levels, alert.machines, strict=True)
            if machine.state >= alert_state.FIRING
        ]
        rank = max((r for r, _ in firing), default=-1)
        before, alert.rank = alert.rank, rank
        if rank == before:
            return
        if before < 0:
            self._open(device, rule, alert, min(since for _, since in firing), event_us, now_us)
        elif rank < 0:
            self._tell(device, rule, alert, "resolved", event_us, now_us, "recovered")
        else:
            alert.shown_rank = rank
            self._tell(device, rule, alert, "escalated" if rank > before else "deescalated", event_us, now_us)

    def _open(
        self, device: DeviceState, rule: CompiledRule, alert: Alert, since_us: int, starts_at_us: int, now_us: int
    ) -> None:
        start, k, top = (device.marks or {}).get(rule.id, (LONG_AGO, -1, -1))
        # Only a device that was retired, and came back with its old readings, starts an alert before an earlier one.
        k = k + 1 if starts_at_us == start else 0 if starts_at_us > start else top + 1
        device.marks = {**(device.marks or {}), rule.id: (max(start, starts_at_us), k, max(top, k))}
        spec = device.type.rules.spec
        alert.alert_id = alert_id(spec.system, spec.type, rule.id, device.id, starts_at_us, k)
        alert.since, alert.starts_at, alert.number, alert.shown_rank = since_us, starts_at_us, 0, alert.rank
        alert.capped = device.type.active.get(rule.id, 0) >= spec.max_active_alerts
        device.type.count(rule, alert, 1)
        self._tell(device, rule, alert, "firing", starts_at_us, now_us)

    def _tell(
        self,
        device: DeviceState,
        rule: CompiledRule,
        alert: Alert,
        to: str,
        event_us: int,
        now_us: int,
        reason: str | None = None,
        version: int | None = None,
    ) -> None:
        """`now_us`: when values are looked at; the event's time, but where a new spec has shortened a wait."""
        alert.number += 1
        if to == "resolved":
            device.type.count(rule, alert, -1)
        spec = device.type.rules.spec
        values = {name: device.fresh(place, now_us) for name, place in rule.metrics}
        title, annotations, labels = self._texts(device, rule, now_us)
        self._out.append(
            Transition(
                transition_id=f"{alert.alert_id}-{alert.number}",
                alert_id=alert.alert_id,
                rule=rule.id,
                device=device.id,
                site=device.site.name,
                type=spec.type,
                system=spec.system,
                to=to,
                severity=rule.severity or SEVERITIES[alert.shown_rank],
                reason=reason,
                event_time_us=event_us,
                detected_at_us=self._detected_at,
                since_us=alert.since,
                starts_at_us=alert.starts_at,
                values=values,
                spec_version=version or spec.version,
                flapping=alert.flapping,
                capped=alert.capped,
                partition=self.partition,
                offset=self.offset,
                title=title,
                annotations=annotations,
                labels=labels,
            )
        )

    def _texts(
        self, device: DeviceState, rule: CompiledRule, now_us: int
    ) -> tuple[str, dict[str, str], dict[str, str]]:
        metrics = device.type.rules.places.metrics
        scope: dict[str, str | float | None] = {name: device.fresh(place, now_us) for name, place in metrics.items()}
        value = None if rule.value is None else self._answer(device, rule, rule.value, now_us)
        scope |= {"device": device.id, "site": device.site.name, "value": value}
        return (
            render(rule.title, scope),
            {key: render(text, scope) for key, text in rule.spec.annotations.items()},
            {key: render(text, scope) for key, text in rule.spec.labels.items()},
        )

    # Control records

    def _set_zone(self, name: str, time_zone: str) -> None:
        site = self.site(name)
        if site.local.name != time_zone:
            site.local = LocalTime(time_zone)
            site.memo.clear()

    def _register(self, control: Device) -> None:
        type_ = self.types.get(control.type)
        if type_ is None:
            self.counts.unreadable += 1
            return
        if control.site:
            self._set_zone(control.site, control.time_zone)
        device = type_.devices.get(control.device)
        if device is None:
            device = self.add_device(type_, control.device, control.site)
        elif control.site and control.site != device.site.name:
            self._move(device, control.site)
        if device.registered == LONG_AGO:
            device.registered = control.registered_at * 1000
        device.own_params = dict(control.params) or None
        device.params = type_.rules.params_of(device.own_params)
        timer.rearm(device)

    def _retire(self, control: Retire) -> None:
        type_ = self.types.get(control.type)
        device = type_.devices.get(control.device) if type_ else None
        if type_ is None or device is None:
            return
        for rule, alert in zip(type_.rules.rules, device.alerts, strict=True):
            if alert is not None:
                self.end_alert(device, rule, alert, control.at_us, "device_retired")
        device.site.leave(device)
        del type_.devices[device.id]
        if device.marks:
            type_.retired[device.id] = device.marks

    def _resolve(self, control: Resolve) -> None:
        type_ = self.types.get(control.type)
        device = type_.devices.get(control.device) if type_ else None
        rule = type_.rules.rule(control.rule) if type_ else None
        alert = device.alerts[rule.place] if device and rule else None
        if device and rule and alert and alert.rank >= 0:
            self.end_alert(device, rule, alert, control.at_us, "manual")
            alert.quiet = True
            timer.rearm(device)

    def end_alert(
        self, device: DeviceState, rule: CompiledRule, alert: Alert, at_us: int, reason: str, version: int | None = None
    ) -> None:
        """By a control record; an alert that does not fire ends without a trace. `version`: of a new spec."""
        for machine in alert.machines:
            machine.reset()
        if alert.rank >= 0:
            alert.rank = -1
            at_us = max(at_us, device.clock)
            self._tell(device, rule, alert, "resolved", at_us, at_us, reason, version)


def _number(value: object) -> float | None:
    """Anything a reading can hold as a finite number, or None."""
    if not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if -LARGEST <= number <= LARGEST else None
