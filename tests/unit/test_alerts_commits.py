"""When the alert service commits: at once where it keeps up, seldom where it is behind or has nothing to tell."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition

from fleet.settings import CHECKOUT, Settings
from streaming.alerts import COMMIT_SECONDS, QUIET_COMMIT_SECONDS, Alerts

PLACE = TopicPartition("sensor", 0)
NOW = 1_000.0


@pytest.fixture
def alerts(tmp_path: Path) -> Alerts:
    """Evaluated to offset 60, committed to 50 a moment ago, which took 0.01 s; nothing to tell."""
    alerts = Alerts(Settings(home=tmp_path, types_dir=CHECKOUT / "fleet" / "types"))
    shard: Any = SimpleNamespace(position=60)
    alerts._shards[PLACE], alerts._committed[PLACE] = shard, 50
    alerts._committed_at, alerts._commit_took = NOW, 0.01
    return alerts


def told(alerts: Alerts) -> Alerts:
    alerts._unsent.add(PLACE, [SimpleNamespace()])  # type: ignore[list-item]
    return alerts


def test_nothing_new_is_never_due(alerts: Alerts) -> None:
    alerts._committed[PLACE] = 60
    assert alerts._due_in(NOW + 100) == math.inf


def test_offsets_alone_wait(alerts: Alerts) -> None:
    assert alerts._due_in(NOW) == QUIET_COMMIT_SECONDS
    assert alerts._due_in(NOW + QUIET_COMMIT_SECONDS) == 0


def test_what_is_to_be_told_waits_as_long_as_a_commit_takes(alerts: Alerts) -> None:
    assert told(alerts)._due_in(NOW) == pytest.approx(0.01)
    assert alerts._due_in(NOW + 0.02) == 0


def test_a_slow_broker_makes_nobody_wait_longer_than_a_backlog_does(alerts: Alerts) -> None:
    alerts._commit_took = 3.0
    assert told(alerts)._due_in(NOW) == pytest.approx(COMMIT_SECONDS)


def test_one_that_is_behind_gathers(alerts: Alerts) -> None:
    alerts._behind = True
    assert told(alerts)._due_in(NOW + 0.02) == pytest.approx(COMMIT_SECONDS - 0.02)
