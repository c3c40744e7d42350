"""The commands, into files: what people type is what runs."""

import json
import shlex

import pytest
from typer.testing import CliRunner

from fleet.errors import ConfigurationError, WeirError
from simulators.truth import read_truth
from tests.recordings import OCCUPANCY, needs_occupancy
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
