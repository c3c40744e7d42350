"""A cap on the real servers: marked in the log and the tables, and told of by an alert of Weir's own."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from connections import kafka
from connections.warehouse import Warehouse
from fleet.catalog import load_catalog
from fleet.channels import OWN_TYPE
from fleet.reading import Reading, encode_reading
from fleet.settings import CHECKOUT, Settings
from stack.provision import provision_kafka
from stack.stack import Stack
from tests.integration.processes import Process, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

SettingsFor = Callable[[str], Settings]
SPEC = """\
type: grill
version: 1
system: grills
cadence: 1s
partitions: 1
max_active_alerts: 2
self_registration: true
metrics: {heat: {unit: degC}}
examples:
  good: [{payload: {device_id: d1, event_time: 1732985789000, values: {heat: 1}}, values: {heat: 1}}]
  bad: [{payload: 1, reason: malformed_json}]
alerts: [{id: hot, when: heat > 300}]
"""


@pytest.fixture
def types(tmp_path: Path, stack: Stack) -> Path:
    folder = tmp_path / "types"
    folder.mkdir()
    (folder / "grill.yaml").write_text(SPEC)
    own = f"{OWN_TYPE}.yaml"
    (folder / own).write_text((CHECKOUT / "fleet" / "types" / own).read_text())
    provision_kafka(f"127.0.0.1:{stack.ports.kafka}", stack.secrets, load_catalog(folder))
    return folder


@pytest.fixture
def running(settings_for: SettingsFor, types: Path, tmp_path: Path) -> Iterator[dict[str, Process]]:
    started = {
        name: Process(name, settings_for(name), tmp_path / f"{name}.log", WEIR_TYPES_DIR=types).start()
        for name in ("bridge", "alerts", "history")
    }
    yield started
    for process in started.values():
        process.kill()


def grill(settings: Settings, heat: float, *devices: str) -> None:
    producer = kafka.producer(settings, "tests")
    for device in devices:
        reading = Reading(device, "grill", "yard", time.time_ns() // 1000, {"heat": heat})
        producer.send("readings.grills", encode_reading(reading), device.encode()).get(timeout=20)
    kafka.close(producer, 5)


def test_what_is_beyond_the_cap(settings_for: SettingsFor, running: dict[str, Process]) -> None:
    simulator, warehouse = settings_for("simulator"), Warehouse.of(settings_for("operator"))
    for process in running.values():
        process.ready()
    wait_for(lambda: running["bridge"].metric("weir_bridge_specs_total") >= 2, 20, "the specs are not told")
    wait_for(lambda: warehouse.rows("SELECT FROM specs WHERE type = 'grill'"), 10, "not there")
    grill(simulator, 350, "g1", "g2", "g3", "g4")

    def rows(where: str) -> list[tuple[object, ...]]:
        found = warehouse.rows(f"SELECT device_id, capped, resolved_at IS NULL AS active FROM alerts WHERE {where}")
        return sorted(tuple(row.values()) for row in found)

    grills = "type = 'grill'"
    wait_for(lambda: len(rows(grills)) == 4, 30, lambda: str(rows(grills)), every=0.3)
    assert rows(grills) == [("g1", False, True), ("g2", False, True), ("g3", True, True), ("g4", True, True)]
    assert running["alerts"].metric("weir_alerts_capped") == 2

    own = f"type = '{OWN_TYPE}' AND rule = 'alerts_capped'"
    wait_for(lambda: rows(own) == [("alerts-1", False, True)], 40, lambda: str(rows(own)), every=0.5)
    title = warehouse.rows(f"SELECT title FROM alerts WHERE {own}")[0]["title"]
    assert title.startswith("2 alerts are beyond their rule's cap"), title
    grill(simulator, 20, "g1", "g2", "g3", "g4")
    wait_for(lambda: rows(own) == [("alerts-1", False, False)], 40, lambda: str(rows(own)), every=0.5)
    assert {active for _, _, active in rows(grills)} == {False}
    warehouse.close()
