"""Who is told that a message was rejected, and how often."""

import json

import pytest

from fleet.channels import Address
from fleet.contract import Reject
from streaming import rejections
from streaming.rejections import Rejections
from tests.unit.test_bridge import SETTINGS

TOPIC = "dt/weather/roof/weather_station/7"
DEVICE = Address("weather", "roof", "weather_station", "7")
REJECT = Reject("wrong_type", "'temperature' must be a number", "weather", "weather_station", 1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(rejections.time, "monotonic", lambda: now[0])
    return now


def taken(told: Rejections) -> dict[Address, dict[str, object]]:
    return {device: json.loads(notice) for device, notice in told._taken()}


def test_the_first_is_told_at_once_and_what_follows_after_a_pause(clock: list[float]) -> None:
    told = Rejections(SETTINGS)
    told.note(REJECT, TOPIC)
    said = {"reason": "wrong_type", "detail": "'temperature' must be a number", "topic": TOPIC, "rejected": 1}
    assert taken(told) == {DEVICE: said}
    for reason in ("wrong_type", "bad_time"):
        told.note(Reject(reason, "", "weather", "weather_station", 1), TOPIC)
    assert taken(told) == {}
    clock[0] += rejections.PAUSE_SECONDS
    assert taken(told) == {DEVICE: {"reason": "bad_time", "detail": "", "topic": TOPIC, "rejected": 2}}
    clock[0] += rejections.PAUSE_SECONDS
    assert taken(told) == {}


def test_a_message_of_one_metric_is_its_senders(clock: list[float]) -> None:
    told = Rejections(SETTINGS)
    told.note(REJECT, f"{TOPIC}/temperature")
    told.note(REJECT, f"{TOPIC}/humidity")
    assert {d: (notice["topic"], notice["rejected"]) for d, notice in taken(told).items()} == {
        DEVICE: (f"{TOPIC}/humidity", 2)
    }


@pytest.mark.parametrize("topic", ["dt/weather/roof", "dt/weather/roof/weather_station/a b", "other/a/b/c/d"])
def test_what_is_no_devices_topic_is_told_to_nobody(clock: list[float], topic: str) -> None:
    told = Rejections(SETTINGS)
    told.note(REJECT, topic)
    assert taken(told) == {}


def test_many_are_told_in_turns(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejections, "AT_ONCE", 3)
    told = Rejections(SETTINGS)
    for number in range(7):
        told.note(REJECT, f"dt/weather/roof/weather_station/{number}")
    assert [len(taken(told)) for _ in range(4)] == [3, 3, 1, 0]


def test_devices_that_are_remembered_are_bounded(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejections, "REMEMBERED", 10)
    told = Rejections(SETTINGS)
    for number in range(100):
        told.note(REJECT, f"dt/weather/roof/weather_station/{number}")
    assert len(told._known) == len(taken(told)) == 10, "who waits is told; others are not"
    told.note(REJECT, TOPIC.replace("/7", "/100"))
    assert len(told._known) == len(taken(told)) == 1, "who waits for nothing is forgotten"
