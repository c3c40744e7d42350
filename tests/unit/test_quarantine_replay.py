"""Which partitions of the lake a dead letter of several readings comes back to."""

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from etl import replay as module
from etl.quarantine import Filter
from etl.replay import COLUMNS, Replay
from fleet.catalog import load_catalog
from fleet.requalify import Requalifier
from fleet.settings import CHECKOUT

NOW = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
HOURS = [f"home/room_climate/2026-11-22T{hour:02}" for hour in (10, 9, 8)]


def pack(*ages_seconds: int) -> dict[str, Any]:
    records = [{"n": "humidity", "u": "%RH", "v": 40, "t": -age} for age in ages_seconds]
    return {
        "kafka_topic": "rejected", "kafka_partition": 0, "kafka_offset": 7, "received_at": NOW,
        "mqtt_topic": "http+senml/home/home-1/room_climate/c1", "payload": json.dumps(records).encode(),
        "system": "home", "device_type": "room_climate", "reason": "unknown_device",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ages_seconds", "partitions"),
    [((0,), HOURS[:1]), ((0, 60), HOURS[:1]), ((0, 3600, 7200, 60), HOURS)],
    ids=["one reading", "one hour", "three hours"],
)
def test_a_pack_comes_back_to_all_its_hours(
    monkeypatch: pytest.MonkeyPatch, ages_seconds: tuple[int, ...], partitions: list[str]
) -> None:
    monkeypatch.setattr(module, "_replayed", lambda *_: set())
    nothing: Any = None
    judge = Requalifier(load_catalog(CHECKOUT / "fleet" / "types"), {("room_climate", "c1"): True}, {})
    letter, found = pack(*ages_seconds), Replay()
    ((_, now),) = module._good(nothing, judge, [letter], Filter(), found)
    assert len(now) == len(ages_seconds)
    assert found.partitions == set(partitions)
    at = [SimpleNamespace(topic="readings.home", partition=1, offset=40 + number) for number in range(len(now))]
    row = dict(zip(COLUMNS, module._row(judge, letter, now, at, "r1"), strict=True))
    written = [row["lake_partition"], *str(row["more_partitions"]).strip("{}").split(",")]
    assert sorted(filter(None, written)) == sorted(partitions)
