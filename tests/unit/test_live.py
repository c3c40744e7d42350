"""The live sink's batch, and a spec that is newer than its own."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from fleet.settings import Settings
from streaming.live import Live, record_of
from tests.unit.test_landing import APPEND_MS, Consumer, Record, ahead, newer_spec, reading, types_dir

__all__ = ["types_dir"]
NOW_US = APPEND_MS * 1000


def live_of(home: Path, types_dir: Path) -> Live:
    """Its database is never asked here."""
    return Live(Settings(home=home, types_dir=types_dir, db_url=SecretStr("postgresql+psycopg2://127.0.0.1:1/none")))


def offsets(live: Live) -> list[Any]:
    return sorted({record_of(row)[2] for row in live._batch.rows})


@pytest.mark.parametrize("when", ["before the record", "while it waits"])
def test_a_newer_spec_than_lives_loses_nothing(tmp_path: Path, types_dir: Path, when: str) -> None:
    live, consumer, place = live_of(tmp_path, types_dir), Consumer(), Consumer.place
    live._positions[place] = 0
    live._backoff.problem = ""
    log = [Record(0, reading(0)), Record(1, b"junk"), Record(2, ahead(2)), Record(3, reading(3)), Record(4, ahead(4))]
    if when == "before the record":
        newer_spec(types_dir)
    live._take(consumer, place, log, 0.0, NOW_US)
    assert (consumer.at, live._positions[place], offsets(live)) == (2, 2, [0])
    assert live._batch.reach == {place: (0, 2)}
    if when == "while it waits":
        assert consumer.paused == {place}
        assert "stands at offset 2: weather_station version 2 is not known" in live.problem()
        live._well(consumer)  # a write of what came before: the partition still waits
        assert consumer.paused == {place}
        live._go_on(consumer, 100.0)
        assert consumer.paused == {place}
        newer_spec(types_dir)
        live._go_on(consumer, 200.0)
    assert (consumer.paused, live.problem()) == (set(), "")
    live._take(consumer, place, log[consumer.at :], 201.0, NOW_US)
    assert (live._positions[place], offsets(live)) == (5, [0, 2, 3, 4])
    assert {row[5] for row in live._batch.rows} == {"humidity", "pressure"}
    assert live._batch.unreadable == 1


def test_a_partition_is_not_read_on_while_the_database_is_away(tmp_path: Path, types_dir: Path) -> None:
    live, consumer, place = live_of(tmp_path, types_dir), Consumer(), Consumer.place
    live._positions[place] = 0
    live._take(consumer, place, [Record(0, ahead(0))], 0.0, NOW_US)
    live._backoff.failed("the database is away")
    newer_spec(types_dir)
    live._go_on(consumer, 100.0)
    assert consumer.paused == {place}
    live._well(consumer)
    assert consumer.paused == set()
