"""What the commander writes and when, without servers: a table that takes every move, and readings that keep coming."""

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from fleet.command_state import Command, Move
from fleet.settings import Settings
from streaming import command_table
from streaming.commander import Commander
from tests.unit.test_command_state import command

NOW = datetime.now(UTC)
SETTINGS = Settings(db_url="postgresql+psycopg2://nobody:x@127.0.0.1:1/none")


class FakeWatch:
    """Of one partition. Its position never comes to its end: the log grows before every question."""

    def __init__(self) -> None:
        self.position, self.end, self.asked = 0, 0, 0

    def ends(self) -> dict[str, int]:
        self.end, self.asked = self.end + 100, self.asked + 1
        return {"readings/0": self.end}

    def has_read(self, ends: dict[str, int]) -> bool:
        return all(self.position >= end for end in ends.values())


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """(command, the state that it left, to) of each move in the table, where a move from its state is done."""
    made: list[tuple[str, str, str]] = []

    def moved(_: Any, one: Command, move: Move, __: datetime) -> bool:
        made.append((one.command_id, one.state, move.state))
        return True

    monkeypatch.setattr(command_table, "moved", moved)
    return made


@pytest.fixture
def commander() -> Commander:
    made = Commander(SETTINGS)
    made.warehouse = SimpleNamespace(transaction=lambda: nullcontext())  # type: ignore[assignment]
    return made


def under_way(commander: Commander, name: str, seconds_late: float) -> Command:
    one = command(command_id=name, expires_at=NOW - timedelta(seconds=seconds_late))
    commander._under_way[name] = one
    return one


def test_a_busy_log_keeps_no_command_from_expiring(commander: Commander, written: list[tuple[str, str, str]]) -> None:
    watch: Any = FakeWatch()
    under_way(commander, "c1", 60)
    commander._expire(watch)
    watch.position = 99
    commander._expire(watch)
    assert (written, watch.asked) == ([], 1)  # a reading of before the end may still show it
    watch.position = 100
    under_way(commander, "c2", 60)
    commander._expire(watch)
    assert written == [("c1", "sent", "expired")]
    commander._expire(watch)
    watch.position = 200
    commander._expire(watch)
    assert written[1:] == [("c2", "sent", "expired")]
    commander._expire(watch)
    assert (commander._under_way, watch.asked) == ({}, 2)


def test_what_ends_otherwise_holds_up_nobody(commander: Commander, written: list[tuple[str, str, str]]) -> None:
    watch: Any = FakeWatch()
    first = under_way(commander, "c1", 60)
    commander._expire(watch)
    commander._write([(first, Move("obeyed"))], NOW)
    under_way(commander, "c2", 60)
    commander._expire(watch)
    watch.position = 200
    commander._expire(watch)
    assert written == [("c1", "sent", "obeyed"), ("c2", "sent", "expired")]


@pytest.mark.parametrize(
    ("moves", "ends"),
    [
        (["refused", "delivered"], ["refused"]),
        (["delivered", "refused"], ["delivered", "refused"]),
        (["refused", "refused"], ["refused"]),
    ],
)
def test_what_has_ended_stays_so_within_one_poll(
    commander: Commander, written: list[tuple[str, str, str]], moves: list[Any], ends: list[str]
) -> None:
    one = under_way(commander, "c1", -60)
    commander._write([(one, Move(state)) for state in moves], NOW)
    assert [to for _, _, to in written] == ends
    assert (one.state, commander._under_way) == ("refused", {})
