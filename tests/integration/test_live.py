"""Kafka → the table of recent readings, killed and cut off from its database: the table equals the log."""

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from connections import kafka
from connections.warehouse import Warehouse
from fleet.contract import Intake, Reject
from fleet.reading import Reading, encode_reading
from fleet.settings import Settings
from stack.credentials import owner_url
from stack.stack import Stack
from tests.integration.logs import readings
from tests.integration.processes import Process, wait_for
from tests.integration.test_landing import Writer
from tests.unit.test_landing import INTAKE

pytestmark = pytest.mark.stack


def expected(settings: Settings, site: str, intake: Intake) -> Counter[tuple[object, ...]]:
    """The log's rows in long form."""
    rows: Counter[tuple[object, ...]] = Counter()
    for record in readings(settings, "sensor"):
        reading = intake.read_record("sensor", record.value)
        if isinstance(reading, Reading) and reading.site == site:
            rows.update(
                (reading.event_time, reading.device_id, metric, value, reading.seq, record.partition, record.offset)
                for metric, value in reading.values.items()
            )
        else:
            assert isinstance(reading, Reject | Reading)
    return rows


def in_table(warehouse: Warehouse, site: str) -> Counter[tuple[object, ...]]:
    found = warehouse.rows(
        "SELECT event_time, device_id, metric, value, seq, kafka_partition, kafka_offset FROM readings"
        " WHERE site = :site AND system = 'weather' AND type = 'weather_station' AND kafka_topic = 'sensor'",
        site=site,
    )
    return Counter(tuple(row.values()) for row in found)


def count(warehouse: Warehouse, site: str) -> int:
    return int(warehouse.rows("SELECT count(*) AS n FROM readings WHERE site = :site", site=site)[0]["n"])


def test_kill_9_and_a_database_restart(settings_for: Callable[[str], Settings], stack: Stack, tmp_path: Path) -> None:
    operator = settings_for("operator")
    warehouse = Warehouse.of(operator)
    site = "live-kills"
    writer = Writer(settings_for("simulator"), site)
    chance = random.Random(2)
    live = Process("live", settings_for("live"), tmp_path / "live.log", WEIR_LIVE_MAX_SECONDS=0.1)
    with live:
        for _ in range(5):
            before = count(warehouse, site)
            live.start()
            wait_for(lambda before=before: count(warehouse, site) > before, 30, live.log.read_text)
            time.sleep(chance.uniform(0, 0.4))  # it writes ten times a second: any moment of that may be hit
            live.kill()
        live.start().ready()
        stack.restart("postgres")
        sent = writer.end()
        rows = expected(operator, site, INTAKE)
        assert rows.total() > 0.9 * sent
        wait_for(
            lambda: count(warehouse, site) >= rows.total(), 60, lambda: f"{count(warehouse, site)} of {rows.total()}"
        )
        assert live.stop() == 0
    assert in_table(warehouse, site) == rows
    warehouse.close()


def test_a_record_that_the_table_refuses_is_passed_over_alone(
    settings_for: Callable[[str], Settings], stack: Stack, tmp_path: Path
) -> None:
    owner, warehouse = Warehouse(owner_url(stack.secrets, stack.ports), "tests"), Warehouse.of(settings_for("operator"))
    producer = kafka.producer(settings_for("simulator"), "tests")
    site, poison, now_us = "live-poison", (3, 40, 41, 99), time.time_ns() // 1000
    live = Process("live", settings_for("live"), tmp_path / "live.log", WEIR_LIVE_MAX_SECONDS=1)
    with owner.transaction() as connection:
        connection.execute(
            text("ALTER TABLE readings ADD CONSTRAINT poison CHECK (site <> 'live-poison' OR value < 1e9)")
        )
    try:
        for n in range(100):
            values = {"humidity": 2e9 if n in poison else 50.0, "temperature": float(n)}
            reading = Reading("1", "weather_station", site, now_us, values, n)
            producer.send("sensor", encode_reading(reading), b"1")
        producer.flush(20)
        with live:
            live.start()
            wait_for(lambda: count(warehouse, site) >= 2 * (100 - len(poison)), 30, live.log.read_text)
            assert live.stop() == 0
    finally:
        producer.close(5)
        with owner.transaction() as connection:
            connection.execute(text("ALTER TABLE readings DROP CONSTRAINT poison"))
        owner.close()
    found = warehouse.rows("SELECT seq, count(*) AS n FROM readings WHERE site = :site GROUP BY seq", site=site)
    assert {row["seq"]: row["n"] for row in found} == {n: 2 for n in range(100) if n not in poison}
    assert live.log.read_text().count("is refused by the table and passed over") == len(poison)
    warehouse.close()
