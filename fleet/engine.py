"""The rule engine of one Kafka partition: its records in order, transitions out. What it means is RULES.md.

No clock, no I/O. The state is a function of the records, so that a log replayed gives the same transitions, with the
same ids. Around it: fleet.partition (types, devices, sites), fleet.ruleset (rules, compiled), fleet.evaluator (a rule
at work), fleet.alert_state (its machine), fleet.timer, fleet.journal, fleet.spec_change, fleet.snapshot.

A reading does two things, apart, so that a batch can be filtered by columns between them:
1. `_take`: duplicates (`recent`, `newest`), the type's `highest`, `appended`, `watermark`; if in order, the device's
   due timers, `clock`, `heard`, `lag`, `site`, present `values` and `times`, and where rules keep more: `windows`,
   `previous`, `totals`. Every reading must do this, whatever its rules say.
2. `_evaluate_own`, `_evaluate_lookers`, `_run_timers`: rules. One of the reading's own may be skipped where its `when`
   (of CompiledRule: true if any level's is) is not true and nothing is remembered: `device.alerts[rule.place]` is None.
   Its time must be settled all the same where `device.evaluated` has it, and a looker's always (`Evaluator.site_time`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fleet import timer
from fleet.alert_state import LONG_AGO, NEVER
from fleet.control import Control, Device, Resolve, Retire, Site, Spec
from fleet.device_state import RECENT, DeviceState, Plan, TypeState
from fleet.evaluator import Evaluator
from fleet.identity import ANONYMOUS, identity
from fleet.journal import NOTHING, Journal
from fleet.partition import Partition
from fleet.reading import Reading
from fleet.ruleset import LARGEST
from fleet.snapshot import read_snapshot, write_snapshot
from fleet.spec import RuledType
from fleet.spec_change import change_spec
from fleet.transition import Transition


@dataclass
class Counts:
    readings: int = 0
    duplicates: int = 0
    out_of_order: int = 0
    late: int = 0
    """Of those out of order, the ones too old for windows."""
    unreadable: int = 0
    """Of a type that there is no spec for, or of an impossible time."""
    repeated: int = 0
    """Control records that came already."""
    evaluations: int = 0


class Engine:
    def __init__(self, partition: int = 0, specs: Iterable[RuledType] = ()):
        self.known = Partition(specs)
        self.journal = Journal(partition)
        self.evaluator = Evaluator(self.journal)
        self.counts = Counts()
        self.revisions: dict[tuple[str, ...], int] = {}
        """Subject of control records → the last one's revision; of devices that are gone too."""

    @property
    def offset(self) -> int:
        """Of the last record taken; -1 before any."""
        return self.journal.offset

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
        journal = self.journal
        journal.begin(offset, detected_at_us)
        type_ = self.known.types.get(reading.device_type)
        if type_ is None or not LONG_AGO < reading.event_time_us < NEVER:  # such times no contract lets in
            self.counts.unreadable += 1
            return NOTHING
        names = tuple(reading.values)
        plan = type_.plans.get(names) or self.known.plan(type_, names)
        device = type_.find(reading.device_id)
        if device is None:
            device = self.known.add_device(type_, reading.device_id, reading.site)
        before = type_.watermark
        if self._take(type_, device, plan, reading, append_us, digest):
            self._evaluate_own(type_, device, plan, reading.event_time_us)
            if plan.lookers:
                self._evaluate_lookers(device, plan, reading.event_time_us)
        elif type_.watermark == before:
            return NOTHING  # a timer that a control record set overdue waits on: nothing was evaluated or reached
        watermark = type_.watermark
        if (type_.heap and type_.heap[0][0] <= watermark) or type_.wake_at <= watermark:
            self._run_timers((type_,))
        return journal.told or NOTHING

    def heartbeat(self, *, offset: int, append_us: int, detected_at_us: int = 0) -> Sequence[Transition]:
        """Moves each type's watermark on by the append time since the type's record, or the heartbeat, before it."""
        self.journal.begin(offset, detected_at_us)
        for type_ in self.known.types.values():
            passed = append_us - type_.appended
            if type_.watermark == LONG_AGO:
                if type_.devices:  # of the registry, none ever heard: their silence counts by the heartbeats alone
                    type_.watermark = append_us - type_.rules.lateness_us
            elif type_.appended != LONG_AGO and passed > 0:
                type_.watermark += passed
            type_.appended = max(type_.appended, append_us)
        self._run_timers(self.known.types.values())
        return self.journal.told or NOTHING

    def advance(self, watermark_us: int, *, offset: int, detected_at_us: int = 0) -> Sequence[Transition]:
        """Every type's watermark is at least this, as rule tests say it."""
        self.journal.begin(offset, detected_at_us)
        self.known.floor = max(self.known.floor, watermark_us)
        for type_ in self.known.types.values():
            type_.watermark = max(type_.watermark, watermark_us)
        self._run_timers(self.known.types.values())
        return self.journal.told or NOTHING

    def control(
        self, record: Control, *, offset: int, append_us: int | None = None, detected_at_us: int = 0
    ) -> Sequence[Transition]:
        """Moves neither clock nor watermark, and runs no timers. A record that came already, by its revision, is passed
        over (revision 0: a rule test's, always taken); one that names an unknown type, device or rule does nothing. A
        spec or a time zone that cannot be read raises SpecError or ConfigurationError, before anything is changed."""
        self.journal.begin(offset, detected_at_us)
        if 0 < record.revision <= self.revisions.get(record.subject, 0):
            self.counts.repeated += 1
            return NOTHING
        match record:
            case Spec():
                change_spec(self, record)
            case Site():
                self.known.set_zone(record.site, record.time_zone)
            case Device():
                self._register(record)
            case Retire():
                self._retire(record)
            case Resolve():
                self._resolve(record)
        if record.revision:
            self.revisions[record.subject] = record.revision
        return self.journal.told or NOTHING

    def snapshot(self) -> bytes:
        return write_snapshot(self)

    @classmethod
    def restore(cls, data: bytes) -> "Engine":
        """Raises SnapshotError where the bytes are of another version, or no snapshot."""
        return read_snapshot(data)

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
        time_us, seq = reading.event_time_us, reading.seq
        self.counts.readings += 1
        said = digest if seq is None else seq
        key = ANONYMOUS if said is None else identity(time_us, said, plan.key, seq is None)
        if not is_new(device, time_us, key):
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
                _keep_out_of_order(device, plan, reading)
            return False
        if time_us >= device.next_due:
            self._run_due(device, time_us)
        device.clock = device.heard = time_us
        if device.pinned:
            device.pinned = None
        if reading.site and reading.site != device.site.name:
            self.known.move(device, reading.site)
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
            _keep(device, plan, time_us)
        lag = watermark - time_us if watermark > time_us else 0
        silence_us = type_.rules.shortest_silence_us
        if lag != device.lag:
            device.lag = lag
            timer.rearm(device)
        elif silence_us is not None and device.next_due > time_us + silence_us:
            device.next_due = time_us + silence_us
            timer.arm(device)
        return True

    # A reading: its rules

    def _evaluate_own(self, type_: TypeState, device: DeviceState, plan: Plan, time_us: int) -> None:
        self.counts.evaluations += len(plan.rules)
        values, times, alerts = device.values, device.times, device.alerts
        oldest = time_us - type_.rules.stale_us
        evaluated = device.evaluated
        for rule in plan.with_silences if device.silences else plan.rules:
            when = rule.when
            if when is not None and alerts[rule.place] is None:
                at_us, since_us = time_us, oldest
                if evaluated and rule.place in evaluated:
                    at_us = self.evaluator.site_time(device, rule, time_us)
                    since_us = at_us - type_.rules.stale_us
                try:
                    if when(values, times, since_us, at_us, device) is not True:
                        continue
                except Exception:
                    self.journal.errors[type_.name, rule.id] += 1
                    continue
            self.evaluator.evaluate(device, rule, time_us)

    def _evaluate_lookers(self, device: DeviceState, plan: Plan, time_us: int) -> None:
        """Rules of the site that look at what the reading carries, by device id, then rule."""
        pairs = [
            (other.id, type_.name, rule.place, other, rule)
            for type_, rule in plan.lookers
            for other in device.site.devices.get(type_.name, ())
            if not (other is device and rule in plan.rules)
        ]
        self.counts.evaluations += len(pairs)
        for _, type_name, _, other, rule in sorted(pairs, key=lambda pair: pair[:3]):
            when = rule.when
            if when is not None and other.alerts[rule.place] is None:
                at_us = self.evaluator.site_time(other, rule, time_us)
                try:
                    if when(other.values, other.times, at_us - other.type.rules.stale_us, at_us, other) is not True:
                        continue
                except Exception:
                    self.journal.errors[type_name, rule.id] += 1
                    continue
            self.evaluator.evaluate(other, rule, time_us)

    # Timers

    def _run_due(self, device: DeviceState, time_us: int) -> None:
        """The device's own, before its reading."""
        for due, place in timer.due_by(device, time_us):
            self.evaluator.act(device, device.type.rules.rules[place], due)
        timer.rearm(device)

    def run_due(self, device: DeviceState, time_us: int, *, offset: int) -> Sequence[Transition]:
        """The device's own, due at or before a time, as a later reading of it at that offset will let them act."""
        self.journal.begin(offset, 0)
        self._run_due(device, time_us)
        return self.journal.told or NOTHING

    def run_timers(self, type_: TypeState, *, offset: int, detected_at_us: int) -> Sequence[Transition]:
        """Those that its watermark has reached, with the record at that offset."""
        self.journal.begin(offset, detected_at_us)
        self._run_timers((type_,))
        return self.journal.told or NOTHING

    def _run_timers(self, types: Iterable[TypeState]) -> None:
        """Those that the watermark of their type has reached."""
        types = list(types)
        for type_ in types:
            if type_.wake_at <= type_.watermark:
                type_.wake()
        acting, looked_at = timer.reached(types)
        for (due, _, _, place), device in acting:
            self.evaluator.act(device, device.type.rules.rules[place], due)
        for device in looked_at:
            timer.rearm(device)

    # Control records

    def _register(self, record: Device) -> None:
        self.known.set_zone(record.site, record.time_zone)
        type_ = self.known.types.get(record.type)
        if type_ is None:
            return
        device = type_.find(record.device)
        if device is None:
            device = self.known.add_device(type_, record.device, record.site)
        elif record.site != device.site.name:
            self.known.move(device, record.site)
        device.registered = record.registered_at * 1000
        device.own_params = dict(record.params) or None
        device.params = type_.rules.params_of(device.own_params)
        timer.rearm(device)

    def _retire(self, record: Retire) -> None:
        device = self.known.device(record.type, record.device)
        if device is None:
            return
        for rule, alert in zip(device.type.rules.rules, device.alerts, strict=True):
            if alert is not None:
                self.evaluator.end(device, rule, alert, record.at * 1000, "device_retired")
        self.known.remove_device(device)

    def _resolve(self, record: Resolve) -> None:
        device = self.known.device(record.type, record.device)
        rule = device.type.rules.rule(record.rule) if device else None
        alert = device.alerts[rule.place] if device and rule else None
        if device and rule and alert and alert.rank >= 0:
            self.evaluator.end(device, rule, alert, record.at * 1000, "manual")
            alert.quiet = True
            timer.rearm(device)


def is_new(device: DeviceState, time_us: int, key: int) -> bool:
    """Takes a reading's identity among the device's last ones; False for a duplicate."""
    recent = device.recent
    if time_us > device.newest:
        device.newest = time_us
    elif key != ANONYMOUS and key in recent:
        return False
    if len(recent) < RECENT:
        recent.append(key)
    else:
        recent[device.place] = key
        device.place = (device.place + 1) % RECENT
    return True


def _keep(device: DeviceState, plan: Plan, time_us: int) -> None:
    """What rules look at beyond present values."""
    reaches = device.type.rules.reaches_us
    for place, window, previous, total in plan.kept:
        value = device.values[place]
        if value is None:
            continue
        if window is not None:
            device.windows[window].add(time_us, value, time_us - reaches[window])
        if previous is not None:
            last = previous + len(device.previous) // 2
            device.previous[previous] = device.previous[last]
            device.previous[last] = value
        if total is not None:
            device.totals[total].add(time_us, value, device.site.local)


def _keep_out_of_order(device: DeviceState, plan: Plan, reading: Reading) -> None:
    """Into windows alone."""
    reaches = device.type.rules.reaches_us
    window_of = {place: window for place, window, _, _ in plan.kept}
    for slot, value in zip(plan.slots, reading.values.values(), strict=True):
        if slot is not None and (window := window_of.get(slot[0])) is not None:
            number = _number(value)
            if number is not None and slot[1] <= number <= slot[2]:
                device.windows[window].add(reading.event_time_us, number, device.clock - reaches[window])


def _number(value: object) -> float | None:
    """Anything a reading can hold as a finite number, or None."""
    if not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if -LARGEST <= number <= LARGEST else None
