"""What these commands print fits 80 columns, and nothing is cut."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fleet.catalog import load_catalog
from fleet.settings import CHECKOUT
from weir.etl import lines
from weir.main import build


def test_types_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WEIR_HOME", str(tmp_path))
    said = CliRunner().invoke(build(), ["types", "list"]).stdout
    assert max(map(len, said.splitlines())) <= 80
    for spec in load_catalog(CHECKOUT / "fleet" / "types"):
        words = set(said.replace(",", " ").split())
        assert {spec.type, spec.system, spec.topic, *spec.metrics} <= words


FIGURES = {
    "a run": (
        {"partitions": 2, "landed": 59_904, "pending_in_kafka": None, "problems": []},
        "partitions 2, landed 59,904",
    ),
    "lists and paths": (
        {"rows": 10, "unmet": ["a is null [warning]", "b > 3 [info]"], "data_docs": ["/" + 90 * "x"]},
        "rows 10\nunmet: a is null [warning]\nunmet: b > 3 [info]\ndata docs: /" + 90 * "x",
    ),
    "nothing": ({"newer_there": []}, ""),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures(name: str) -> None:
    figures, told = FIGURES[name]
    assert lines(figures) == told


def test_many_figures_are_wrapped() -> None:
    said = lines({f"figure_{n}": 1_000_000 * n for n in range(20)}, "  ").splitlines()
    assert len(said) > 1
    assert all(line.startswith("  ") and len(line) <= 80 for line in said)
