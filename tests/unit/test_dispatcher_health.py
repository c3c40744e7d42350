"""Whether the dispatcher is well, which its heartbeats say."""

import pytest

from fleet.settings import Settings
from streaming import dispatcher
from streaming.dispatcher import Dispatcher


def test_a_decider_that_is_stuck_is_not_well(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.load(environ={"WEIR_DB_URL": "postgresql+psycopg2://a:b@127.0.0.1:1/c"}, role="dispatcher")
    by = Dispatcher(settings)
    by._backoff.well()
    assert by.problem() == ""
    monkeypatch.setattr(dispatcher, "STUCK_SECONDS", -1.0)
    assert "no look at what is to be decided" in by.problem()
