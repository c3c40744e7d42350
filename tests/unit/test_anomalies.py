"""`weir anomalies score`: simulated faults and recordings through the batch's kernel, without servers."""

import json
import math
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fleet.anomaly import KINDS
from fleet.errors import DataError
from fleet.settings import CHECKOUT
from tests.recordings import NAB, needs_nab
from weir import _anomaly_faults, _anomaly_nab
from weir.main import build


def test_the_table_takes_the_kinds_that_there_are() -> None:
    newest = sorted((CHECKOUT / "sql").glob("*.sql"))
    allowed = [re.findall(r"kind IN \(([^)]*)\)", file.read_text(encoding="utf-8")) for file in newest]
    (last,) = [found for found in allowed if found and "zscore" in found[-1]][-1]
    assert set(re.findall(r"'(\w+)'", last)) == {*KINDS}


def test_each_kind_tells_of_its_own_fault() -> None:
    (found,) = _anomaly_faults.scored("weather_station", 20_000, seed=1)
    assert found.faults.keys() == {"spike", "out_of_range", "dropout", "stuck"}
    own = {"range": "out_of_range", "zscore": "spike", "unseen": "spike", "stuck": "stuck", "missing": "dropout"}
    assert {kind: found.precision[kind] for kind in own} == dict.fromkeys(own, 1.0)
    best = {kind: max(recall, key=lambda fault: recall[fault] or 0) for kind, recall in found.recall.items()}
    assert {kind: best[kind] for kind in own} == own
    assert (found.anomalies["rate"], found.precision["rate"]) == (0, None)  # weather has no such limit
    assert found.recall["range"]["spike"] == 0.0  # the plain limit is blind to them


@pytest.mark.parametrize(
    ("name", "own"),
    [("room_climate", {"rate": "spike", "stuck": "stuck"}), ("outdoor_station", {"rate": "spike"})],
)
def test_limits_in_a_spec_tell_what_the_plain_one_does_not(name: str, own: dict[str, str]) -> None:
    (found,) = _anomaly_faults.scored(name, 100_000, seed=0)
    assert {kind: found.precision[kind] for kind in own} == dict.fromkeys(own, 1.0)
    for kind, fault in own.items():
        assert (found.recall[kind][fault] or 0) > 0.4, kind
        assert (found.recall["range"][fault] or 0) < 0.1, kind


def test_the_same_seed_gives_the_same_scores() -> None:
    said = [
        CliRunner().invoke(build(), ["anomalies", "score", "room_node", "--readings", "2000", "--json"]).stdout
        for _ in range(2)
    ]
    assert said[0] == said[1]
    (of_type,) = json.loads(said[0])
    assert (of_type["type"], {*of_type["kinds"]}) == ("room_node", {*KINDS})


def recording(folder: Path, value: Callable[[int], float], windows: dict[str, list[list[str]]]) -> Path:
    """A week, every five minutes."""
    times = [datetime(2026, 1, 1) + timedelta(minutes=5 * n) for n in range(2_016)]
    (folder / "machine.csv").write_text("timestamp,value\n" + "".join(f"{t},{value(n)}\n" for n, t in enumerate(times)))
    (folder / "windows.json").write_text(json.dumps(windows))
    return folder


WINDOW = {"real/machine.csv": [["2026-01-03 00:00:00.000000", "2026-01-03 12:00:00.000000"]]}


def test_a_recording_is_scored_by_rows_and_alarms(tmp_path: Path) -> None:
    """Noise of one, and forty in the window's first two hours: two dozen values are one alarm of the range."""
    folder = recording(tmp_path, lambda n: math.sin(n * n) + 40 * (576 <= n < 600), WINDOW)
    found = {row["kind"]: row for row in _anomaly_nab.scored(folder)}
    assert (found["range"]["anomalies"], found["range"]["alarms"], found["range"]["windows"]) == (24, 1, 1)
    assert found["range"]["standard"] == pytest.approx(100)
    shown = CliRunner().invoke(build(), ["anomalies", "score", "--nab", str(folder)]).stdout
    assert re.search(r"machine +range +1 +1 of 1 +100.0", shown)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("windows.json", "[]", "expected {recording"),
        ("windows.json", "{", "expected {recording"),
        ("windows.json", '{"other.csv": [["2026-01-03 00:00:00", "2026-01-03 12:00:00"]]}', "its names: other.csv"),
        ("machine.csv", "at,value\n2026-01-01,1\n", "expected the columns timestamp and value"),
    ],
    ids=["a list", "no JSON", "another name", "other columns"],
)
def test_what_is_no_benchmark_is_said(tmp_path: Path, file: str, text: str, said: str) -> None:
    folder = recording(tmp_path, lambda n: n, WINDOW)
    (folder / file).write_text(text)
    with pytest.raises(DataError, match=said):
        _anomaly_nab.scored(folder)


@needs_nab
def test_the_real_machine() -> None:
    """As docs/decisions/0033 has it."""
    found = {row["kind"]: round(row["standard"], 1) for row in _anomaly_nab.scored(NAB)}
    assert found == {"range": 71.5, "zscore": 0.0, "rate": 70.1, "unseen": 92.5}
