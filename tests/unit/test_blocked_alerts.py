"""A partition whose state cannot be computed any more: it waits, and the service says so of itself."""

from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition

from fleet.errors import Unavailable
from fleet.settings import CHECKOUT, Settings
from streaming.alerts import Alerts
from streaming.reporter import Reporter
from tests.unit.test_reporter import CATALOG, Kafka

GONE, WELL = TopicPartition("sensor", 0), TopicPartition("sensor", 1)


class Log:
    """A member of the group. Of GONE the beginning is there no more; `silent` partitions have no answer."""

    def __init__(self) -> None:
        self.consumer, self.settled = self, True
        self.silent: set[TopicPartition] = set()

    def is_settled(self) -> bool:
        return self.settled

    def committed(self, place: TopicPartition) -> int:
        if place in self.silent:
            raise Unavailable("no answer")
        return 50

    def beginning_offsets(self, places: list[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]:
        return {place: 20 if place == GONE else 0 for place in places}

    def end_offsets(self, places: list[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 60)

    def seek(self, *_: object) -> None:
        pass

    resume = pause = seek


class CorruptSnapshots:
    def read(self, place: TopicPartition) -> tuple[list[Any], list[str]]:
        return [], [f"{place} has a snapshot that is torn"]


@pytest.fixture
def alerts(tmp_path: Path) -> Alerts:
    alerts = Alerts(Settings(home=tmp_path, types_dir=CHECKOUT / "fleet" / "types"))
    alerts._reader = CorruptSnapshots()  # type: ignore[assignment]
    return alerts


def test_it_is_counted_and_told(alerts: Alerts) -> None:
    log: Any = Log()
    assert alerts.figures().states["blocked"] == 0
    alerts._follow(log, set(), {GONE, WELL})
    alerts._begin(log)
    assert alerts.figures().states["blocked"] == 1
    assert "sensor-0: no snapshot at an offset from 20" in alerts.problem()
    assert [m.samples[0].value for m in alerts.collect() if m.name == "weir_alerts_blocked"] == [1]
    broker = Kafka()
    Reporter(Settings(), "alerts", CATALOG, alerts.figures).report(broker, broker)
    assert (broker.values()["lag"], broker.values()["blocked"]) == (None, 1)
    alerts._follow(log, {GONE}, set())
    assert alerts.figures().states["blocked"] == 0, "another worker's now"


def test_a_partition_waits_behind_the_others_after_a_failure_and_while_the_group_is_unsettled(alerts: Alerts) -> None:
    log: Any = Log()
    alerts._follow(log, set(), {GONE, WELL})
    log.settled = False
    alerts._begin(log)
    assert list(alerts._waiting) == [GONE, WELL]
    log.settled, log.silent = True, {GONE}
    alerts._begin(log)
    assert list(alerts._waiting) == [WELL, GONE]
    assert "sensor-0: no answer" in alerts.problem()
    alerts._begin(log)
    assert (list(alerts._waiting), list(alerts._shards)) == ([GONE], [WELL])
