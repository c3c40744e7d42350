"""Simulated homes by each way but MQTT: what a run calls published has landed, and the books of the batch say so."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from connections.lake import Lake
from etl.lake_index import read_index
from etl.run import Job
from fleet.catalog import Catalog
from fleet.settings import Settings
from simulators.household import DEVICES, SYSTEM, sites
from stack.credentials import login_url
from stack.stack import Stack
from tests.command import Weir
from tests.integration.batch_runs import run
from tests.integration.gateway_clients import Gateway
from tests.integration.own_database import own_database
from tests.integration.processes import Process, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
HOMES = 2
ENDS = {
    way: datetime.now(UTC).replace(hour=12, minute=50, second=0, microsecond=0) - timedelta(days=days)
    for way, days in (("http", 3), ("coap", 4), ("kafka", 5))
}
"""Way → when its run's event times end: a day for each."""


@pytest.fixture(scope="module")
def job(stack: Stack, own_types: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """The batch on a lake and tables of its own."""
    folder = tmp_path_factory.mktemp("homes")
    own_database(stack, "homes", "weir_batch")
    url = login_url("weir_batch", stack.secrets, stack.ports, "homes")
    made = Job(
        stack.settings("batch").model_copy(
            update={
                "home": folder, "lake_uri": f"file://{folder}/lake", "types_dir": own_types, "kafka_user": "",
                "spark_remote": SecretStr(""), "db_url": SecretStr(url),
            }
        )
    )  # fmt: skip
    yield made
    made.warehouse.close()


@pytest.fixture(scope="module")
def landing(job: Job, stack: Stack, own_types: Path, own_catalog: Catalog) -> Iterator[Process]:
    changes = {"WEIR_TYPES_DIR": own_types, "WEIR_LAKE_URI": job.settings.lake_uri, "WEIR_LANDING_MAX_SECONDS": 1}
    with Process("landing", stack.settings("landing"), job.settings.home / "landing.log", **changes) as process:
        yield process.start().ready()


@pytest.fixture(scope="module")
def tokens(weir: Weir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of every device of the homes, which are registered: the file that `--tokens` takes."""
    folder = tmp_path_factory.mktemp("tokens")
    weir("simulate", SYSTEM, "--homes", str(HOMES), "--registry", str(folder / "homes.csv"))
    weir("devices", "import", str(folder / "homes.csv"))
    said = ""
    for type_name, placed in groupby(sorted(DEVICES, key=lambda one: one.type), key=lambda one: one.type):
        names = [one.name for one in placed]
        ids = [f"{site}-{name}" for site in sites(HOMES) for name in names]
        said += weir("devices", "credentials", "issue", type_name, *ids, "--json").stdout
    (folder / "tokens.json").write_text(said)
    return folder / "tokens.json"


@pytest.fixture(scope="module")
def gateway(tokens: Path, weir: Weir, stack: Stack, own_types: Path, job: Job) -> Iterator[Gateway]:
    known = len(json.loads(weir("devices", "credentials", "list", "--all", "--json").stdout))
    log = job.settings.home / "gateway.log"
    with Gateway(stack.settings("gateway"), log, WEIR_TYPES_DIR=own_types) as process:
        process.start().ready()
        process.knows(known)
        yield process


def landed(settings: Settings, end: datetime) -> int:
    found = read_index(Lake.of(settings)).partitions.values()
    return sum(of.rows for of in found if of.partition.system == SYSTEM and of.partition.start.date() == end.date())


@pytest.mark.parametrize("way", ENDS)
def test_what_was_published_has_landed(
    way: str, weir: Weir, tokens: Path, gateway: Gateway, landing: Process, job: Job
) -> None:
    there: dict[str, tuple[str, ...]] = {
        "http": ("--gateway", f"http://127.0.0.1:{gateway.http}", "--tokens", str(tokens)),
        "coap": ("--gateway", f"coap://127.0.0.1:{gateway.coap}", "--tokens", str(tokens)),
        "kafka": (),
    }
    end = ENDS[way]
    asked = ("--homes", str(HOMES), "--duration", "10m", "--every", "20s", "--speed", "0", "--seed", "7", "--seq")
    faults = ("--fault", "duplicate=0.02", "--fault", "reordering=0.02")
    said = weir(
        "simulate", SYSTEM, *asked, *faults, "--until", end.isoformat(), "--to", way, *there[way], "--json"
    ).stdout  # fmt: skip
    summary = json.loads(said)
    assert summary["sent"] == summary["published"] == summary["expected"]["readings"]
    assert summary["published"] == 10 * 60 / 20 * HOMES * len(DEVICES) + summary["faults"]["duplicate"]

    wait_for(lambda: landed(job.settings, end) >= summary["published"], 30, landing.log.read_text, every=0.5)
    run(job, way, system=SYSTEM, start=f"{end:%Y-%m-%d}", end=f"{end + timedelta(days=1):%Y-%m-%d}")
    books = job.warehouse.rows(
        "SELECT type, sum(landed)::bigint AS readings, sum(valid)::bigint AS valid,"
        " sum(quarantined)::bigint AS quarantined, sum(duplicate)::bigint AS duplicates, sum(rows_off_by) AS off"
        " FROM ledger_balance WHERE system = :system AND starts_at::date = :day GROUP BY type",
        system=SYSTEM, day=end.date(),
    )  # fmt: skip
    assert {row["off"] for row in books} == {0}
    assert {row.pop("type"): shown(row) for row in books} == {
        name: shown(of) for name, of in summary["expected"]["types"].items()
    }
    for what in ("duplicates", "valid"):
        assert sum(of[what] for of in summary["expected"]["types"].values()) > 0, what


def shown(of: dict[str, Any]) -> dict[str, Any]:
    return {name: of[name] for name in ("readings", "valid", "quarantined", "duplicates")}
