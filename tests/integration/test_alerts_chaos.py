"""The alert service killed twenty times, and the broker restarted: what it said is what the rules say of the log."""

import pytest

from tests.chaos.run import chaos

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
KILLS = 20


def test_kill_9_loses_no_transition_and_doubles_none() -> None:
    result = chaos(KILLS, seed=1, say=lambda _: None, devices=40)
    assert result.differences == []
    assert result.kills == KILLS
    assert result.broker_restarts > 0
    assert result.transitions > 1_000
