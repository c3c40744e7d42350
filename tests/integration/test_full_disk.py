"""A disk that really is full: what was acknowledged stays, what is not waits, and all of it is there in the end."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pytest
from pyarrow import parquet
from sqlalchemy import text

from connections.lake import Lake
from connections.warehouse import Warehouse
from fleet.errors import Unavailable, WeirError
from fleet.settings import CHECKOUT, Settings
from stack.layout import Layout
from stack.ports import Ports
from stack.supervisor import Supervisor
from tests.conftest import own_home
from tests.integration.logs import readings
from tests.integration.processes import Process, wait_for
from tests.integration.small_disk import small_disk
from tests.integration.test_landing import Writer, caught_up, check, ends, landed

pytestmark = pytest.mark.stack

SettingsFor = Callable[[str], Settings]


def test_landing_waits_for_room(settings_for: SettingsFor, tmp_path: Path) -> None:
    operator = settings_for("operator")
    with small_disk(tmp_path / "lake", "64m") as disk:
        lake = Lake(f"file://{disk.seen}")
        landing = Process(
            "landing", settings_for("landing"), tmp_path / "landing.log", disk.words,
            WEIR_LAKE_URI=f"file://{tmp_path}/lake", WEIR_LANDING_MAX_ROWS=1000, WEIR_LANDING_MAX_SECONDS=0.3,
        )  # fmt: skip
        with landing.start().ready():
            writer = Writer(settings_for("simulator"), "full-disk")
            wait_for(lambda: landed(lake), 30, landing.log.read_text)
            disk.fill()
            wait_for(lambda: "No space left on device" in landing.readiness(), 30, landing.readiness)
            wait_for(lambda: landing.metric("weir_landing_failed_flushes_total") >= 10, 30, "it does not try again")
            disk.make_room()
            writer.end()
            wait_for(lambda: caught_up(lake, operator), 60, landing.readiness, every=0.5)
            landing.ready()
            assert landing.stop() == 0
        check(lake, operator, ends(operator))


MANY_ROWS = """INSERT INTO readings
SELECT now(), 'weather', 'weather_station', 'full', 'd', 'humidity', n, NULL, 'sensor', 0, n
FROM generate_series(1, 1000000) n"""
"""150 MB, in a transaction that finds no room for them."""


def in_log(settings: Settings) -> Counter[tuple[int, int]]:
    return Counter((r.partition, r.offset) for r in readings(settings, "sensor"))


def in_lake(lake: Lake) -> Counter[tuple[int, int]]:
    places = [place for place in lake.landed_partitions() if place[0] == "sensor"]
    paths = [f.path for place in places for m in lake.manifests(*place) for f in m.files]
    tables = [parquet.read_table(lake.path(path), partitioning=None).to_pylist() for path in paths]
    return Counter((row["kafka_partition"], row["kafka_offset"]) for rows in tables for row in rows)


def in_table(settings: Settings) -> Counter[tuple[int, int]]:
    warehouse = Warehouse.of(settings)
    try:
        rows = warehouse.rows("SELECT kafka_partition, kafka_offset FROM readings WHERE metric = 'humidity'")
        return Counter((row["kafka_partition"], row["kafka_offset"]) for row in rows)
    finally:
        warehouse.close()


def test_everything_is_on_a_full_disk() -> None:
    """Logs, Mosquitto's queue, Kafka, PostgreSQL and the lake at once, as on a machine with one disk. Servers that stop
    are started again until there is room."""
    with own_home() as home, small_disk(home, "200m") as disk:
        ports = {f"WEIR_PORT_{name.upper()}": str(port) for name, port in asdict(Ports.free()).items()}
        environ = {k: v for k, v in os.environ.items() if not k.startswith("WEIR_")}
        environ |= {"WEIR_HOME": str(home), "WEIR_LANDING_MAX_SECONDS": "1", **ports}

        def weir(*arguments: str) -> subprocess.Popen[str]:
            command = [*disk.words, sys.executable, "-m", "weir.main", *arguments]
            return subprocess.Popen(command, env=environ, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)

        def settings(role: str) -> Settings:
            return Settings.load({"WEIR_ENV_FILE": str(disk.seen / "env" / f"{role}.env")})

        def kafka_pid() -> int:
            return int(supervisor.programs()["kafka"]["pid"])

        supervisor, lake = Supervisor(Layout(disk.seen)), Lake(f"file://{disk.seen}/lake")
        try:
            assert weir("up", "bridge", "landing", "live").wait(120) == 0
            operator, live = settings("operator"), Warehouse.of(settings("live"))
            before = kafka_pid()
            simulator = weir("simulate", "weather", "--rate", "500", "--duration", "15", "--seq", "--json")
            wait_for(lambda: in_table(operator), 30, "nothing arrives")
            disk.fill()
            wait_for(lambda: kafka_pid() not in (0, before), 30, "Kafka has room")
            with pytest.raises(Unavailable, match="No space left on device"), live.transaction() as connection:
                connection.execute(text(MANY_ROWS))
            live.close()
            disk.make_room()
            sent = json.loads(simulator.communicate(timeout=120)[0])["published"]
            messages = set[bytes]()

            def arrived() -> bool:
                with suppress(WeirError):
                    messages.update(record.value for record in readings(operator, "sensor"))
                return len(messages) == sent == 7500

            wait_for(arrived, 60, lambda: f"{len(messages)} of {sent}", every=0.5)
            log = in_log(operator)
            wait_for(lambda: in_table(operator).total() >= log.total(), 30, "not all is in the table", every=0.5)
            wait_for(lambda: in_lake(lake).total() >= log.total(), 30, "not all is in the lake", every=0.5)
            assert in_table(operator) == in_lake(lake) == log
        finally:
            assert weir("down").wait(60) == 0
