"""Weir watches itself: its services report as devices, and its rules fire for what is wrong with them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from connections.registry import Registry
from connections.warehouse import Warehouse
from fleet.catalog import load_catalog
from fleet.channels import OWN_TYPE, TRANSITIONS
from fleet.reading import Reading, decode_reading
from fleet.settings import CHECKOUT, SERVICES, Settings
from fleet.transition import decode_transition
from stack.provision import provision_kafka
from stack.stack import Stack
from streaming.reporter import device_id
from tests.integration.logs import readings, records
from tests.integration.processes import Process, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

SettingsFor = Callable[[str], Settings]
TOPIC = "readings.weir"


@pytest.fixture
def types(tmp_path: Path, stack: Stack) -> Path:
    """Weir's own type alone, less patient."""
    folder = tmp_path / "types"
    folder.mkdir()
    text = (CHECKOUT / "fleet" / "types" / f"{OWN_TYPE}.yaml").read_text()
    assert "no_data: 1m" in text
    (folder / f"{OWN_TYPE}.yaml").write_text(text.replace("no_data: 1m", "no_data: 15s"))
    provision_kafka(f"127.0.0.1:{stack.ports.kafka}", stack.secrets, load_catalog(folder))
    return folder


@pytest.fixture
def services(settings_for: SettingsFor, types: Path, tmp_path: Path) -> Iterator[dict[str, Process]]:
    """All but the live sink."""
    started = {
        name: Process(
            name, settings_for(name), tmp_path / f"{name}.log", WEIR_TYPES_DIR=types, WEIR_LAKE_URI=f"file://{tmp_path}",
            WEIR_BRIDGE_HEARTBEAT_SECONDS=1,
        )
        for name in SERVICES if name != "live"
    }  # fmt: skip
    for process in started.values():
        process.start()
    yield started
    for process in started.values():
        process.kill()


def reported(settings: Settings) -> dict[str, list[Reading]]:
    found: dict[str, list[Reading]] = {}
    for record in readings(settings, TOPIC):
        reading = decode_reading(record.value)
        found.setdefault(reading.device_id, []).append(reading)
    return found


def fired(settings: Settings) -> list[tuple[str, str, str]]:
    found = [decode_transition(r.value) for r in records(settings, TRANSITIONS, isolation_level="read_committed")]
    return [(t.device, t.rule, t.to) for t in found if t.type == OWN_TYPE]


def test_services_report_and_are_missed(services: dict[str, Process], settings_for: SettingsFor, types: Path) -> None:
    operator = settings_for("operator")
    for process in services.values():
        process.ready()

    def follow() -> set[str]:
        return {name for name, of in reported(operator).items() if of[-1].values.get("lag") is not None}

    since = {name: len(of) for name, of in reported(operator).items()}
    wait_for(
        lambda: {n for n, of in reported(operator).items() if len(of) > since.get(n, 0) + 1} & follow()
        >= set(map(device_id, services)), 60, lambda: str(reported(operator)), every=1,
    )  # fmt: skip
    last = {name: of[-1].values for name, of in reported(operator).items()}
    assert {"lag", "rejects", "unknown_devices", "restarts", "spec_errors"} == set(last["bridge-1"])
    assert {"lag", "rejects", "unknown_devices", "restarts"} == set(last["gateway-1"])
    assert {"lag", "blocked", "rejects", "lost", "restarts"} == set(last["landing-1"])
    assert {"lag", "ledger_gap", "parity", "parity_unexplained", "rejects", "restarts"} == set(last["history-1"])
    assert {"lag", "waiting", "dead_letters", "failing_receivers", "spec_errors", "rejects", "restarts"} == set(
        last["dispatcher-1"]
    )
    assert {"lag", "blocked", "watermark_delay", "evaluations_per_second", "active_alerts", "capped_alerts", "late",
            "duplicates", "rejects", "restarts"} == set(last["alerts-1"])  # fmt: skip
    assert last["history-1"]["ledger_gap"] == 0

    def lag() -> float:
        said = reported(operator)["alerts-1"][-1].values["lag"]
        assert said is not None
        return said

    wait_for(lambda: 0 <= lag() < 50, 30, lambda: f"alerts are {lag()} readings behind", every=1)
    assert services["landing"].metric('weir_component{metric="lost"}') == 0
    assert 'weir_component{metric="lag"}' in services["history"]._get("/metrics")

    warehouse = Warehouse.of(settings_for("registry"))
    assert {e.device_id for e in Registry(warehouse).devices(OWN_TYPE)} >= set(map(device_id, SERVICES))
    warehouse.close()

    # One that never came up, a file that is wrong, and a service that dies.
    wait_for(lambda: ("live-1", "silent", "firing") in fired(operator), 60, lambda: str(fired(operator)), every=1)
    (types / "broken.yaml").write_text("type: broken\n")
    wait_for(lambda: ("bridge-1", "wrong_spec", "firing") in fired(operator), 60, lambda: str(fired(operator)), every=1)
    (types / "broken.yaml").unlink()
    services["landing"].kill()
    wait_for(
        lambda: ("bridge-1", "wrong_spec", "resolved") in fired(operator), 60, lambda: str(fired(operator)), every=1
    )
    wait_for(lambda: ("landing-1", "silent", "firing") in fired(operator), 60, lambda: str(fired(operator)), every=1)
    services["landing"].start().ready()
    wait_for(
        lambda: ("landing-1", "silent", "resolved") in fired(operator), 60, lambda: str(fired(operator)), every=1
    )  # fmt: skip
