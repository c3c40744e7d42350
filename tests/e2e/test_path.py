"""From devices to validated tables on the real stack, through Airflow; and whole again after kill -9."""

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as parquet
import pytest
from sqlalchemy import text

from connections.airflow import Airflow
from connections.mqtt_publisher import BulkPublisher
from connections.warehouse import Warehouse
from fleet.catalog import load_catalog
from fleet.compaction import LEAST_FILES
from fleet.dashboard import dashboards
from fleet.lake_layout import Partition
from fleet.model import MODELS
from fleet.settings import CHECKOUT, Settings
from fleet.spec import HOME_DASHBOARD
from stack.stack import Stack
from stack.status import tree
from tests.grafana import answers, missing_columns, too_slow
from weir._demo_homes import until_the_bridge_knows
from weir.demo import DAG, SYSTEMS, TELLS_HOMES, run

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]
Weir = Callable[..., subprocess.CompletedProcess[str]]
SIMULATED = f"system <> 'weir' AND type IS DISTINCT FROM '{TELLS_HOMES}'"
"""But for what Weir's services report all the time, and what it says of homes each quarter of an hour."""


def etl(settings: Settings, dag: str = DAG, **conf: object) -> str:
    with Airflow.of(settings) as airflow:
        run_id = airflow.trigger(dag, conf)
        state = airflow.wait(dag, run_id, 300)
        logs = "" if state == "success" else _failures(airflow, dag, run_id)
        assert state == "success", logs
    return run_id


def _failures(airflow: Airflow, dag: str, run_id: str) -> str:
    failed = [t for t in airflow.tasks(dag, run_id) if t.state == "failed"]
    return "\n".join(f"{t.name}\n{airflow.log_tail(dag, run_id, t)}" for t in failed)


def processed(settings: Settings) -> dict[str, datetime]:
    warehouse = Warehouse.of(settings)
    rows = warehouse.rows(f"SELECT partition, processed_at FROM ledger WHERE {SIMULATED}")
    warehouse.close()
    return {row["partition"]: row["processed_at"] for row in rows}


def contents(settings: Settings) -> dict[str, Any]:
    """Every derived row, as digests: two equal answers are two equal tables."""
    warehouse = Warehouse.of(settings)
    found = {
        table: warehouse.rows(
            f"SELECT count(*) AS n, md5(string_agg(t::text, '' ORDER BY t::text)) AS digest FROM {table} t"
            f" WHERE {SIMULATED}"
        )
        for table in ("rollups", "anomalies", "quarantine")
    }
    warehouse.close()
    return found


@pytest.mark.timeout(1800)  # beyond the demo's own limits, so that it says what it waited for
def test_the_demo_reconciles(whole_stack: Stack, weir: Weir) -> None:
    shown = weir("demo", "--seconds", "20", seconds=1500).stdout
    figures = json.loads((whole_stack.layout.home / "demo.json").read_text())
    assert figures["differences"] == []
    assert "They reconcile" in shown
    assert figures["published"] == figures["bridged"] + sum(figures["rejected"].values())
    for key in ("bridged", "live", "landed", "valid", "quarantined", "duplicate", "loaded", "rollups", "anomalies"):
        assert figures[key] > 0, key
    for of_type in figures["types"].values():
        assert of_type["loaded"] > 0
    assert set(figures["systems"]) == set(SYSTEMS)
    assert TELLS_HOMES not in figures["types"]
    assert figures["alerts"]["smoke_alarm.smoke"]["fired"] == 1
    assert set(figures["rejects_loaded"]) >= {"malformed_json", "not_utf8", "wrong_type", "unknown_metric"}
    assert any((whole_stack.layout.home / "data-docs").rglob("index.html"))
    audit = figures["audit"]
    assert audit["published"] >= figures["transitions"] > 0
    assert audit == {"published": audit["published"], "same": audit["published"], "different": 0}
    assert figures["command"]["state"] == "obeyed", figures["command"]
    told = figures["told"]
    for receiver, part in (("webhook", "webhook"), ("mail", "mail")):
        assert told["receivers"][receiver]["sent"] == told["arrived"][part]["different"] > 0, told
    mail, webhook = told["samples"]["mail"], told["samples"]["webhook"]
    assert f"    Subject: {mail['subject']}\n" in shown
    assert mail["text"].strip().splitlines()[0] in shown
    assert f'"receiver": "{webhook["body"]["receiver"]}"' in shown
    assert re.search(r"^Grafana {6}not here: .*GRAFANA_HOME", shown, re.MULTILINE)


NONE_WHERE_ALL_IS_WELL = ("Alerts now", "Alerts fired, by kind", "Alerts of $device", "Alerts of the device",
                         "Silent devices", "Where alerts differ")  # fmt: skip
"""Panels of alerts and of silence. In the demo only the weather is sure to have both."""
NONE_BEFORE_A_NIGHT = {f"{m.title}: {what}" for m in MODELS.values() for what in ("estimate and truth", "models")}
"""A minute of readings trains no model."""
NONE_IN_ONE_HOUR = ("Energy of a home: forecast of today", "Energy of a home: forecast of this month",
                    "Energy that nobody is charged with")  # fmt: skip
"""A forecast takes three days of a past (docs/decisions/0046), and all meters are heard all the time."""

FED = (HOME_DASHBOARD, "weir", *SYSTEMS)
"""What the demo has readings of, with all its pages; tests/integration/test_dashboards.py has some of everything."""


def test_the_dashboards_show_the_demo(whole_stack: Stack, operator: Settings) -> None:
    """Every panel, variable and annotation, as Grafana asks it, in the range that it shows at first. Panels of what is
    so now in homes have what came in the last five minutes: they are asked at the end of the homes' readings, too."""
    summaries = json.loads((whole_stack.layout.home / "demo.json").read_text())["simulators"]
    (lived_to,) = (one["event_time"]["last"] for one in summaries if one.get("name") == "home")
    warehouse = Warehouse.of(operator)
    made = dashboards(load_catalog(operator.types_dir))
    for name, dashboard in ((name, made[name]) for name in made if name.partition("-")[0] in FED):
        with warehouse.transaction() as connection:
            found = list(answers(connection, name, dashboard, datetime.now(UTC)))
            empty = {a.query.where for a in found if not a.rows}
            if name.startswith("home"):
                then = answers(connection, name, dashboard, datetime.fromisoformat(lived_to))
                empty &= {a.query.where for a in then if not a.rows}
        quiet = {*NONE_BEFORE_A_NIGHT, *NONE_IN_ONE_HOUR}
        quiet |= {title for title in NONE_WHERE_ALL_IS_WELL if name != "weather"}
        assert empty <= {f"{name}: {title}" for title in quiet}
        assert too_slow(found) == {}
        assert missing_columns(dashboard, found) == []
    warehouse.close()


def test_the_books_balance_and_live_has_every_reading(operator: Settings, weir: Weir) -> None:
    books = json.loads(weir("ledger", "--json").stdout)
    assert books["imbalances"] == []
    warehouse = Warehouse.of(operator)
    live = warehouse.rows("SELECT count(DISTINCT (kafka_topic, kafka_partition, kafka_offset)) AS n FROM readings"
                          f" WHERE {SIMULATED}")  # fmt: skip
    landed = warehouse.rows(f"SELECT sum(landed) AS n FROM ledger WHERE type <> 'rejected' AND {SIMULATED}")
    warehouse.close()
    assert live[0]["n"] == landed[0]["n"]


LONG = "import etl.backtest, weir.main; etl.backtest.LONG, etl.backtest.history_of = 1, None; weir.main.main()"
"""A backtest is long, and nothing is evaluated in the command's own process."""


def test_a_long_backtest_runs_in_the_stacks_spark(whole_stack: Stack, weir: Weir, tmp_path: Path) -> None:
    changed = tmp_path / "changed.yaml"
    spec = (CHECKOUT / "fleet" / "types" / "weather_station.yaml").read_text()
    changed.write_text(spec.replace("when: temperature > 35", "when: temperature > 36"))
    now = datetime.now(UTC)
    span = ("--from", (now - timedelta(hours=6)).isoformat(), "--to", now.isoformat())
    asked = ("rules", "backtest", "--rule", str(changed), *span, "--against", "live", "--json")
    short = json.loads(weir(*asked).stdout)
    # No Spark of the command's own: that would need Java.
    done = weir(*asked, python=("-c", LONG), WEIR_JAVA_HOME="/nowhere")
    long = json.loads(done.stdout)
    assert len(short["transitions"]) > len(short["alerts"]) > 0
    assert short["against_live"]["both"] > 0 and short["against_live"]["only_live"]
    assert long == short
    assert f"Spark evaluates them, at sc://localhost:{whole_stack.ports.spark}\n" in done.stderr


def test_a_second_run_changes_nothing(operator: Settings, weir: Weir) -> None:
    weir("etl", "run")
    before, stamps = contents(operator), processed(operator)
    etl(operator)
    assert processed(operator) == stamps
    assert contents(operator) == before


def test_a_late_file_reprocesses_only_its_partition(operator: Settings, at_once: Weir) -> None:
    before = processed(operator)
    late = datetime.now(UTC).replace(minute=30, second=0, microsecond=0) - timedelta(hours=5)
    at_once("simulate", "weather", "--devices", "3", "--duration", "60", "--speed", "0", "--until", late.isoformat())
    key = f"weather/weather_station/{late:%Y-%m-%dT%H}"
    deadline = time.monotonic() + 60
    while key not in at_once("etl", "discover").stdout:
        assert time.monotonic() < deadline, "the late readings did not land"
        time.sleep(0.5)
    etl(operator)
    after = processed(operator)
    assert {k for k in after if after[k] != before.get(k)} == {key}


def test_a_task_that_validated_links_its_page(operator: Settings) -> None:
    run_id = etl(operator, force=True, **{"from": "-2h"}, system="weather")
    login = {"username": operator.airflow_user, "password": operator.airflow_password.get_secret_value()}
    with httpx.Client(base_url=operator.airflow_url) as client:
        token = client.post("/auth/token", json=login).json()["access_token"]
        links = client.get(
            f"/api/v2/dags/{DAG}/dagRuns/{run_id}/taskInstances/process.validate/links",
            params={"map_index": 0}, headers={"Authorization": f"Bearer {token}"},
        ).json()["extra_links"]  # fmt: skip
        url = links["Data Docs"]
        assert client.get(url).status_code == 401, "nobody is anonymous"
        client.cookies.set("_token", token)
        page = client.get(url)
        assert page.status_code == 200
        assert "weather_station" in page.text
        assert page.headers["Content-Security-Policy"].startswith("sandbox ")
        assert "allow-same-origin" not in page.headers["Content-Security-Policy"]
        assert client.get("/data-docs/index.html").status_code == 200
        outside = ("..%2Fenv%2Foperator.env", "static/..%2F..%2Fenv%2Foperator.env", "%2Fetc%2Fpasswd", "none.html")
        assert {client.get(f"/data-docs/{path}").status_code for path in outside} == {404}


def _backfill(airflow: Airflow, first: datetime, last: datetime, reprocess: str = "none") -> list[dict[str, Any]]:
    """Its runs, once all are over. What the button of Airflow's page does, and `airflow backfill create`."""
    asked = {
        "dag_id": DAG, "from_date": first.isoformat(), "to_date": last.isoformat(), "reprocess_behavior": reprocess,
        "max_active_runs": 2,
    }  # fmt: skip
    number = airflow._authorised("POST", "/api/v2/backfills", json=asked)["id"]
    deadline = time.monotonic() + 300
    while airflow._authorised("GET", f"/api/v2/backfills/{number}")["completed_at"] is None:
        assert time.monotonic() < deadline, "the backfill does not end"
        time.sleep(0.5)
    runs = airflow._authorised("GET", f"/api/v2/dags/{DAG}/dagRuns", params={"run_type": "backfill", "limit": 100})
    return [run for run in runs["dag_runs"] if first <= datetime.fromisoformat(run["logical_date"]) <= last]


def test_a_backfill_computes_what_its_days_touch_and_nothing_else(
    operator: Settings, weir: Weir, at_once: Weir
) -> None:
    """Of two days, one of them without readings; beside a run of the form's that computes all anew. Twice the same."""
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=3)
    for hour in (2, 5):
        until = (day + timedelta(hours=hour, minutes=30)).isoformat()
        at_once("simulate", "weather", "--devices", "3", "--duration", "60", "--speed", "0", "--until", until)
    keys = {f"weather/weather_station/{day:%Y-%m-%d}T{hour:02}" for hour in (2, 5)}
    deadline = time.monotonic() + 60
    while not all(key in at_once("etl", "discover").stdout for key in keys):
        assert time.monotonic() < deadline, "the readings of that day did not land"
        time.sleep(0.5)
    weir("etl", "run")
    before, stamps = contents(operator), processed(operator)
    with Airflow.of(operator) as airflow:
        runs = _backfill(airflow, day - timedelta(days=1), day)
        assert [run["state"] for run in runs] == ["success"] * 2
        after = processed(operator)
        assert {key for key in after if after[key] != stamps[key]} == keys
        assert contents(operator) == before
        manual = airflow.trigger(DAG, {"force": True})
        again = _backfill(airflow, day - timedelta(days=1), day, "completed")
        assert [run["state"] for run in again] == ["success"] * 2
        assert airflow.wait(DAG, manual, 300) == "success"
    assert contents(operator) == before
    at_once("ledger")


def _file_of_hours_ago(lake: Path, operator: Settings) -> Path:
    """Of the weather: the late ones of a test above."""
    spec, now = load_catalog(operator.types_dir).type("weather_station"), datetime.now(UTC)
    partitions = [Partition.from_key(key) for key in processed(operator) if f"/{spec.type}/" in key]
    near = next(p for p in partitions if timedelta(hours=2) < now - p.start < timedelta(hours=20))
    return next((lake / near.folder(spec.version)).glob("*.parquet"))


def test_what_was_refused_comes_back_through_its_dag(
    whole_stack: Stack, operator: Settings, weir: Weir, at_once: Weir
) -> None:
    """A hot reading of a device that was retired by mistake: refused, then given back, once. Rules have never heard the
    device, and would take it for news: nobody is told. What would have fired cannot be known while the lake lacks a
    file near by: that fails the run, and nothing of its loading."""
    device = "taken-back"
    at_once("devices", "add", "weather_station", device, "--site", "field")
    at_once("devices", "retire", "weather_station", device)
    until_the_bridge_knows(operator)
    publisher = BulkPublisher(whole_stack.settings("simulator"))
    reading = {"sensor_id": device, "timestamp": time.time(), "temperature": 41.5}
    publisher.publish(f"dt/weather/field/weather_station/{device}", json.dumps(reading).encode())
    publisher.close(10)

    def held() -> list[dict[str, Any]]:
        said = at_once("quarantine", "stats", "--reason", "retired_device", "--json").stdout
        found: list[dict[str, Any]] = json.loads(said)
        return found

    deadline = time.monotonic() + 90
    while not held():
        assert time.monotonic() < deadline, "it was not refused"
        weir("etl", "run")
    at_once("devices", "add", "weather_station", device, "--site", "field")
    with Airflow.of(operator) as airflow:
        run_id = etl(operator, "quarantine_replay", reason="retired_device", dry_run=True)
        tasks = airflow.tasks("quarantine_replay", run_id)
        assert {task.task_id: task.state for task in tasks if task.state != "skipped"} == {"replay": "success"}
        (of_replay,) = [task for task in tasks if task.task_id == "replay"]
        said = airflow.log_tail("quarantine_replay", run_id, of_replay)
    assert "readings: {'weather_station': 1}" in said
    with Airflow.of(operator) as airflow:
        run_id = airflow.trigger("quarantine_replay", {"reason": "retired_device", "dryrun": True})
        assert airflow.wait("quarantine_replay", run_id, 300) == "failed"
        assert "has no param 'dryrun'; did you mean 'dry_run'?" in _failures(airflow, "quarantine_replay", run_id)
    assert [(row["rows"], row["replayed"]) for row in held()] == [(1, 0)]
    lacking = _file_of_hours_ago(whole_stack.layout.home / "lake", operator)
    away = lacking.rename(lacking.with_suffix(".away"))
    for wrong in ({"late_alerts": "failed", "end": "upstream_failed"}, {}):
        with Airflow.of(operator) as airflow:
            run_id = airflow.trigger("quarantine_replay", {"reason": "retired_device"})
            airflow.wait("quarantine_replay", run_id, 300)
            states = {task.name: task.state for task in airflow.tasks("quarantine_replay", run_id)}
        assert {name: state for name, state in states.items() if state not in ("success", "skipped")} == wrong
        if away.exists():
            away.rename(lacking)
        warehouse = Warehouse.of(operator)
        loaded = warehouse.rows("SELECT count, mean FROM rollups WHERE device_id = :d AND grain = '1h'", d=device)
        warehouse.close()
        assert [(row["count"], row["mean"]) for row in loaded] == [(1, 41.5)]
        assert [(row["rows"], row["replayed"]) for row in held()] == [(1, 1)]
    late = json.loads(at_once("quarantine", "alerts", "--json").stdout)
    assert [alert["rule"] for alert in late if alert["device_id"] == device] == ["high_temperature"]
    told = json.loads(at_once("alerts", "--history", "--device", device, "--json").stdout)
    assert told == []


def test_the_nightly_retrain_promotes_nothing_on_so_little(whole_stack: Stack, operator: Settings, weir: Weir) -> None:
    """Through Airflow and Spark Connect. Three hours of the recording are too few to train on; twelve simulated ones
    make a candidate, which nothing proves. Neither fails the run."""
    run_id = etl(operator, "retrain_nightly")
    with Airflow.of(operator) as airflow:
        logs = [airflow.log_tail("retrain_nightly", run_id, task) for task in airflow.tasks("retrain_nightly", run_id)]
    recorded = json.loads((whole_stack.layout.home / "demo.json").read_text())["recording"]
    words = ("not enough data", "no model yet") if recorded else ("is not promoted: undecided", "a candidate")
    for said in words:
        assert any(said in log for log in logs), said
    models = json.loads(weir("models", "list", "--json").stdout)
    assert [model["champion"] for model in models] == ([] if recorded else [False])


def test_the_retention_dag_deletes_what_is_old_and_nothing_else(whole_stack: Stack, operator: Settings) -> None:
    before = contents(operator)
    for role, table, moment in (("batch", "rollups", "bucket"), ("live", "readings", "event_time")):
        warehouse = Warehouse.of(whole_stack.settings(role))
        with warehouse.transaction() as c:
            older = f"jsonb_build_object('{moment}', t.{moment} - INTERVAL '20 years')"
            copied = f"SELECT (jsonb_populate_record(t, {older})).* FROM {table} t LIMIT 50"
            assert c.execute(text(f"INSERT INTO {table} {copied}")).rowcount == 50
        warehouse.close()
    etl(operator, "retention")  # Airflow may have run it by itself in between: once at the first start, and each night
    assert contents(operator) == before
    warehouse = Warehouse.of(operator)
    assert warehouse.rows("SELECT 1 FROM readings WHERE event_time < now() - INTERVAL '10 years'") == []
    warehouse.close()


def _kill(stack: Stack, name: str, seconds: float = 10) -> None:
    """kill -9, once the program runs: one that is between two lives has pid 0, which would be pytest's own group."""
    deadline = time.monotonic() + seconds
    while True:
        info = stack.supervisor.programs().get(name, {})
        if info.get("statename") == "RUNNING" and info["pid"] > 1:
            os.kill(info["pid"], signal.SIGKILL)
            return
        assert time.monotonic() < deadline, f"{name} does not run again: {info}"
        time.sleep(0.1)


TASK = re.compile(r"airflow worker -- (?P<id>[0-9a-f-]{36})")
"""What the process that runs a task calls itself; its parent's name has LocalExecutor in it."""


def _kill_a_task(stack: Stack, airflow: Airflow, run_id: str, seconds: float) -> None:
    """kill -9 of the first process that validates a partition of this run for more than a moment: another task may have
    done its work by then, and be on its way out. It lets nobody but root read its environment, so that it is found
    below the scheduler and not by the stack's mark."""
    deadline, seen = time.monotonic() + seconds, dict[int, float]()
    scheduler = stack.supervisor.programs()["airflow-scheduler"]["pid"]
    while time.monotonic() < deadline:
        for pid in tree(scheduler):
            with contextlib.suppress(OSError):
                name = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if not (found := TASK.fullmatch(name)) or time.monotonic() - seen.setdefault(pid, time.monotonic()) < 1:
                    continue
                running = (task for task in airflow.tasks(DAG, run_id) if task.state == "running")
                if found["id"] in {task.id for task in running if task.task_id == "process.validate"}:
                    os.kill(pid, signal.SIGKILL)
                    return
        time.sleep(0.05)
    raise AssertionError("no task of that run was seen validating")


def test_the_compaction_dag_makes_files_fewer_and_nothing_new(
    whole_stack: Stack, operator: Settings, weir: Weir, at_once: Weir
) -> None:
    """Of a day of which little lands at a time; the runs by the clock leave the present day alone."""
    day = datetime.now(UTC).replace(hour=7, minute=0, second=0, microsecond=0) - timedelta(days=2)
    version = load_catalog(operator.types_dir).type("weather_station").version
    partition = Partition.from_key(f"weather/weather_station/{day:%Y-%m-%dT%H}")
    folder = whole_stack.layout.home / "lake" / partition.folder(version)
    sent = 0
    for minute in range(1, LEAST_FILES + 1):
        until = (day + timedelta(minutes=minute)).isoformat()
        some = ("--devices", "3", "--duration", "30", "--speed", "0", "--until", until, "--json")
        sent += json.loads(at_once("simulate", "weather", *some).stdout)["published"]
        deadline = time.monotonic() + 60
        while sum(parquet.read_metadata(file).num_rows for file in folder.glob("*.parquet")) < sent:
            assert time.monotonic() < deadline, "the readings of that day did not land"
            time.sleep(0.2)
    weir("etl", "run")
    before, stamps, landed = contents(operator), processed(operator), set(folder.glob("*.parquet"))
    etl(operator, "compact_nightly")
    (_compacted,) = set(folder.glob("*.parquet")) - landed
    weir("etl", "run")
    assert processed(operator) == stamps
    weir("etl", "run", "--force", "--from", day.isoformat(), "--to", (day + timedelta(hours=1)).isoformat())
    assert contents(operator) == before


def test_kill_minus_nine_of_a_task(whole_stack: Stack, operator: Settings, weir: Weir) -> None:
    """Of a run that computes all anew. Airflow tries it again; the tables are as they were, and the books balance."""
    before, stamps = contents(operator), processed(operator)
    with Airflow.of(operator) as airflow:
        run_id = airflow.trigger(DAG, {"force": True})
        _kill_a_task(whole_stack, airflow, run_id, 120)
        assert airflow.wait(DAG, run_id, 300) == "success"
        assert max(task.try_number for task in airflow.tasks(DAG, run_id)) > 1
    assert contents(operator) == before
    assert all(processed(operator)[key] > stamp for key, stamp in stamps.items())
    weir("ledger")


def test_kill_minus_nine_of_everything(whole_stack: Stack, operator: Settings) -> None:
    """Services are killed while the simulators run; the books reconcile all the same."""
    give_up = threading.Event()
    killed: list[str] = []
    said: list[str] = []

    def killer() -> None:
        while not any(line.startswith("simulators") for line in said):
            if give_up.wait(0.1):
                return
        for name in ("landing", "bridge", "live", "landing", "bridge") * 2:
            if give_up.wait(2):
                return
            _kill(whole_stack, name)
            killed.append(name)

    with ThreadPoolExecutor(1) as pool:
        kills = pool.submit(killer)
        try:
            figures = run(operator, 25, None, said.append, weather_minutes=8)
        finally:
            give_up.set()
        kills.result()
    assert {"landing", "bridge", "live"} == set(killed)
    assert len(killed) >= 6
    assert figures["differences"] == []
