"""Rules at work: one rule for one device, at an evaluation, at a timer, at a control record."""

from fleet import alert_state, timer
from fleet.alert_state import LONG_AGO, Alert, Machine
from fleet.device_state import DeviceState
from fleet.journal import Journal
from fleet.ruleset import CompiledRule


class Evaluator:
    """Changes the devices' alerts and tells the journal."""

    def __init__(self, journal: Journal):
        self.journal = journal

    def evaluate(self, device: DeviceState, rule: CompiledRule, time_us: int) -> None:
        """At the latest of the reading's time, the device's clock and the rule's last evaluation for it."""
        if rule.no_data_us is not None:
            self._heard_again(device, rule, time_us)
            return
        if rule.looked_at:
            time_us = self.site_time(device, rule, time_us)
        journal, quiet = self.journal, False
        alert = device.alerts[rule.place]
        if alert is None:
            alert = Alert([Machine() for _ in rule.levels])
        else:
            quiet = alert.quiet
        known = in_breach = False
        changed_at = LONG_AGO
        for level, machine in zip(rule.levels, alert.machines, strict=True):
            outcome = journal.ask(device, rule, level.when, time_us)
            breach = alert_state.observe(machine, level, outcome, time_us, rule.max_gap_us)
            known |= breach is not None
            in_breach |= breach is True
            clear: bool | None = None if breach is None else not breach
            if level.clear is not None and machine.state >= alert_state.FIRING and breach is not True:
                clear = journal.ask(device, rule, level.clear, time_us)
            at = alert_state.advance(machine, level, breach, clear, time_us, quiet)
            if at is not None:
                changed_at = max(changed_at, at)
            if machine.due < device.next_due:
                device.next_due = machine.due
                timer.arm(device)
        if quiet and known and not in_breach:
            alert.quiet = False
        self._settle(device, rule, alert, time_us if changed_at == LONG_AGO else changed_at, time_us)
        if rule.flap is not None and known:
            turn = alert_state.flap_turn(alert, rule.flap)
            if turn is not None:
                journal.tell(device, rule, alert, turn, time_us, time_us)
        device.alerts[rule.place] = None if alert.forgettable(rule.flap is not None) else alert

    def site_time(self, device: DeviceState, rule: CompiledRule, time_us: int) -> int:
        """When a rule with a site function is evaluated; its timers due by then act first. Asked again, the same."""
        evaluated = device.evaluated.get(rule.place, LONG_AGO) if device.evaluated else LONG_AGO
        time_us = max(time_us, device.clock, evaluated)
        if time_us >= device.next_due:
            for due, place in timer.due_by(device, time_us):
                if place == rule.place:
                    self.act(device, rule, due)
        if time_us > device.clock:
            device.evaluated = {**(device.evaluated or {}), rule.place: time_us}
        elif evaluated != LONG_AGO:
            assert device.evaluated is not None
            del device.evaluated[rule.place]
        return time_us

    def _heard_again(self, device: DeviceState, rule: CompiledRule, time_us: int) -> None:
        alert = device.alerts[rule.place]
        if alert is None:
            return
        device.alerts[rule.place] = None
        device.silences -= 1
        if alert.rank >= 0:
            alert.rank = -1
            self.journal.tell(device, rule, alert, "resolved", time_us, time_us, "recovered")
        timer.rearm(device)

    def act(self, device: DeviceState, rule: CompiledRule, due_us: int) -> None:
        """All timers of one alert that are due at that time."""
        if rule.no_data_us is not None:
            silent = device.alerts[rule.place] = Alert([], rank=0)
            device.silences += 1
            device.clock = max(device.clock, due_us)
            self.journal.open(device, rule, silent, device.silent_since(), due_us, due_us)
            return
        alert = device.alerts[rule.place]
        if alert is None:
            return
        acted = False
        for machine in alert.machines:
            if machine.due == due_us:
                acted |= alert_state.expire(machine, due_us, rule.max_gap_us)
        if acted:
            device.clock = max(device.clock, due_us)
            self._settle(device, rule, alert, due_us, due_us)
        if alert.forgettable(rule.flap is not None):
            device.alerts[rule.place] = None

    def _settle(self, device: DeviceState, rule: CompiledRule, alert: Alert, event_us: int, now_us: int) -> None:
        """Tells what the machines' states make of the alert: at most one transition."""
        rank = -1
        for level, machine in zip(rule.levels, alert.machines, strict=True):
            if machine.state >= alert_state.FIRING:
                rank = level.rank  # levels stand from the least severe to the most
        before, alert.rank = alert.rank, rank
        if rank == before:
            return
        if before < 0:
            since = min(machine.since for machine in alert.machines if machine.state >= alert_state.FIRING)
            self.journal.open(device, rule, alert, since, event_us, now_us)
        elif rank < 0:
            self.journal.tell(device, rule, alert, "resolved", event_us, now_us, "recovered")
        else:
            alert.shown_rank = rank
            to = "escalated" if rank > before else "deescalated"
            self.journal.tell(device, rule, alert, to, event_us, now_us)

    def end(
        self, device: DeviceState, rule: CompiledRule, alert: Alert, at_us: int, reason: str, version: int | None = None
    ) -> None:
        """By a control record; an alert that does not fire ends without a trace. `version`: of a new spec."""
        for machine in alert.machines:
            machine.reset()
        if alert.rank >= 0:
            alert.rank = -1
            at_us = max(at_us, device.clock)
            self.journal.tell(device, rule, alert, "resolved", at_us, at_us, reason, version)
