"""`weir rules backtest` over a lake small enough to count by hand, with the registry in a real warehouse."""

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import etl.backtest
from connections.compactions import Compactions
from connections.lake import Lake
from connections.spark import session
from connections.warehouse import Warehouse
from etl.backtest import Past
from etl.backtest import backtest as backtested
from etl.backtest_partition import History
from etl.compaction import compact
from etl.lake_index import read_index
from etl.lake_tidy import tidy
from etl.window import Window
from fleet.catalog import load_catalog
from fleet.compaction import GRACE, LEAST_FILES, Compacted, Compaction, Covered
from fleet.control import Device
from fleet.errors import DataError
from fleet.registry import milliseconds
from fleet.settings import CHECKOUT, Settings
from fleet.spec_file import load_spec
from stack.credentials import owner_url
from stack.stack import Stack
from tests.command import Weir, command
from tests.integration.small_lake import T0, SmallLake, still

pytestmark = pytest.mark.stack
WEATHER = CHECKOUT / "fleet" / "types" / "weather_station.yaml"


@pytest.fixture
def lake(tmp_path: Path) -> SmallLake:
    """Device 1 is too hot from 03:10 to 03:20; device 2, of another partition of Kafka, from 03:30 on; 3 never."""
    made = SmallLake(Lake(f"file://{tmp_path}/lake"))
    spec = load_catalog(CHECKOUT / "fleet" / "types").type("weather_station")
    rows = []
    for second in range(0, 3600, 10):
        at = T0 + timedelta(seconds=second)
        hot = {"1": 600 <= second < 1200, "2": second >= 1800, "3": False}
        rows += [
            {"device_id": d, "event_time": at, "seq": second, "temperature": 40.0 if h else 20.0}
            for d, h in hot.items()
        ]
    half = len(rows) // 2
    for part in (rows[:half], rows[half:]):
        made.land(spec, [r for r in part if r["device_id"] != "2"], kafka_partition=0)
        made.land(spec, [r for r in part if r["device_id"] == "2"], kafka_partition=1)
    return made


@pytest.fixture
def weir(stack: Stack, tmp_path: Path) -> Weir:
    return command(WEIR_HOME=stack.layout.home, WEIR_LAKE_URI=f"file://{tmp_path}/lake")


def backtest(weir: Weir, rule: object, *more: str, **times: str) -> dict[str, Any]:
    times = {"from": "2026-11-22T03:00", "to": "2026-11-22T04:00"} | times
    asked = [text for name, value in times.items() for text in (f"--{name}", value)]
    said = weir("rules", "backtest", "--rule", str(rule), *asked, *more, "--json")
    return json.loads(said.stdout)  # type: ignore[no-any-return]


def test_what_a_rule_would_have_said(weir: Weir, lake: SmallLake) -> None:
    found = backtest(weir, "high_temperature")
    told = [(a["device"], a["fired"], a["resolved"]) for a in found["alerts"]]
    assert told == [("1", "2026-11-22T03:10:00Z", "2026-11-22T03:20:00Z"), ("2", "2026-11-22T03:30:00Z", None)]
    assert (found["readings"], found["devices"], found["rules"]) == (1080, 3, ["high_temperature"])
    assert found["coverage"]["least"] > 0.5
    assert found["a_device_and_day"] == {"high_temperature": pytest.approx(2 * 24 / 3)}
    assert found["by_device"] == {"high_temperature": {"1": 1, "2": 1}}
    assert found["by_utc_day"] == {"high_temperature": {"2026-11-22": 2}}


def test_a_device_of_which_nothing_came_has_no_coverage(weir: Weir, lake: SmallLake, stack: Stack) -> None:
    owner = Warehouse(owner_url(stack.secrets, stack.ports), "tests")

    def of_dumb(change: str) -> None:
        with owner.transaction() as connection:
            connection.execute(text(f"{change} WHERE device_id = 'dumb'"))

    def found(change: str) -> tuple[int, float]:
        of_dumb(change)
        said = backtest(weir, "high_temperature")
        return said["devices"], said["coverage"]["least"]

    weir("devices", "add", "weather_station", "dumb", "--site", "roof")
    try:
        assert found("UPDATE devices SET registered_at = '2026-11-22T03:30Z'") == (4, 0.0)
        assert found("UPDATE devices SET retired_at = '2026-11-22T03:40Z'") == (4, 0.0)
        assert found("UPDATE devices SET registered_at = '2026-11-22', retired_at = '2026-11-22T03:00Z'")[0] == 3
        assert found("UPDATE devices SET registered_at = '2026-11-22T04:00Z', retired_at = NULL")[0] == 3
    finally:
        of_dumb("DELETE FROM devices")
        owner.close()


def test_each_change_of_a_rule_with_two_levels(weir: Weir, tmp_path: Path) -> None:
    """Over midnight: one device has two alerts, on two days, the first of which escalates; the other reports less."""
    spec, begin = load_catalog(CHECKOUT / "fleet" / "types").type("weather_station"), T0.replace(hour=23, minute=59)
    made = SmallLake(Lake(f"file://{tmp_path}/lake"))
    said = [20, 36, 50, 43, 36, 20, 20, 36, 20]
    rows = [
        {"device_id": "busy", "event_time": begin + timedelta(seconds=10 * n), "temperature": float(t)}
        for n, t in enumerate(said)
    ]
    made.land(spec, [{**rows[0], "device_id": "calm"}, *rows])
    head, _, _ = WEATHER.read_text().partition("alerts:")
    changed = tmp_path / "changed.yaml"
    changed.write_text(
        f"{head}alerts:\n  - id: heat\n    levels:\n      warning: {{when: temperature > 35}}\n"
        "      critical: {when: temperature > 45, clear: temperature < 42}\n"
    )
    times = {"from": "2026-11-22T23:59", "to": "2026-11-23T00:01"}
    found = backtest(weir, changed, **times)
    assert [(c["at"][11:-1], c["to"], c["severity"]) for c in found["transitions"]] == [
        ("23:59:10", "firing", "warning"), ("23:59:20", "escalated", "critical"),
        ("23:59:40", "deescalated", "warning"), ("23:59:50", "resolved", "warning"),
        ("00:00:10", "firing", "warning"), ("00:00:20", "resolved", "warning"),
    ]  # fmt: skip
    assert {(c["rule"], c["device"], c["site"]) for c in found["transitions"]} == {("heat", "busy", "site-1")}
    assert found["by_device_and_day"] == {"heat": {"busy": {"2026-11-22": 1, "2026-11-23": 1}}}
    assert list(found["coverage_by_device"]) == ["calm", "busy"]
    assert found["coverage"]["least"] == found["coverage_by_device"]["calm"]
    late = backtest(weir, changed, **{**times, "from": "2026-11-22T23:59:30"})
    assert [c["to"] for c in late["transitions"]] == ["deescalated", "resolved", "firing", "resolved"], "in the window"


def test_only_what_fired_within_the_window(weir: Weir, lake: SmallLake) -> None:
    """The warm-up has the rule know that device 1 is in breach already."""
    found = backtest(weir, "high_temperature", **{"from": "2026-11-22T03:15"})
    assert [a["device"] for a in found["alerts"]] == ["2"]


def test_a_long_history_is_evaluated_in_spark_tasks(
    lake: SmallLake, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Partitions of Kafka as tasks of their own say what this process says: of files as they landed, compacted,
    damaged, gone and expired."""
    text, files = WEATHER.read_text() + "\n  - {id: silent, no_data: 10m}\n", lake.lake
    spec = load_spec(text, "weather_station.yaml")
    for n in range(LEAST_FILES):  # of another hour, which will be compacted
        at = T0 + timedelta(hours=1, minutes=n)
        lake.land(spec, [{"device_id": "1", "event_time": at, "temperature": 40.0 - n % 2 * 20}], kafka_partition=n % 3)
    window = Window(T0, T0 + timedelta(hours=2))
    begin = milliseconds(T0)
    dumb = Device(revision=0, at=begin, type=spec.type, device="dumb", site="site-1", registered_at=begin)
    past = Past(files, (spec,), {1: [dumb]})

    def told(long: int) -> History | str:
        monkeypatch.setattr(etl.backtest, "LONG", long)
        try:
            return backtested(past, spec, window, timedelta(0), True, spark=partial(session, settings))
        except DataError as error:
            return str(error)

    def alike() -> History | str:
        alone = told(10**9)
        assert told(1) == alone
        return alone

    landed = alike()
    assert isinstance(landed, History)
    assert landed.readings == 1080 + LEAST_FILES
    assert {c.device for c in landed.changes} >= {"1", "2", "dumb"}
    assert landed.coverage["dumb"] == 0
    now = T0 + timedelta(days=9)
    assert [(o.left, o.files_after) for o in compact(files, still(now))] == [("", 1)]
    assert alike() == landed
    tidy(files, now + GRACE)
    assert alike() == landed
    (late,) = [path for path in files.files("raw") if "hour=04" in path]
    whole = files.read(late)
    files.write(late, whole[: len(whole) // 2])
    assert "is no Parquet file that can be read" in str(alike())
    files.sweep([late])
    assert "is in a compaction record and not in the lake" in str(alike())
    files.write(late, whole)
    (hour,) = [p for p in read_index(files).partitions.values() if p.partition.start.hour == 4]
    gone = Compacted([Covered(file.path, file.rows) for file in hour.files])
    assert Compactions(files).commit(Compaction(hour.partition.key, spec.version, 2, 0, [gone]))
    assert "have expired" in str(alike())


def test_an_interrupt_is_one_whatever_spark_makes_of_it(settings: Settings) -> None:
    with pytest.raises(KeyboardInterrupt), session(settings):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise RuntimeError("job 2 was cancelled") from None


def test_a_changed_rule_beside_the_one_in_force(weir: Weir, lake: SmallLake, tmp_path: Path) -> None:
    changed = tmp_path / "changed.yaml"
    slower = "when: temperature > 35, for: 15m, max_gap: 30s,"  # readings are 10 s apart, the type's cadence is 2 s
    changed.write_text(WEATHER.read_text().replace("when: temperature > 35,", slower))
    found = backtest(weir, changed, "--against", "live")
    assert [a["device"] for a in found["alerts"] if a["rule"] == "high_temperature"] == ["2"]
    only_live = [a["device"] for a in found["against_live"]["only_live"]]
    assert (found["against_live"]["both"], only_live, found["against_live"]["only_tried"]) == (1, ["1"], [])


def test_scores_against_the_truth(weir: Weir, lake: SmallLake, tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    said = [
        {"device": "1", "begin": "2026-11-22T03:09:00Z", "end": "2026-11-22T03:20:00Z"},
        {"device": "3", "begin": "2026-11-22T03:09:00Z", "end": "2026-11-22T03:20:00Z"},
    ]
    truth.write_text("\n".join(map(json.dumps, said)))
    score = backtest(weir, "high_temperature", "--truth", str(truth))["score"]
    assert score == {"precision": 0.5, "recall": 0.5, "median_latency": 60.0, "longest_latency": 60.0}


def test_scores_against_what_a_simulator_did(weir: Weir, tmp_path: Path) -> None:
    """Of its stations, what one says of the temperature leaps now and then; the rule tells of a leap downwards."""
    said, truth = tmp_path / "f.jsonl", tmp_path / "truth.jsonl"
    weir("simulate", "weather", "--devices", "5", "--duration", "30m", "--until", "2026-11-22T04:00:00Z", "--seed", "4",
         "--fault", "spike=0.01,metric=temperature", "--fault", "truncated=0.001",
         "--fault", "spike=0.01,metric=humidity",
         "--to", "file", "--out", str(said), "--truth", str(truth))  # fmt: skip
    rows = []
    for line in said.read_text().splitlines():
        with suppress(ValueError):
            payload = json.loads(json.loads(line)["payload"])
            at = datetime.fromtimestamp(payload["timestamp"], UTC)
            rows.append(
                {"device_id": str(payload["sensor_id"]), "event_time": at, "temperature": payload["temperature"]}
            )
    made = SmallLake(Lake(f"file://{tmp_path}/lake"))
    made.land(load_catalog(CHECKOUT / "fleet" / "types").type("weather_station"), rows)
    head, _, _ = WEATHER.read_text().partition("alerts:")
    changed = tmp_path / "changed.yaml"
    changed.write_text(f"{head}alerts:\n  - {{id: leap, when: temperature < 0}}\n")
    score = backtest(weir, changed, "--truth", str(truth))["score"]
    assert score == {"precision": 1, "recall": 1, "median_latency": 0, "longest_latency": 0}


def test_nothing_came(weir: Weir, lake: SmallLake) -> None:
    asked = ("--rule", "high_temperature", "--from", "2020-01-01", "--to", "2020-01-02")
    assert "no reading of weather_station arrived in that time" in weir("rules", "backtest", *asked).stdout


def test_for_people(weir: Weir, lake: SmallLake) -> None:
    said = weir("rules", "backtest", "--rule", "high_temperature", "--from", "2026-11-22T03:00", "--to",
                "2026-11-22T04:00", "--against", "live").stdout  # fmt: skip
    assert "1,080 readings of 3 devices" in said
    assert "2 alike, 0 only here, 0 only live" in said
    assert " (device " in said
    assert "high_temperature  2026-11-22  2" in said


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--rule", "hgih"), "no type has a rule 'hgih'"),
        (("--rule", "nowhere.yaml"), "nowhere.yaml: No such file"),
        (("--rule", "high_temperature", "--against", "dead"), "it can only be live"),
        (("--rule", "high_temperature", "--warm-up", "long"), "--warm-up"),
    ],
)
def test_mistakes(weir: Weir, lake: SmallLake, arguments: tuple[str, ...], problem: str) -> None:
    assert problem in weir("rules", "backtest", *arguments, "--from", "2026-11-22", "--to", "now", code=1).stderr


def test_a_truth_that_is_none(weir: Weir, lake: SmallLake, tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    truth.write_text('{"device": "1"}\n')
    asked = ("--rule", "high_temperature", "--from", "2026-11-22", "--truth", str(truth))
    assert "truth.jsonl:1: expected such as" in weir("rules", "backtest", *asked, code=1).stderr
