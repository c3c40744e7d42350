"""The commands, into files: what people type is what runs."""

import json
import shlex

import pytest
from typer.testing import CliRunner

from fleet.catalog import load_catalog
from fleet.errors import ConfigurationError, Unavailable, WeirError
from fleet.settings import CHECKOUT
from simulators.truth import read_truth
from tests.recordings import HOME, OCCUPANCY, needs_home, needs_occupancy
from weir._registration import warn_of_unregistered
from weir.main import build

APP = build()


@pytest.fixture
def weir(monkeypatch, tmp_path):
    monkeypatch.setenv("WEIR_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def run(line):
        result = CliRunner().invoke(APP, shlex.split(line))
        if isinstance(result.exception, WeirError):
            raise result.exception
        return result

    return run


def test_simulate(weir, tmp_path):
    (tmp_path / "faults.yaml").write_text("stuck: {share: 0.05, length: 4}\nduplicate: 0.01\n")
    result = weir(
        "simulate weather --devices 10 --rate 100 --duration 30 --seed 7 --site roof --to file --out f.jsonl"
        " --fault spike=0.01 --faults faults.yaml --truth t.jsonl --json"
    )
    summary = json.loads(result.stdout)
    lines = [json.loads(line) for line in (tmp_path / "f.jsonl").read_text().splitlines()]
    assert summary["published"] == len(lines) == 3000 + summary["faults"]["duplicate"]
    assert set(summary["faults"]) == {"stuck", "duplicate", "spike"}
    assert {line["topic"] for line in lines} == {f"dt/weather/roof/weather_station/{n}" for n in range(1, 11)}
    assert read_truth(tmp_path / "t.jsonl")[1] == summary


def test_simulate_at_a_time(weir, tmp_path):
    weir("simulate room_node --duration 2m --until 2026-01-31T12:00:00Z --seq --to file --out f.jsonl")
    said = [json.loads(json.loads(line)["payload"]) for line in (tmp_path / "f.jsonl").read_text().splitlines()]
    noon = 1_769_860_800_000
    assert sorted({s["event_time"] for s in said}) == [noon - 120_000, noon - 90_000, noon - 60_000, noon - 30_000]
    assert [s["seq"] for s in said if s["device_id"] == "s6"] == [1, 2, 3, 4]


def test_simulate_homes(weir, tmp_path):
    result = weir(
        "simulate home --homes 2 --days 0.02 --every 10s --incidents 1 --seed 7 --until 2026-01-05T20:00:00Z"
        " --to file:f.jsonl --truth t.jsonl --json"
    )
    summary = json.loads(result.stdout)
    topics = {json.loads(line)["topic"] for line in (tmp_path / "f.jsonl").read_text().splitlines()}
    assert len(topics) == summary["homes"] * 28
    assert "dt/home/home-2/smart_plug/home-2-fridge" in topics
    assert summary["published"] == sum(of["readings"] for of in summary["expected"]["types"].values())
    lines, written = read_truth(tmp_path / "t.jsonl")
    assert written == summary
    assert sum("incident" in line for line in lines) == sum(summary["incidents"].values()) > 0


def test_score_of_homes(weir):
    found = json.loads(weir("simulate home --days 0.05 --seed 7 --score --json").stdout)
    assert found["readings"] > 10_000
    assert found["rules"]["smoke"] == {"precision": 1.0, "recall": 1.0, "tp": 1, "fp": 0, "fn": 0}
    assert "smoke" in weir("simulate home --days 0.01 --score").stdout


def test_the_registry_of_homes(weir, tmp_path):
    assert "58 devices in homes.csv" in weir("simulate home --homes 2 --registry homes.csv").stdout
    assert len((tmp_path / "homes.csv").read_text().splitlines()) == 59


@needs_home
def test_the_registry_of_a_recorded_home(weir, tmp_path):
    said = weir(f"replay home {HOME / 'OrdonezA_Sensors.txt'} --site house --registry home.csv").stdout
    assert said == "13 devices in home.csv: weir devices import home.csv\n"
    assert "door_sensor,front-door,house" in (tmp_path / "home.csv").read_text().splitlines()


UNREGISTERED = [
    "simulate lamp",
    "simulate home",
    pytest.param(f"replay home {HOME / 'OrdonezA_Sensors.txt'} --duration 1h", marks=needs_home),
]


@pytest.mark.parametrize("line", UNREGISTERED, ids=["a type", "homes", "a recording"])
def test_who_must_be_registered_is_told_before_anything_is_sent(monkeypatch, tmp_path, line):
    monkeypatch.setenv("WEIR_HOME", str(tmp_path))
    monkeypatch.setenv("WEIR_MQTT_PORT", "1")
    result = CliRunner().invoke(APP, shlex.split(line))
    assert isinstance(result.exception, Unavailable)
    assert "rejected as unknown_device" in result.stderr


@pytest.mark.parametrize(
    ("to", "name", "told"),
    [("mqtt", "lamp", True), ("mqtt", "weather_station", False), ("kafka", "lamp", False), ("http", "lamp", False)],
)
def test_who_needs_no_registration_is_not_told_of(capsys, to, name, told):
    warn_of_unregistered(to, load_catalog(CHECKOUT / "fleet" / "types"), [name])
    assert ("lamp do not register" in capsys.readouterr().err) is told


@needs_home
def test_replay_a_home(weir, tmp_path):
    result = weir(f"replay home {HOME / 'OrdonezA_Sensors.txt'} --duration 1h --to file:f.jsonl --json")
    summary = json.loads(result.stdout)
    assert set(summary["expected"]["types"]) == {"presence_tag", "motion_detector", "door_sensor"}
    assert summary["published"] == len((tmp_path / "f.jsonl").read_text().splitlines()) > 700


@needs_occupancy
def test_replay(weir, tmp_path):
    dirty = tmp_path / "dirty.csv"
    with OCCUPANCY.open() as whole:
        head = [next(whole) for _ in range(12)]
    dirty.write_text("".join([*head[:6], "2017/12/22,10:53,\n", *head[6:]]))
    result = weir(f"replay occupancy {dirty} --to file --out f.jsonl --json")
    summary = json.loads(result.stdout)
    assert (summary["rows"], summary["skipped"], summary["published"]) == (11, {"field_count": 1}, 11 * 17)
    assert "dirty.csv:7: field_count: 3 fields; the header has 19" in result.stderr


REFUSED = [
    ("simulate wether", "did you mean 'weather'"),
    ("simulate weather --duration soon", "--duration soon"),
    ("simulate weather --speed 0.5 --to file --out f", "--speed 0.5"),
    ("simulate weather --fault spik=1 --to file --out f", "did you mean 'spike'"),
    ("replay weather x.csv", "there are: occupancy, home"),
    ("replay occupancy x.csv --to file --out f", "x.csv: No such file"),
    ("simulate home --devices 3", "homes are alike: --homes"),
    ("simulate home --homes 0 --to file:f", "--homes 0"),
    ("simulate home --every soon --score", "--every soon"),
    ("simulate weather --homes 2", "are for home, not weather"),
    ("simulate weather --to file:f --out g", "--out names a file already"),
    ("simulate weather --to file:", "file:PATH names one"),
    ("simulate home --to http", "--to http needs --gateway URL and --tokens FILE"),
    ("tail dt/# --from-beginning", "for Kafka"),
]


@pytest.mark.parametrize(("line", "match"), REFUSED, ids=[r[0] for r in REFUSED])
def test_refused_in_a_line(weir, line, match):
    with pytest.raises(WeirError, match=match):
        weir(line)


def test_misspelt_settings_are_named(weir, monkeypatch):
    monkeypatch.setenv("WEIR_MQTT_PROT", "1")
    with pytest.raises(ConfigurationError, match="WEIR_MQTT_PORT"):
        weir("simulate weather")
