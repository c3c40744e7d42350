"""The bridge's promises apart from the brokers: acknowledged in order, only when confirmed, each message once."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from connections.mqtt_frames import Delivery
from fleet.channels import REJECTED, routes
from fleet.dead_letter import decode_dead_letter
from fleet.settings import Settings
from streaming.admission import Admission
from streaming.bridge import BUSY_IN_FLIGHT, BUSY_SECONDS, FEW, UNROUTED_SECONDS, Passage, Worker
from streaming.rejections import Rejections
from streaming.service import Supervised
from tests.unit.test_landing import INTAKE

SETTINGS = Settings(bridge_max_in_flight=100)
ROUTES = {route.name: route for route in routes(INTAKE.catalog)}
WEATHER, CO2 = ROUTES["weather_station"], ROUTES["room_node.co2"]
GOOD = b'{"sensor_id": 7, "temperature": 20, "timestamp": 1732985789}'
CO2_GOOD = b'{"device_id": "s5", "event_time": 1732985789000, "value": 412}'


class Producer:
    """Remembers what was sent; the test says when Kafka confirms."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, bytes | None]] = []
        self.futures: list[Any] = []

    def send(self, topic: str, value: bytes, key: bytes | None = None) -> Any:
        self.sent.append((topic, value, key))
        self.futures.append(SimpleNamespace(is_done=False, exception=None))
        return self.futures[-1]


class Subscriber:
    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self.coming: list[Delivery] = []
        self.has_more = False

    def poll(self, timeout: float) -> list[Delivery]:
        coming, self.coming = self.coming, []
        return coming

    def ack(self, mids: list[int]) -> None:
        self.acknowledged += mids


def passage(route: Any, **settings: Any) -> Passage:
    return Passage(
        Worker(
            SETTINGS.model_copy(update=settings),
            INTAKE.catalog,
            INTAKE,
            Admission(INTAKE.catalog),
            Rejections(SETTINGS),
            route,
        ),
        Subscriber(),
        Producer(),
    )  # type: ignore[arg-type]


@given(st.lists(st.sampled_from(["good", "bad", "qos 0"]), min_size=1, max_size=30), st.randoms())
def test_acknowledged_in_order_of_arrival_and_only_when_confirmed(kinds: list[str], chance: Any) -> None:
    it = passage(CO2)
    topic = "dt/occupancy/room-1/room_node/edge/co2"
    it.take([
        Delivery(topic, b"junk" if kind == "bad" else CO2_GOOD, 0 if kind == "qos 0" else mid)
        for mid, kind in enumerate(kinds, start=1)
    ])  # fmt: skip
    producer, subscriber = it.producer, it.subscriber
    waits = [1 if kind == "bad" else 2 for kind in kinds]  # a reading waits for its topic and for the feature's copy
    assert len(producer.futures) == sum(waits)
    for future in chance.sample(producer.futures, len(producer.futures)):
        future.is_done = True
        it.confirm()
        through, at = [], 0
        for mid, (kind, wait) in enumerate(zip(kinds, waits, strict=True), start=1):
            if not all(f.is_done for f in producer.futures[at : at + wait]):
                break
            at += wait
            through += [] if kind == "qos 0" else [mid]
        assert subscriber.acknowledged == through
    assert it.worker.tallies.in_flight == 0


@pytest.mark.parametrize(
    ("route", "came", "has_more", "pause"),
    [
        (WEATHER, 5, False, None), (WEATHER, BUSY_IN_FLIGHT + 1, False, BUSY_SECONDS),
        (WEATHER, BUSY_IN_FLIGHT + 1, True, None), (WEATHER, FEW, False, None),
        (None, 0, False, None), (None, 1, False, UNROUTED_SECONDS), (None, 1, True, None), (None, FEW, False, None),
    ],
)  # fmt: skip
def test_who_is_busy_lets_more_come(
    route: Any, came: int, has_more: bool, pause: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the socket has more than was read, as it has with many large messages."""
    it, slept = passage(route), list[float]()
    monkeypatch.setattr("streaming.bridge.time.sleep", slept.append)
    it.subscriber.coming = [Delivery("dt/weather/field/weather_station/7", GOOD, mid + 1) for mid in range(came)]
    it.subscriber.has_more = has_more
    it.step()
    assert [pause_ for pause_ in slept if pause_] == ([] if pause is None else [pause])


def test_where_few_may_be_under_way_few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than half of what may be under way is not waited for: it would not come."""
    it, slept = passage(None, bridge_max_in_flight=8), list[float]()
    monkeypatch.setattr("streaming.bridge.time.sleep", slept.append)
    it.subscriber.coming = [Delivery("dt/weather/field/weather_station/7", GOOD, mid + 1) for mid in range(4)]
    it.step()
    assert slept == []


def test_what_kafka_refuses_is_not_acknowledged() -> None:
    it = passage(WEATHER)
    it.take([Delivery("dt/weather/field/weather_station/7", GOOD, mid) for mid in (1, 2, 3)])
    for future, exception in zip(it.producer.futures, (None, RuntimeError("no"), None), strict=True):
        future.is_done, future.exception = True, exception
    with pytest.raises(RuntimeError):
        it.confirm()
    assert 2 not in it.subscriber.acknowledged
    assert 3 not in it.subscriber.acknowledged


def test_records_have_their_keys_and_copies() -> None:
    it = passage(CO2)
    it.take([Delivery("dt/occupancy/room-1/room_node/edge/co2", CO2_GOOD, 1)])
    (readings, value, key), (copy, copied, _) = it.producer.sent
    assert (readings, key, copy, copied) == ("readings.occupancy", b"room-1", "occupancy.co2", value)
    other = passage(WEATHER)
    other.take([Delivery("dt/weather/field/weather_station/7", GOOD, 1)])
    assert other.producer.sent[0][::2] == ("sensor", b"7")


def test_a_defect_in_a_contract_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    it = passage(WEATHER)
    broken = SimpleNamespace(read_message=lambda *_: 1 / 0)
    it.worker.intake = broken  # type: ignore[assignment]
    it.take([Delivery("dt/weather/field/weather_station/7", GOOD, 1)])
    topic, value, _ = it.producer.sent[0]
    letter = decode_dead_letter(value)
    assert (topic, letter.reason, letter.payload) == (REJECTED, "contract_error", GOOD)
    assert "division by zero" in letter.detail


levels = st.sampled_from(
    ["dt", "weather", "occupancy", "weather_station", "room_node", "co2", "radon", "field", "7", "", "a b", "cmd"]
)


@given(st.lists(levels, min_size=1, max_size=7).map("/".join))
def test_each_topic_has_exactly_one_worker(topic: str) -> None:
    """Routes take what MQTT would deliver to them; what is below dt/ and no route's goes to the last worker."""
    takers = [route for route in ROUTES.values() if route.takes(topic)]
    assert takers == [route for route in ROUTES.values() if topic_matches_sub(route.subscription, topic)]
    unrouted = passage(None)
    mine = topic_matches_sub(unrouted.worker.subscription, topic) and unrouted.worker.takes(topic)
    assert len(takers) + mine == (1 if topic_matches_sub("dt/#", topic) else 0)
    if topic_matches_sub("dt/#", topic):
        unrouted.take([Delivery(topic, GOOD, 1)])
        assert len(unrouted.producer.sent) == mine, "rejected once, or passed over"


def test_a_thread_that_fails_begins_again_until_told_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.service.BACKOFF_SECONDS", (0.001,))
    stop, runs = threading.Event(), []

    def work() -> None:
        runs.append(1)
        if len(runs) == 4:
            stop.set()
            return
        raise ValueError("broken")

    supervised = Supervised("worker", work, stop)
    supervised.thread.start()
    supervised.thread.join(10)
    assert not supervised.thread.is_alive()
    assert (len(runs), supervised.restarts) == (4, 3)
    assert supervised.problem == "ValueError: broken"
