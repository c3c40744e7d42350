"""The dispatcher's loop: whether it is well, which its heartbeats say, and in what order it begins."""

import logging
import threading
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition

from fleet.board import Board
from fleet.channels import TRANSITIONS
from fleet.settings import Settings
from streaming import dispatcher
from streaming.alerts_watch import AlertsWatch
from streaming.dispatcher import Dispatcher
from streaming.service import Supervised
from streaming.transitions import TransitionLog
from tests.unit.alert_log import policy_of, transition

SETTINGS = Settings.load(environ={"WEIR_DB_URL": "postgresql+psycopg2://a:b@127.0.0.1:1/c"}, role="dispatcher")


def test_a_decider_that_is_stuck_is_not_well(monkeypatch: pytest.MonkeyPatch) -> None:
    by = Dispatcher(SETTINGS)
    by._backoff.well()
    assert by.problem() == ""
    monkeypatch.setattr(dispatcher, "STUCK_SECONDS", -1.0)
    assert "no look at what is to be decided" in by.problem()


@pytest.mark.parametrize(
    ("seen", "now", "well"),
    [([], 59, True), ([], 61, False), ([(5, 40)], 99, True), ([(5, 40)], 101, False), ([(5, 40), (5, 90)], 101, False),
     ([(5, 40), (6, 90)], 101, True)],
    ids=["just begun", "never seen", "seen", "not seen again", "still", "goes on"],
)  # fmt: skip
def test_no_heartbeat_says_that_all_is_well_while_the_alert_service_stands_still(
    seen: list[tuple[int, float]], now: float, well: bool
) -> None:
    clock = [0.0]
    by = Dispatcher(SETTINGS)
    by._backoff.well()
    by.alerts = AlertsWatch(SETTINGS, by.catalog, lambda: clock[0])
    for offset, clock[0] in seen:
        by.alerts.see({0: offset})
    clock[0] = now
    assert by._is_well() is well
    assert by.problem() == "", "the dispatcher itself is well"


def test_without_an_alertmanager_nobody_asks_for_silences_again_and_again() -> None:
    stop, calls = threading.Event(), 0

    def work() -> None:
        nonlocal calls
        calls += 1
        Dispatcher(SETTINGS.model_copy(update={"alertmanager_url": ""})).silences.run(stop)

    watch = Supervised("silences", work, stop)
    watch.thread.start()
    watch.thread.join(0.3)
    assert watch.thread.is_alive() and calls <= 1
    stop.set()
    watch.thread.join(60)
    assert not watch.thread.is_alive() and calls == 1


class FakeLog:
    """Has a backlog of three transitions, the first of which come with the second poll."""

    def __init__(self, slow: bool) -> None:
        self.batches = [0, 2, 0, 1]
        self.slow = slow

    def follow(self, consumer: Any) -> None:
        pass

    def poll(self, timeout_ms: int) -> tuple[list[Any], dict[Any, int]]:
        count = 0 if self.slow else self.batches.pop(0) if self.batches else 0
        return [transition()] * count, {}

    def is_behind(self, consumer: Any) -> bool:
        return self.slow or bool(self.batches)


@pytest.mark.parametrize(
    ("slow", "steps"), [(False, ["decide 2", "decide 1", "look"]), (True, ["look"])], ids=["", "but not for ever"]
)
def test_at_the_start_all_waits_for_what_is_in_the_log(
    monkeypatch: pytest.MonkeyPatch, slow: bool, steps: list[str]
) -> None:
    by, stop, found = Dispatcher(SETTINGS), threading.Event(), list[str]()
    by.policy = policy_of("default: ops")
    by.transitions = FakeLog(slow)  # type: ignore[assignment]
    monkeypatch.setattr(dispatcher, "BACKLOG_SECONDS", 0.05 if slow else 60.0)
    monkeypatch.setattr(by.outbox, "take_over", lambda now: (Board(), datetime.now(UTC)))
    monkeypatch.setattr(by.silences, "begin", lambda: None)
    monkeypatch.setattr(by, "_take_policy", lambda policy: None)
    monkeypatch.setattr(by, "_decide", lambda board, transitions, ends: found.append(f"decide {len(transitions)}"))
    monkeypatch.setattr(by, "_tick", lambda board, timed: (found.append("look"), stop.set()))
    by._follow(None, stop)
    assert found == steps


def test_that_a_receiver_is_off_is_known_before_more_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    by, stop, found = Dispatcher(SETTINGS), threading.Event(), list[str]()
    by.policy = policy_of("default: ops")
    by.transitions = FakeLog(slow=False)  # type: ignore[assignment]
    monkeypatch.setattr(by.outbox, "take_over", lambda now: (Board(), datetime.now(UTC)))
    monkeypatch.setattr(by.silences, "begin", lambda: None)
    monkeypatch.setattr(by, "_take_policy", lambda policy: by._look_again.set())
    monkeypatch.setattr(by, "_decide", lambda board, transitions, ends: (found.append("decide"), stop.set()))
    monkeypatch.setattr(by, "_tick", lambda board, timed: (found.append(f"look {timed}"), by._look_again.clear()))
    by._follow(None, stop)
    assert found == ["look False", "decide"]


@pytest.mark.parametrize(("position", "behind"), [(41, True), (42, False), (43, False)], ids=str)
def test_what_was_in_the_log_at_the_start_is_read(monkeypatch: pytest.MonkeyPatch, position: int, behind: bool) -> None:
    place = TopicPartition(TRANSITIONS, 0)
    consumer = SimpleNamespace(
        assign=lambda places: None, seek=lambda place, at: None, position=lambda place: position,
        beginning_offsets=lambda places, timeout_ms: {place: 0}, end_offsets=lambda places, timeout_ms: {place: 42},
    )  # fmt: skip
    monkeypatch.setattr("streaming.transitions.kafka.partitions", lambda consumer, topics: [place])
    log = TransitionLog(SETTINGS, None, "dispatch_offsets", logging.getLogger())  # type: ignore[arg-type]
    monkeypatch.setattr(log, "_position", lambda place, begin: 40)
    log.follow(consumer)
    assert log.is_behind(consumer) is behind
