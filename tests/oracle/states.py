"""RULES §4, States: one machine a level (a rule without levels is one level), and the flap mark.

Times are microseconds. A machine knows its own level's outcomes only, and never looks at values.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise

from fleet.rule import Condition, Flap
from tests.oracle.conditions import Micros, micros

UNLIMITED = None


@dataclass
class Machine:
    """inactive → pending → firing → clearing → inactive."""

    state: str = "inactive"
    breach_start: Micros | None = None
    clear_start: Micros | None = None
    due: Micros | None = None
    """Of the timer of `for` or `keep_firing_for`; None where there is none, or none any more."""
    outcomes: list[tuple[Micros, bool]] = field(default_factory=list)
    """(evaluation time, known outcome of `when`), in the order of the evaluations."""

    @property
    def fires(self) -> bool:
        """§4 levels: the alert's severity is the highest firing (or clearing) one."""
        return self.state in ("firing", "clearing")

    def reset(self) -> None:
        self.state, self.breach_start, self.clear_start, self.due = "inactive", None, None, None

    def breach(self, when: bool | None, condition: Condition) -> bool | None:
        """§1 count: at least n of the last m known outcomes were true; §2: unknown is neither breach nor clear."""
        if when is None or condition.count is None:
            return when
        last = self.outcomes[-condition.count.last :]
        return sum(outcome for _, outcome in last) >= condition.count.needed

    def look(self, at: Micros, when: bool | None, condition: Condition, max_gap: Micros | None) -> bool | None:
        """Takes the outcome of `when`: §3 Hold's gap between two known outcomes, §1 count. Returns the breach."""
        if when is not None:
            gap = at - self.outcomes[-1][0] if self.outcomes else 0
            if self.state == "pending" and max_gap is not UNLIMITED and gap > max_gap:
                self.reset()
            self.outcomes.append((at, when))
        return self.breach(when, condition)

    def step(self, at: Micros, breach: bool | None, clear: bool | None, condition: Condition) -> Micros | None:
        """§4, from one evaluation to the next state. Returns the event time of a change between firing and not firing,
        None without such a change. `clear` is that of the condition, or without its own expression the breach's no."""
        hold = micros(condition.for_)
        keep = micros(condition.keep_firing_for)
        if self.state == "pending" and breach is False:
            self.reset()
        elif self.state == "inactive" and breach:
            self.state, self.breach_start = "pending", at
        if self.state == "pending":
            self.due = self.breach_start + hold  # also with a changed `for`
            if breach and self.due <= at:
                fired = self.due
                self.state, self.due = "firing", None
                return fired
            return None
        if self.state == "firing" and breach is not True and clear:
            self.state, self.clear_start, self.due = "clearing", at, at + keep
            if keep == 0:
                self.reset()
                return at
            return None
        if self.state == "clearing":
            if breach or clear is False:
                self.state, self.clear_start, self.due = "firing", None, None
                return None
            lost = self.due is None
            due = self.clear_start + keep
            if clear and due <= at:
                self.reset()
                return at if lost else due
            if not lost:
                self.due = due  # also with a changed `keep_firing_for`
        return None

    def act(self, max_gap: Micros | None) -> bool:
        """§3 Timers and Hold: the timer's due time has come. False where it does not act and is gone: then a pending
        breach goes with it, and a clearing keeps its start."""
        if max_gap is not UNLIMITED and self.due - self.outcomes[-1][0] > max_gap:
            self.due = None
            if self.state == "pending":
                self.reset()
            return False
        if self.state == "pending":
            self.state, self.due = "firing", None
        else:
            self.reset()
        return True


PLACES = 20
WEIGHTS = [0.8 + 0.4 * place / (PLACES - 1) for place in range(PLACES)]
TOLERANCE = 1e-9


def flap_ratio(states: list[bool]) -> float:
    """§4 flap: r = Σ wᵢ·changedᵢ / 20, the newest change at the last place, places not yet filled 0."""
    changed = [a != b for a, b in pairwise(states)][-PLACES:]
    changed = [False] * (PLACES - len(changed)) + changed
    return sum(weight for weight, change in zip(WEIGHTS, changed, strict=True) if change) / PLACES


def flaps(states: list[bool], flapping: bool, flap: Flap) -> bool:
    """Whether the alert flaps after the newest state, given whether it did before."""
    ratio = flap_ratio(states)
    if not flapping:
        return ratio >= flap.high - TOLERANCE
    return not ratio < flap.low - TOLERANCE


def max_gap_of(max_gap: timedelta | None, cadence: timedelta | str) -> Micros | None:
    """§1 max_gap: 3 × cadence; unlimited where the cadence is `event`."""
    if max_gap is not None:
        return micros(max_gap)
    return UNLIMITED if cadence == "event" else micros(3 * cadence)
