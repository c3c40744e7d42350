"""What `weir quarantine` asks the warehouse for."""

from datetime import UTC, datetime

from etl.quarantine import Filter
from etl.window import Window


def test_nothing_asked_is_all() -> None:
    assert Filter().where() == ("true", {})


def test_each_part_is_a_parameter() -> None:
    start, end = datetime(2026, 11, 22, tzinfo=UTC), datetime(2026, 11, 23, tzinfo=UTC)
    where, given = Filter("weather", "weather_station", "x'; --", "7", "temperature", Window(start, end)).where()
    assert where == (
        "q.system = :system AND q.type = :type AND q.reason = :reason AND q.device_id = :device_id"
        " AND q.metric = :metric AND q.at >= :start AND q.at < :end"
    )
    assert given == {
        "system": "weather", "type": "weather_station", "reason": "x'; --", "device_id": "7", "metric": "temperature",
        "start": start, "end": end,
    }  # fmt: skip
