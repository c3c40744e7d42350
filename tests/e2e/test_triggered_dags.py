"""DAGs that the clock runs, triggered on purpose in real Airflow after what they take came in: what each writes."""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pypdf import PdfReader

from connections.airflow import Airflow
from connections.mqtt_publisher import BulkPublisher
from connections.warehouse import Warehouse
from fleet.errors import Refused, Unavailable
from fleet.settings import CHECKOUT, Settings
from stack.stack import Stack
from tests.e2e.test_path import etl
from tests.integration.processes import wait_for
from weir._demo_homes import until_the_bridge_knows

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]
SITE = "home-7"
DEVICES = {"energy_meter": "meter-7", "door_sensor": "door-7"}
MINUTES = 20
KWH_A_MINUTE = 0.1


def _is_known(airflow: Airflow, dag: str) -> bool:
    """A stack that has just come up may still be reading them."""
    try:
        airflow._authorised("GET", f"/api/v2/dags/{dag}")
    except Refused:
        return False
    return True


def test_the_readmes_script_triggers_a_run(whole_stack: Stack, operator: Settings) -> None:
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```console\n(\. var/env/operator\.env\n.*?)```", readme, re.DOTALL)
    trigger = script[: script.rindex("curl")].replace("var/env", f"{whole_stack.layout.home}/env")
    done = subprocess.run(["bash", "-euc", trigger], capture_output=True, text=True, timeout=60)
    run_id = json.loads(done.stdout)["dag_run_id"]
    with Airflow.of(operator) as airflow:
        with pytest.raises(Unavailable, match=r"is still \w+ after 0 s \(.+\); see http"):
            airflow.wait("sensor_etl", run_id, 0)
        assert airflow.wait("sensor_etl", run_id, 300) == "success"


def test_energy_security_and_a_report_of_both(
    whole_stack: Stack, operator: Settings, weir: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    lines = ["type,device_id,site", *(f"{name},{device},{SITE}" for name, device in DEVICES.items())]
    (tmp_path / "home.csv").write_text("\n".join(lines))
    weir("devices", "import", str(tmp_path / "home.csv"))
    until_the_bridge_knows(operator)
    begin = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=MINUTES + 15)
    moments = [begin + timedelta(minutes=minute) for minute in range(MINUTES + 1)]
    publisher = BulkPublisher(whole_stack.settings("simulator"))
    for minute, moment in enumerate(moments):
        values = {
            "energy_meter": {"energy": round(1000 + minute * KWH_A_MINUTE, 3)},
            "door_sensor": {"open": minute % 2},
        }
        for name, device in DEVICES.items():
            said = {"device_id": device, "event_time": moment.isoformat(), "values": values[name]}
            publisher.publish(f"dt/home/{SITE}/{name}/{device}", json.dumps(said).encode())
    publisher.flush()
    publisher.close(10)

    warehouse = Warehouse.of(operator)
    try:

        def live(name: str, metric: str) -> list[float]:
            rows = warehouse.rows(
                "SELECT value FROM readings WHERE type = :type AND site = :site AND metric = :metric"
                " ORDER BY event_time",
                type=name, site=SITE, metric=metric,
            )  # fmt: skip
            return [row["value"] for row in rows]

        def used() -> float:
            rows = warehouse.rows(
                "SELECT watt_hours FROM energy_hours WHERE site = :site UNION ALL"
                " SELECT watt_hours FROM energy_unattributed WHERE site = :site",
                site=SITE,
            )
            return sum(row["watt_hours"] for row in rows) / 1000

        def loaded() -> bool:
            weir("etl", "run", "--system", "home")
            return used() > KWH_A_MINUTE * (MINUTES - 1)

        wait_for(lambda: len(live("door_sensor", "open")) == MINUTES + 1, 60, "the door is not in readings", every=0.5)
        wait_for(loaded, 60, lambda: f"{used()} kWh", every=2)
        assert used() == pytest.approx(KWH_A_MINUTE * MINUTES)
        with Airflow.of(operator) as airflow:
            for dag in ("home_energy", "security_log", "report_weekly"):
                wait_for(lambda dag=dag: _is_known(airflow, dag), 60, f"Airflow has not read {dag}", every=1)  # type: ignore[misc]
            told = airflow.result("home_energy", etl(operator, "home_energy"), "publish")[SITE]
            kept = airflow.result("security_log", etl(operator, "security_log", **{"from": "-1h"}), "keep")["home"]
            run_id = etl(operator, "report_weekly", system="home", **{"from": "-2h"})
            file = Path(airflow.result("report_weekly", run_id, "write"))
        wait_for(lambda: live("home_energy", "month"), 60, "what the home used is not in readings", every=0.5)
        assert live("home_energy", "month")[-1] == told["month"] <= round(KWH_A_MINUTE * MINUTES, 3)
        events = warehouse.rows("SELECT event, at FROM security_events WHERE site = :site ORDER BY at", site=SITE)
        doors = [(row["event"], row["at"]) for row in events if row["event"] in ("opened", "closed")]
        assert doors == [("opened" if minute % 2 else "closed", moments[minute]) for minute in range(1, MINUTES + 1)]
        assert kept >= len(events)
    finally:
        warehouse.close()
    pages = [" ".join(page.extract_text().split()) for page in PdfReader(file).pages]
    assert len(pages) == 3
    assert file.parent == whole_stack.layout.home / "reports"
    assert re.search(r"Security: [^.]*\bopened \d+ times", pages[1]) and " were used" in pages[1]
    assert "energy meter" in pages[2] and "door sensor" in pages[2]


def test_files_in_the_inbox(operator: Settings) -> None:
    """One is taken, but for a row that is none. The other is refused: that fails the task, which is not tried again, as
    there is nothing left to fail it. The clock may be first, so whose run it was is asked of inbox_files."""
    type_name, device = "weather_station", "dropped-7"
    begin = datetime.now(UTC).replace(minute=30, second=0, microsecond=0) - timedelta(hours=26)
    good = [f"{device},{(begin + timedelta(seconds=2 * n)).isoformat()},{20 + n}" for n in range(3)]
    files = {
        "dropped.csv": ["device_id,event_time,temperature", *good, f"{device},{begin.isoformat()},warm"],
        "refused.csv": ["device_id,event_time,temprature", *good],
    }
    folder = operator.inbox_folder / type_name
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        part = folder / f"{name}.part"
        part.write_text("\n".join(lines))
        os.utime(part, (time.time() - 60,) * 2)  # nobody has written to it for a while
    for name in files:
        (folder / f"{name}.part").rename(folder / name)

    warehouse = Warehouse.of(operator)
    try:
        with Airflow.of(operator) as airflow:
            for dag in ("file_inbox", "sensor_etl"):
                wait_for(lambda dag=dag: _is_known(airflow, dag), 60, f"Airflow has not read {dag}", every=1)  # type: ignore[misc]
            airflow.wait("file_inbox", airflow.trigger("file_inbox"), 300)
            became = warehouse.rows(
                "SELECT name, outcome, readings, rejected, run_id FROM inbox_files WHERE name = ANY(:names) ORDER BY 1",
                names=[*files],
            )
            (run_id,) = {row.pop("run_id") for row in became}
            assert [tuple(row.values()) for row in became] == [
                ("dropped.csv", "taken", 3, 1), ("refused.csv", "unknown_column", 0, 0),
            ]  # fmt: skip
            assert airflow.wait("file_inbox", run_id, 300) == "failed"
            (task,) = airflow.tasks("file_inbox", run_id)
            assert (task.task_id, task.state, task.try_number) == ("take", "failed", 1)
            assert f"{type_name}/refused.csv: unknown_column" in airflow.log_tail("file_inbox", run_id, task)
            assert airflow.result("file_inbox", etl(operator, "file_inbox"), "take") == {}

        def rolled() -> list[tuple[int, float]]:
            rows = warehouse.rows("SELECT count, mean FROM rollups WHERE device_id = :d AND grain = '1h'", d=device)
            return [(row["count"], row["mean"]) for row in rows]

        def held() -> list[tuple[str, str, str]]:
            sql = "SELECT type, reason, source FROM quarantine WHERE source LIKE :place"
            rows = warehouse.rows(sql, place="file/%")
            return [(row["type"], row["reason"], row["source"]) for row in rows]

        def loaded() -> bool:
            etl(operator, system="weather")
            return bool(rolled() and held())

        wait_for(loaded, 60, lambda: f"{rolled()} in rollups, {held()} in quarantine", every=2)
        assert rolled() == [(3, 21.0)]
        assert held() == [(type_name, "wrong_type", f"file/{type_name}/dropped.csv:5")]
    finally:
        warehouse.close()
