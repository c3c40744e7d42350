"""A stove that nobody looks after: its rule fires, its command goes out, and the simulated plug obeys; all on real
servers, by the specs as they are."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from connections.warehouse import Warehouse
from fleet.catalog import Catalog
from fleet.channels import CONTROL, mark_of
from fleet.reading import Reading, decode_reading
from fleet.settings import Settings
from simulators.obedience import SUBSCRIPTION
from simulators.session import Order, Source, conduct
from simulators.timeline import Timeline
from tests.command import Weir
from tests.integration.logs import readings, records
from tests.integration.processes import Process, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
SettingsFor = Callable[[str], Settings]
SITE, TOPIC, RULE = "home-auto", "readings.home", "stove_switched_off"
STOVES = ("stove-1", "stove-2", "stove-3")
"""A simulated plug refuses a command in fifty: not all three."""
KEPT, IRON = "stove-kept", "iron-auto"
PLUGS = {**dict.fromkeys(STOVES, "stove=1"), KEPT: "stove=1 switch_off=0", IRON: ""}
ENDS = ("obeyed", "refused", "expired")
US = 1_000_000
ALONE_SECONDS = 605
"""Longer than the rule waits."""


@dataclass
class House:
    """Everybody has left, and everything is on. Ten minutes of that go by in as many seconds, then it goes on."""

    catalog: Catalog
    over: threading.Event = field(default_factory=threading.Event)

    def readings(self, timeline: Timeline) -> Iterator[Reading]:
        number = 0
        while not self.over.is_set():
            at = timeline.first_us + number * 2 * US
            yield self._said("presence_tag", "tag-auto", at, {"present": 0.0})
            for device in PLUGS:
                yield self._said("smart_plug", device, at, {"on": 1.0, "power": 1800.0, "energy": 1000.0 + number})
            number += 1

    def _said(self, type_name: str, device: str, at: int, values: dict[str, float | None]) -> Reading:
        return Reading(device, type_name, SITE, at, values, None, self.catalog.type(type_name).version)


@pytest.fixture
def registered(weir: Weir, own_bridge: Process, settings_for: SettingsFor) -> None:
    """The devices, in the log before their first readings."""
    for device, params in PLUGS.items():
        options = [word for param in params.split() for word in ("--param", param)]
        weir("devices", "add", "smart_plug", device, "--site", SITE, *options)
    weir("devices", "add", "presence_tag", "tag-auto", "--site", SITE)
    own_bridge.start().ready()

    def told() -> set[str]:
        log = records(settings_for("operator"), TOPIC)
        return {
            name for name in PLUGS for r in log if mark_of(r.headers) == CONTROL and f'"{name}"'.encode() in r.value
        }

    wait_for(lambda: told() == set(PLUGS), 30, lambda: str(told()), every=0.5)


def test_a_stove_is_switched_off_while_nobody_is_at_home(
    registered: None, settings_for: SettingsFor, own_types: Path, own_catalog: Catalog, tmp_path: Path
) -> None:
    house = House(own_catalog)
    source = Source(
        ALONE_SECONDS * US, ("smart_plug", "presence_tag"), house.readings, commands=SUBSCRIPTION
    )  # fmt: skip
    services = [
        Process(name, settings_for(name), tmp_path / f"{name}.log", WEIR_TYPES_DIR=own_types)
        for name in ("alerts", "commander")
    ]
    running = threading.Thread(
        target=conduct,
        args=(settings_for("simulator"), own_catalog, Order("mqtt", speed=60.0), source, {}),
        daemon=True,
    )
    with closing(Warehouse.of(settings_for("operator"))) as warehouse, services[0], services[1]:

        def commands() -> dict[str, tuple[str, str]]:
            rows = warehouse.rows("SELECT * FROM commands WHERE via = 'rule' AND by = :rule", rule=RULE)
            return {row["device_id"]: (row["state"], row["reason"]) for row in rows}

        def ended() -> bool:
            return len(commands()) == len(STOVES) and all(state in ENDS for state, _ in commands().values())

        def logs() -> str:
            return "\n".join(process.log.read_text()[-2000:] for process in services) + str(commands())

        for process in services:
            process.start().ready()
        running.start()
        try:
            wait_for(ended, 60, logs, 0.5)
        finally:
            house.over.set()
            running.join(30)
        found = commands()
    obeyed = {device for device, (state, _) in found.items() if state == "obeyed"}
    assert set(found) == set(STOVES) and obeyed
    assert {found[device] for device in set(found) - obeyed} <= {("refused", "busy")}
    last = last_values(settings_for("operator"))
    for device in PLUGS:
        said = (last[device]["on"], last[device]["power"])
        assert said == ((0.0, 0.0) if device in obeyed else (1.0, 1800.0)), device


def last_values(settings: Settings) -> dict[str, dict[str, float | None]]:
    """Of the house's plugs, by the log."""
    found = [decode_reading(r.value) for r in readings(settings, TOPIC) if r.key == SITE.encode()]
    return {one.device_id: one.values for one in found if one.device_type == "smart_plug"}
