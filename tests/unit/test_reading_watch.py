"""From where the commander reads what devices tell."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition

from connections import kafka
from fleet.settings import Settings
from streaming import reading_watch
from streaming.reading_watch import ReadingWatch

PLACE = TopicPartition("readings.home", 0)
NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)


class GrowingLog:
    """A consumer of a log of old records, to which one is appended after each question."""

    def __init__(self) -> None:
        self.end, self.at = 7, -1

    def assign(self, places: list[TopicPartition]) -> None:
        assert places == [PLACE]

    def offsets_for_times(self, times: dict[TopicPartition, int], timeout_ms: int) -> dict[TopicPartition, Any]:
        found = SimpleNamespace(offset=7) if self.end > 7 else None
        self.end += 1
        return {PLACE: found}

    def end_offsets(self, places: list[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]:
        self.end += 1
        return {PLACE: self.end - 1}

    def seek(self, place: TopicPartition, offset: int) -> None:
        self.at = offset

    def position(self, place: TopicPartition) -> int:
        return self.at


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> GrowingLog:
    made = GrowingLog()
    monkeypatch.setattr(kafka, "access_problems", lambda *_: {})
    monkeypatch.setattr(kafka, "consumer", lambda *_: made)
    monkeypatch.setattr(kafka, "partitions", lambda *_: [PLACE])
    monkeypatch.setattr(reading_watch, "Batches", lambda consumer: consumer)
    return made


def test_what_is_appended_meanwhile_is_read(log: GrowingLog) -> None:
    ReadingWatch(Settings(), ["readings.home"]).begin(NOW)
    assert log.at == 7


def test_an_end_is_reached_however_the_log_grows(log: GrowingLog) -> None:
    watch = ReadingWatch(Settings(), ["readings.home"])
    watch.begin(NOW)
    ends = watch.ends()
    assert not watch.has_read(ends)
    watch.ends()
    log.at = ends[PLACE]
    assert watch.has_read(ends)


def test_without_topics_there_is_nothing_to_wait_for() -> None:
    watch = ReadingWatch(Settings(), [])
    assert watch.ends() == {} and watch.has_read({})
