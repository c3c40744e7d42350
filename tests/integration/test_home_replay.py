"""Ten minutes of a real night, replayed by MQTT through bridge and rules: the door that opened is told of."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fleet.channels import TRANSITIONS
from fleet.settings import Settings
from fleet.transition import decode_transition
from tests.command import Weir
from tests.integration.logs import readings, records
from tests.integration.processes import Process, wait_for
from tests.recordings import HOME, needs_home

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300), needs_home]
SettingsFor = Callable[[str], Settings]
SITE = "ordonez"
REPLAY = ("replay", "home", str(HOME / "OrdonezA_Sensors.txt"), "--site", SITE)
FROM_THE_NIGHT_ON = f"{12 * 24 * 60 + 22 * 60 + 23}m"
"""The recording begins on 28 November 2011 at 02:27; on 11 December its resident comes home at 00:56:01."""


def test_a_door_at_night_is_told_of(
    weir: Weir, settings_for: SettingsFor, own_types: Path, own_bridge: Process, tmp_path: Path
) -> None:
    operator = settings_for("operator")
    said = weir(*REPLAY, "--registry", str(tmp_path / "home.csv")).stdout
    assert "13 devices" in said
    weir("devices", "import", str(tmp_path / "home.csv"))
    own_bridge.start().ready()
    until = datetime.now(UTC).replace(hour=1, minute=0, second=0, microsecond=0) - timedelta(days=1)
    done = weir(
        *REPLAY, "--skip", FROM_THE_NIGHT_ON, "--duration", "10m", "--speed", "0", "--until", until.isoformat(),
        "--json",
    )  # fmt: skip
    assert "rejected as unknown_device" in done.stderr and "door_sensor" in done.stderr
    published = json.loads(done.stdout)["published"]
    assert published > 100

    def bridged() -> int:
        return sum(record.key == SITE.encode() for record in readings(operator, "readings.home"))

    wait_for(lambda: bridged() == published, 30, own_bridge.log.read_text, every=0.5)

    def told() -> list[tuple[str, str, str]]:
        found = [decode_transition(r.value) for r in records(operator, TRANSITIONS, isolation_level="read_committed")]
        return [(t.rule, t.device, t.to) for t in found if t.site == SITE and t.rule == "door_opened_at_night"]

    alerts = Process("alerts", settings_for("alerts"), tmp_path / "alerts.log", WEIR_TYPES_DIR=own_types)
    with alerts:
        alerts.start().ready()
        wait_for(lambda: len(told()) >= 2, 30, alerts.log.read_text, every=0.5)
    rule, door = "door_opened_at_night", "front-door"
    assert told() == [(rule, door, "firing"), (rule, door, "resolved")]
