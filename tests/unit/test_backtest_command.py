"""`weir rules backtest`: how often a rule would have fired, by device and by day, as text and as JSON."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from etl.backtest_partition import History
from fleet.backtest import Episode
from fleet.catalog import load_catalog
from fleet.settings import CHECKOUT
from weir._backtest import Outcome, as_lines, as_object

START = datetime(2026, 11, 22, 22, 30, tzinfo=UTC)


def episode(device: str, after: timedelta, rule: str = "low_humidity") -> Episode:
    at = round((START + after).timestamp() * 1e6)
    return Episode(rule, device, "field", "warning", at, at, at + 60_000_000)


def outcome(*episodes: Episode) -> Outcome:
    spec = load_catalog(CHECKOUT / "fleet" / "types").type("weather_station")
    history = History(tuple(sorted(episodes, key=lambda e: e.fired_us)), 1000, dict.fromkeys("abc", 1.0))
    rules = ("high_temperature", "low_humidity")
    return Outcome(spec, rules, START, START + timedelta(days=9), history, None, None)


EVENING, NIGHT = timedelta(hours=1, minutes=29), timedelta(hours=1, minutes=30)
"""Before and at midnight, UTC."""
FEW = outcome(
    episode("b", EVENING), episode("a", NIGHT), episode("c", NIGHT), episode("a", timedelta(hours=2)),
    episode("c", NIGHT, "high_temperature"),
)  # fmt: skip


def test_by_device_and_day_most_first() -> None:
    found = as_object(FEW)
    assert {rule: list(of.items()) for rule, of in found["by_device"].items()} == {
        "high_temperature": [("c", 1)], "low_humidity": [("a", 2), ("b", 1), ("c", 1)],
    }  # fmt: skip
    assert {rule: list(of.items()) for rule, of in found["by_utc_day"].items()} == {
        "high_temperature": [("2026-11-23", 1)], "low_humidity": [("2026-11-23", 3), ("2026-11-22", 1)],
    }  # fmt: skip


def test_each_device_on_each_day() -> None:
    assert as_object(FEW)["by_device_and_day"] == {
        "high_temperature": {"c": {"2026-11-23": 1}},
        "low_humidity": {"a": {"2026-11-23": 2}, "b": {"2026-11-22": 1}, "c": {"2026-11-23": 1}},
    }


def test_the_device_of_which_least_is_known() -> None:
    found = replace(FEW, history=replace(FEW.history, coverage={"a": 0.9, "c": 0.25, "b": 0.25}))
    assert list(as_object(found)["coverage_by_device"].items()) == [("b", 0.25), ("c", 0.25), ("a", 0.9)]
    assert list(as_lines(found))[1] == "coverage     median device 25.0% of the time, least 25.0% (device b)"
    of_events = replace(found, spec=found.spec.model_copy(update={"cadence": "event"}))
    assert (as_object(of_events)["coverage"], as_object(of_events)["coverage_by_device"]) == (None, {})
    assert "coverage" not in "".join(as_lines(of_events))


def test_as_tables() -> None:
    assert list(as_lines(FEW))[-11:] == [
        "",
        "rule              device  alerts",
        "high_temperature  c       1",
        "low_humidity      a       2",
        "low_humidity      b       1",
        "low_humidity      c       1",
        "",
        "rule              UTC day     alerts",
        "high_temperature  2026-11-23  1",
        "low_humidity      2026-11-23  3",
        "low_humidity      2026-11-22  1",
    ]


def test_the_text_has_the_busiest_and_json_has_all() -> None:
    """Devices d0 to d7 on as many days: d0 with one alert, d7 with eight."""
    found = outcome(*(episode(f"d{n}", timedelta(days=n, minutes=m)) for n in range(8) for m in range(n + 1)))
    assert list(as_object(found)["by_device"]["low_humidity"]) == [f"d{n}" for n in reversed(range(8))]
    devices, days = "\n".join(as_lines(found)).split("\n\n")[1:]
    assert [line.split()[1:] for line in devices.splitlines()[1:]] == [
        ["d7", "8"], ["d6", "7"], ["d5", "6"], ["d4", "5"], ["d3", "4"], ["…", "3", "more", "6"],
    ]  # fmt: skip
    assert [line.split()[1:] for line in days.splitlines()[1:]][-2:] == [["2026-11-25", "4"], ["…", "3", "more", "6"]]


def test_no_alerts_no_tables() -> None:
    found = replace(FEW, history=replace(FEW.history, episodes=()))
    assert as_object(found)["by_device"] == {"high_temperature": {}, "low_humidity": {}}
    assert list(as_lines(found))[2:] == ["high_temperature         no alerts", "low_humidity             no alerts"]
