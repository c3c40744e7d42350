"""`weir ledger`: its verdict and exit code, and that it prints other people's text as it is."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import typer
from typer.testing import CliRunner

from etl.books import Books, MqttDrops
from etl.reconcile import LedgerRow, Report
from fleet.lake_layout import Partition
from fleet.ledger import Imbalance, PartitionBooks, topic_books
from fleet.manifest import Manifest
from weir.ledger import register

PARTITION = Partition("weather", "weather_station", datetime(2026, 11, 22, 3, tzinfo=UTC), "hour")
LOADED = LedgerRow(PARTITION, "loaded", "", "r1", "d", 0, 0, PartitionBooks(PARTITION.key, 9, 9, 0, 0))
FAILED = replace(LOADED, status="failed", failure="column '[/x]' is [bold]wet")
LANDED = Manifest("sensor", 0, 0, 9, 9, 0, 1, 0, 0, 0, 0, [])


def books(**report: object) -> Books:
    topics = [topic_books("sensor", 0, [LANDED], 10)]
    found = Report(topics, [LOADED])
    return Books(replace(found, **report), {}, {}, {}, MqttDrops(3))  # type: ignore[arg-type]


PENDING = [topic_books("sensor", 0, [LANDED], 14)]
CASES = [
    ("all is well", books(), 0, "the books balance"),
    ("waiting", books(topics=PENDING), 0, "the books balance, but: 4 records not yet landed"),
    ("late", replace(books(), unprocessed={"k": 5}), 0, "the books balance, but: 5 rows not yet processed"),
    ("lost", books(lost={"sensor/0": 2}), 1, "the books balance, but: 2 records lost"),
    ("failed", books(partitions=[FAILED]), 1, "the books balance, but: 1 partitions failed"),
    ("off", books(imbalances=[Imbalance("[/x]", "rows", 1, 2)]), 1, "the books do not balance (1 imbalances)"),
]


@pytest.mark.parametrize(("found", "code", "verdict"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_the_verdict_is_told_and_is_the_exit_code(
    found: Books, code: int, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etl.books.read_books", lambda *_: found)
    app = typer.Typer()
    register(app)
    told = CliRunner().invoke(app, [])
    assert (told.exit_code, told.output.splitlines()[-1]) == (code, verdict), told.output
    assert "dropped by the MQTT broker since its start: 3" in told.output
    for failure in (r.failure for r in found.report.partitions):
        assert failure in told.output
    as_json = CliRunner().invoke(app, ["--json"])
    assert as_json.exit_code == code
    shown = json.loads(as_json.output)
    assert shown["verdict"]["text"] == verdict
    assert shown["verdict"]["good"] is (code == 0)
    assert len(shown["imbalances"]) == len(found.report.imbalances)
