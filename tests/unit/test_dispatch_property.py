"""Whatever happens to alerts, silences, receivers and people: each transition is told or held back with a cause, and
what still fires at the end is known to everybody it is for."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleet.silence import Matcher, Silence
from tests.unit.alert_log import START, Told, policy_of, restarted

POLICY = """
routes:
  - {match: {severity: critical}, to: [boss], repeat: 7m, continue: true}
  - {match: {site: roof}, to: [ops], repeat: 10m, escalate: {after: 4m, to: boss}}
  - {match: {site: yard}, to: ops, send_resolved: false}
maintenance: [{cron: '*/20 * * * *', duration: 3m, match: {device: s2}}]
storm: {more_than: 3, within: 1m}
"""
OTHER_FILE = """
routes:
  - {match: {severity: warning}, to: panel, continue: true}
  - {match: {site: [cellar, roof]}, to: [boss, ops]}
storm: {more_than: 3, within: 1m}
"""
WITHOUT = {
    "ops": "default: {to: boss, repeat: 5m}\nstorm: {more_than: 3, within: 1m}",
    "boss": "default: {to: ops, escalate: {after: 3m, to: panel}}\nstorm: {more_than: 3, within: 1m}",
}
"""Files that have not that receiver."""
FOREVER = ("stale", "capped", "no_route")
SITES = {"s1": "roof", "s2": "roof", "s3": "yard", "s4": "cellar", "s5": "roof", "s6": "roof", "s7": "roof"}
QUALITY = "stuck"


@dataclass
class Fleet:
    """Alerts as the rules would have them: one at a time of each rule and device."""

    told: Told = field(default_factory=lambda: Told(POLICY))
    sites: dict[str, str] = field(default_factory=lambda: dict(SITES))
    firing: dict[tuple[str, str], tuple[str, int, str]] = field(default_factory=dict)
    flapping: dict[tuple[str, str], bool] = field(default_factory=dict)
    last: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    count: int = 0
    forever: set[tuple[str, str]] = field(default_factory=set)
    """(alert, receiver) that was held back for good."""
    left: dict[str, int] = field(default_factory=dict)
    """After how many steps a receiver left the file last: what had been sent by then may never have reached it."""
    marked: set[str] = field(default_factory=set)
    """Alerts with a transition that was too late or beyond a cap: a changed file brings them to nobody."""

    def transition(self, rule: str, device: str, to: str, severity: str, late: bool, capped: bool) -> None:
        key = (rule, device)
        alert, number, now_severity = self.firing.get(key, ("", 0, ""))
        flaps = self.flapping.get(key, False)
        if to == "firing":
            if alert:
                return
            self.count += 1
            alert, number = f"a{self.count}", 0
        elif to in ("flapping", "settled"):
            if key not in self.last or flaps == (to == "flapping"):
                return
            alert, number = self.last[key]
            self.flapping[key] = flaps = to == "flapping"
            severity = now_severity or severity
        elif not alert or (to in ("escalated", "deescalated") and severity == now_severity):
            return
        elif to == "resolved":
            severity = now_severity
        if late or capped:
            self.marked.add(alert)
        number += 1
        self.last[key] = (alert, number)
        if to == "resolved":
            self.firing.pop(key)
        elif key in self.firing or to == "firing":
            self.firing[key] = (alert, number, severity)
        if alert in {a for a, _, _ in self.firing.values()} and key in self.firing:
            self.firing[key] = (alert, number, severity)
        age = timedelta(hours=2) if late else timedelta(0)
        lines = self.told.take(
            alert, number, to, rule=rule, device=device, site=self.sites[device], severity=severity, flapping=flaps,
            capped=capped, quality=rule == QUALITY, event_time=self.told.now - age,
        )  # fmt: skip
        assert lines, "nothing was said of a transition"
        named = [line.split()[0] for line in lines if not line.endswith("no_route")]
        assert len(named) == len(set(named)), "one decision a receiver"
        so_far = self.told.board.alerts.get(alert)
        if so_far is not None and so_far.alert.active and to != "resolved":
            from fleet.plan import plans_of

            assert set(named) >= set(plans_of(self.told.policy, so_far.alert))
        for line in lines:
            receiver, *_, cause = line.split()
            if cause in FOREVER:
                self.forever.add((alert, receiver))


SEVERITY = st.sampled_from(["info", "warning", "critical"])
STEP = st.one_of(
    st.tuples(
        st.just("transition"), st.sampled_from(["hot", "cold", QUALITY]), st.sampled_from(sorted(SITES)),
        st.sampled_from(["firing", "firing", "resolved", "escalated", "deescalated", "flapping", "settled"]), SEVERITY,
        st.integers(0, 9).map(lambda n: n == 9), st.integers(0, 9).map(lambda n: n == 9),
    ),
    st.tuples(st.just("tick"), st.integers(0, 400)),
    st.tuples(st.just("pass"), st.integers(0, 400)),
    st.tuples(st.just("silence"), st.sampled_from(sorted(SITES)), st.integers(1, 600)),
    st.tuples(st.just("off"), st.sets(st.sampled_from(["ops", "boss"]))),
    st.tuples(st.just("acknowledge"), st.integers(1, 20)),
    st.tuples(st.just("move"), st.sampled_from(sorted(SITES)), st.sampled_from(sorted(set(SITES.values())))),
    st.tuples(st.just("file"), st.booleans(), st.sampled_from(["nobody", "nobody", *WITHOUT])),
    st.tuples(st.just("restart")),
)  # fmt: skip


def tick(told: Told, after: timedelta) -> None:
    """Of each step of escalation whose time has come, everybody is told or held back from."""
    from fleet.dispatch import overdue

    told.now += after
    steps = {so_far.alert.alert_id: overdue(so_far, told.given()) for so_far in told.board.alerts.values()}
    told.tick()
    changes = told.changes[-1]
    named = {(alert.alert_id, m.receiver) for m in changes.messages for alert in m.alerts}
    named |= {(held.alert.alert_id, held.hold.receiver) for held in changes.held}
    assert {(alert, name) for alert, taken in steps.items() for step in taken for name in step.to} <= named
    assert not any(overdue(so_far, told.given()) for so_far in told.board.alerts.values())


def run(fleet: Fleet, step: tuple[Any, ...]) -> None:
    told = fleet.told
    match step:
        case ("transition", *of):
            fleet.transition(*of)
        case ("tick", seconds):
            tick(told, timedelta(seconds=seconds))
        case ("pass", seconds):
            told.now += timedelta(seconds=seconds)
        case ("silence", device, seconds):
            end = told.now + timedelta(seconds=seconds)
            told.silences = [*told.silences, Silence("s", (Matcher("device", device),), told.now, end, "ann", "")]
        case ("off", receivers):
            told.off = frozenset(receivers)
        case ("move", device, site):
            fleet.sites[device] = site
        case ("file", other, "nobody"):
            told.policy = policy_of(OTHER_FILE if other else POLICY)
        case ("file", _, leaves):
            told.policy = policy_of(WITHOUT[leaves], without=leaves)
            tick(told, timedelta(0))
            fleet.left[leaves] = len(told.changes)
        case ("acknowledge", number):
            told.acknowledge(f"a{number}")
        case _:
            told.board = restarted(told.board)


RETURN = (
    ("transition", "hot", "s3", "firing", "info", False, False), ("file", False, "ops"), ("file", False, "nobody"),
)  # fmt: skip
"""A receiver leaves the file and returns."""


@example(list(RETURN))
@given(st.lists(STEP, max_size=60))
@settings(max_examples=100)
def test_nothing_is_dropped_without_a_cause(steps: list[tuple[Any, ...]]) -> None:
    fleet = Fleet()
    told = fleet.told
    for step in steps:
        taken = {i: so_far.steps_taken for i, so_far in told.board.alerts.items()}
        run(fleet, step)
        if step[0] not in ("tick", "file"):
            assert all({*so_far.steps_taken} <= {*taken.get(i, ())} for i, so_far in told.board.alerts.items())
        for i, so_far in told.board.alerts.items():
            off = any(standing.held == "switched_off" for standing in so_far.standings.values())
            if off and so_far.alert.active and i not in fleet.marked:
                assert so_far.first_told_at is not None, "a receiver that is switched off keeps it from all others"
    for (rule, device), flaps in sorted(fleet.flapping.items()):
        if flaps:
            fleet.transition(rule, device, "settled", "warning", False, False)
    for rule, device in sorted(fleet.firing):
        if rule == QUALITY:
            fleet.transition(rule, device, "resolved", "warning", False, False)
    told.off = frozenset()
    told.now = max(told.now, START) + timedelta(minutes=21)
    told.now -= timedelta(minutes=(told.now.minute % 20) - 5)  # outside maintenance, after every silence
    for _ in range(3):
        told.tick(timedelta(seconds=61))

    from fleet.plan import plans_of

    for so_far in told.board.alerts.values():
        assert so_far.alert.active, "what is over is gone"
        for receiver in plans_of(told.policy, so_far.alert):
            standing = so_far.standing(receiver)
            assert standing.held is None
            assert standing.digest is None
            exempt = (so_far.alert.alert_id, receiver) in fleet.forever or so_far.alert.alert_id in fleet.marked
            if so_far.acknowledged is None and not exempt:
                assert standing.told == so_far.alert.severity, (so_far, receiver)
                if (left := fleet.left.get(receiver)) is not None:
                    messages = [m for c in told.changes[left:] for m in c.messages if m.receiver == receiver]
                    assert any(so_far.alert.alert_id in {a.alert_id for a in m.alerts} for m in messages)
    sent = [m.notification_id for changes in told.changes for m in changes.messages]
    assert len(sent) == len(set(sent)), "an id is one message"
    assert not told.board.groups or all(g.due_at is None for g in told.board.groups.values())
