"""What a service reports of itself: differences of what it counts, how far it is behind."""

from typing import Any

import pytest
from kafka import TopicPartition
from kafka.errors import KafkaTimeoutError

from fleet.catalog import load_catalog
from fleet.channels import OWN_TYPE
from fleet.contract import Reject, read_canonical
from fleet.settings import CHECKOUT, SERVICES, Settings
from streaming.reporter import Figures, Reporter, device_id

CATALOG = load_catalog(CHECKOUT / "fleet" / "types")
A, B = TopicPartition("a", 0), TopicPartition("b", 1)


class Kafka:
    """As the two clients that the reporter has."""

    def __init__(self, ends: dict[TopicPartition, int] | None = None) -> None:
        self.ends = ends or {}
        self.is_away = False
        self.sent: list[tuple[str, bytes, bytes]] = []

    def end_offsets(self, places: list[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]:
        return {place: self.ends[place] for place in places}

    def send(self, topic: str, value: bytes, key: bytes) -> "Kafka":
        self.sent.append((topic, value, key))
        return self

    def get(self, timeout: float) -> None:
        if self.is_away:
            self.sent.pop()
            raise KafkaTimeoutError("away")

    def values(self) -> dict[str, Any]:
        topic, value, key = self.sent[-1]
        reading = read_canonical(value)
        assert not isinstance(reading, Reject)
        assert (topic, reading.device_type, key) == ("readings.weir", OWN_TYPE, reading.device_id.encode())
        assert set(reading.values) <= set(CATALOG.type(OWN_TYPE).metrics)
        return reading.values


def test_counts_are_told_once_whatever_fails() -> None:
    figures = Figures({"spec_errors": 0}, {"rejects": 5})
    reporter, broker = Reporter(Settings(), "bridge", CATALOG, lambda: figures), Kafka()
    reporter.report(broker, broker)
    assert broker.values() == {"spec_errors": 0, "rejects": 5, "restarts": 1}
    figures.counts["rejects"] = 7
    broker.is_away = True
    with pytest.raises(KafkaTimeoutError):
        reporter.report(broker, broker)
    broker.is_away = False
    figures.counts |= {"rejects": 8, "restarts": 2}
    reporter.report(broker, broker)
    assert broker.values() == {"spec_errors": 0, "rejects": 3, "restarts": 2}
    reporter.report(broker, broker)
    assert broker.values() == {"spec_errors": 0, "rejects": 0, "restarts": 0}
    assert reporter.values == broker.values()


def test_evaluations_are_told_by_the_second() -> None:
    figures = Figures({}, {"evaluations": 1000})
    reporter, broker = Reporter(Settings(), "alerts", CATALOG, lambda: figures), Kafka()
    reporter._told_at -= 10
    reporter.report(broker, broker)
    assert broker.values()["evaluations_per_second"] == pytest.approx(100, rel=0.05)


@pytest.mark.parametrize(
    ("positions", "ends", "behind"),
    [
        ({A: 5, B: 0}, {A: 7, B: 10}, 12),
        ({A: 7}, {A: 7}, 0),
        ({A: 8}, {A: 7}, 0),
        ({A: 5, B: None}, {A: 7, B: 10}, None),
        ({}, {}, None),
    ],
    ids=["behind", "at the end", "read after the end was asked for", "not begun", "nothing is ours"],
)
def test_lag(positions: dict[TopicPartition, int | None], ends: dict[TopicPartition, int], behind: int | None) -> None:
    reporter, broker = Reporter(Settings(), "live", CATALOG, lambda: Figures(positions=positions)), Kafka(ends)
    reporter.report(broker, broker)
    assert broker.values()["lag"] == behind


def test_ids_are_known_in_advance() -> None:
    assert [device_id(name) for name in SERVICES] == [
        "bridge-1", "gateway-1", "landing-1", "live-1", "alerts-1", "history-1", "dispatcher-1", "commander-1",
    ]  # fmt: skip
    assert device_id("live", "rack 7/b") == "live-rack-7-b"
