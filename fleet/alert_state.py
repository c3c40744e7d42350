"""The state of one rule for one device, and its machine: inactive → pending → firing → clearing → inactive.

No clock and no I/O: an outcome and a time in, a changed state and the event time of the change out. What each step
means is RULES.md §3 (Hold) and §4.
"""

import msgspec

from fleet.rule import Flap
from fleet.ruleset import CompiledLevel

INACTIVE, PENDING, FIRING, CLEARING = range(4)
NEVER = 1 << 62
LONG_AGO = -NEVER

FLAP_PLACES = 20
FLAP_MASK = (1 << FLAP_PLACES) - 1
FLAP_WEIGHTS = [1.2 - 0.4 * age / (FLAP_PLACES - 1) for age in range(FLAP_PLACES)]
"""By age: the newest change counts 1.2, the oldest 0.8; all together 20."""
FLAP_TOLERANCE = 1e-9


class Machine(msgspec.Struct, gc=False):
    """One level of a rule for one device."""

    state: int = INACTIVE
    since: int = 0
    """Start of the breach, in pending and firing."""
    clear_since: int = 0
    due: int = NEVER
    """Of the timer: pending fires, clearing resolves."""
    lapsed: bool = False
    """The timer of clearing is gone, its silence was too long: the next reading at or after it resolves."""
    known_at: int = LONG_AGO
    """The last known outcome of `when`."""
    outcomes: int = 0
    """The last known outcomes for `count`, the newest in the lowest bit; those not yet there are 0, as false ones."""

    def reset(self) -> None:
        self.state, self.due, self.lapsed = INACTIVE, NEVER, False


class Alert(msgspec.Struct, gc=False):
    """A rule for a device, where there is something to remember."""

    machines: list[Machine]
    rank: int = -1
    """Of the highest level that fires, as told; -1: not firing."""
    shown_rank: int = 0
    """The rank that a transition now shows: of a resolved alert, the last one."""
    alert_id: str = ""
    """Of the latest alert; empty before the first."""
    starts_at: int = 0
    since: int = 0
    number: int = 0
    """Transitions of the latest alert so far."""
    quiet: bool = False
    """Resolved by hand: nothing starts until a known outcome finds no level in breach."""
    was_firing: bool | None = None
    changes: int = 0
    """flap: changes between evaluated states, the newest in the lowest bit."""
    flapping: bool = False
    capped: bool = False
    """When the latest alert fired, its rule had as many active in this partition as its type lets people be told of."""

    def forgettable(self, remembers_flaps: bool) -> bool:
        return (
            self.rank < 0
            and not self.quiet
            and not remembers_flaps
            and all(m.state == INACTIVE and not m.outcomes for m in self.machines)
        )


def observe(machine: Machine, level: CompiledLevel, outcome: bool | None, time_us: int, max_gap_us: int) -> bool | None:
    """Takes an outcome of `when`; returns whether the level is in breach, None where that is unknown."""
    if outcome is None:
        return None
    if machine.state == PENDING and time_us - machine.known_at > max_gap_us:
        machine.reset()
    machine.known_at = time_us
    if not level.needed:
        return outcome
    machine.outcomes = (machine.outcomes << 1 | outcome) & level.mask
    return machine.outcomes.bit_count() >= level.needed


def advance(
    machine: Machine, level: CompiledLevel, breach: bool | None, clear: bool | None, time_us: int, quiet: bool
) -> int | None:
    """The machine's step at an evaluation. Returns the event time of firing or resolving, None if it did neither.

    `clear` is looked at where the machine fires and the breach is not true; without an expression of its own it is
    "breach is false".
    """
    if machine.state <= PENDING:
        if not breach:
            if breach is False:
                machine.reset()
            return None
        if machine.state == INACTIVE:
            if quiet:
                return None
            machine.state, machine.since = PENDING, time_us
        due = machine.since + level.for_us
        if due > time_us:
            machine.due = due
            return None
        machine.state, machine.due = FIRING, NEVER
        return due
    if breach or clear is False:
        machine.state, machine.due, machine.lapsed = FIRING, NEVER, False
        return None
    if clear is None:
        return None
    if machine.state == FIRING:
        machine.state, machine.clear_since = CLEARING, time_us
    due, lapsed = machine.clear_since + level.keep_us, machine.lapsed
    if due > time_us:
        machine.due = NEVER if lapsed else due
        return None
    machine.reset()
    return time_us if lapsed else due


def expire(machine: Machine, due_us: int, max_gap_us: int) -> bool:
    """The machine's timer is due. Returns whether it acted: after too long a silence it does not, and is gone."""
    machine.due = NEVER
    if due_us - machine.known_at > max_gap_us:
        if machine.state == PENDING:
            machine.state = INACTIVE
        else:
            machine.lapsed = True
        return False
    machine.state = FIRING if machine.state == PENDING else INACTIVE
    return True


def flap_turn(alert: Alert, flap: Flap) -> str | None:
    """Takes the alert's state after a reading with a known outcome. Returns `flapping` or `settled` where it turned."""
    firing = alert.rank >= 0
    changed = alert.was_firing is not None and alert.was_firing is not firing
    alert.was_firing = firing
    alert.changes = (alert.changes << 1 | changed) & FLAP_MASK
    ratio = sum(w for age, w in enumerate(FLAP_WEIGHTS) if alert.changes >> age & 1) / FLAP_PLACES
    if not alert.alert_id:
        return None
    if not alert.flapping and ratio >= flap.high - FLAP_TOLERANCE:
        alert.flapping = True
        return "flapping"
    if alert.flapping and ratio < flap.low - FLAP_TOLERANCE:
        alert.flapping = False
        return "settled"
    return None
