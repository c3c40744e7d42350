"""The alert service killed twenty times: what it said is what the rules say of the log."""

import pytest

from tests.chaos.run import chaos

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
KILLS = 20


@pytest.mark.parametrize(
    "broker_restarts", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["workers", "workers and broker"]
)
def test_kill_9_loses_no_transition_and_doubles_none(broker_restarts: bool) -> None:
    result = chaos(KILLS, seed=1, say=lambda _: None, devices=40, broker_restarts=broker_restarts)
    assert result.differences == []
    assert result.kills == KILLS
    assert result.transitions > 1_000
