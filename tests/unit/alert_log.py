"""Transitions for tests of what is told: `Told` is a board with a policy and a clock, and remembers what came of it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from fleet.board import Board, Changes
from fleet.hindrance import Circumstances
from fleet.receivers import ReceiversFile
from fleet.receivers_file import load_receivers
from fleet.silence import Silence
from fleet.standing import AlertSoFar
from fleet.transition import Transition

START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
RECEIVERS = {
    "ops": "{kind: webhook, url: 'http://ops'}",
    "boss": "{kind: webhook, url: 'http://boss'}",
    "panel": "{kind: mqtt}",
}


def policy_of(text: str, without: str = "") -> ReceiversFile:
    """`without`: the receiver that the file has not."""
    lines = [f"  {name}: {options}" for name, options in RECEIVERS.items() if name != without]
    return load_receivers("\n".join(["receivers:", *lines, text]), "receivers.yaml", {})


def transition(
    alert: str = "a", number: int = 1, to: str = "firing", at: datetime = START, severity: str = "warning",
    rule: str = "hot", device: str = "s1", site: str = "roof", flapping: bool = False, capped: bool = False,
    event_time: datetime | None = None, labels: dict[str, str] | None = None,
) -> Transition:  # fmt: skip
    us = round(at.timestamp() * 1_000_000)
    event_us = round((event_time or at).timestamp() * 1_000_000)
    return Transition(
        transition_id=f"{alert}-{number}", alert_id=alert, rule=rule, device=device, site=site, type="sensor",
        system="demo", to=to, severity=severity, reason="recovered" if to == "resolved" else None, values={"t": 36.5},
        spec_version=1, flapping=flapping, title="High Temperature", annotations={}, labels=labels or {}, capped=capped,
        event_time_us=event_us, detected_at_us=us, since_us=event_us, starts_at_us=event_us, partition=0, offset=0,
    )  # fmt: skip


def restarted(board: Board) -> Board:
    """From the rows that are kept of it."""
    rows = msgspec.json.decode(msgspec.json.encode(list(board.alerts.values())), type=list[AlertSoFar])
    return Board(rows, board.groups)


class Told:
    """`lines` has what came of each step: `ops firing a-1@ops`, or `ops firing silenced`."""

    def __init__(self, policy: str = "default: ops", began_at: datetime | None = None):
        self.policy = policy_of(policy)
        self.board, self.now, self.began_at = Board(), START, began_at
        self.silences: Sequence[Silence] = ()
        self.off: frozenset[str] = frozenset()
        self.changes: list[Changes] = []

    def given(self) -> Circumstances:
        return Circumstances(
            now=self.now, policy=self.policy, silences=self.silences, switched_off=self.off,
            inhibiting=self.board.inhibiting, began_at=self.began_at,
        )  # fmt: skip

    def take(self, alert: str = "a", number: int = 1, to: str = "firing", **more: Any) -> list[str]:
        quality, inhibitable = more.pop("quality", False), more.pop("inhibitable", True)
        t = transition(alert, number, to, more.pop("at", self.now), **more)
        self.board.take(t, quality, inhibitable, self.given())
        return self._lines()

    def tick(self, after: timedelta = timedelta(0)) -> list[str]:
        self.now += after
        self.board.tick(self.given())
        for key in self.board.digests_due(self.now):
            self.board.send_digest(key, 400, self.given())
        return self._lines()

    def acknowledge(self, alert: str = "a", by: str = "ann", comment: str = "") -> list[str]:
        problem = self.board.acknowledge(alert, by, comment, self.given())
        return [problem] if problem else self._lines()

    def _lines(self) -> list[str]:
        changes = self.board.taken_down()
        self.changes.append(changes)
        told = [f"{m.receiver} {m.kind} {m.notification_id}" for m in changes.messages]
        return told + [f"{h.hold.receiver} {h.hold.kind} {h.hold.cause}".strip() for h in changes.held]
