"""A system of its own whose lamps obey commands, with its bridge, for the tests of the commander."""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connections.warehouse import Warehouse
from fleet.catalog import load_catalog
from fleet.settings import Settings
from stack.provision import provision_kafka
from stack.stack import Stack
from tests.command import Weir, command
from tests.integration.bulb import Bulb, Message, obey
from tests.integration.processes import Process, wait_for

SettingsFor = Callable[[str], Settings]
SPEC = """\
type: {type}
version: 1
system: obey
cadence: 1s
lateness: 0s
partition_by: site
partitions: 2
self_registration: true
metrics: {metrics}
examples:
  good: [{{payload: {{device_id: d1, event_time: 1732985789000, values: {{on: 1}}}}, values: {{on: 1}}}}]
  bad: [{{payload: 1, reason: malformed_json}}]
"""
METRICS = "{on: {unit: bool, kind: state}, brightness: {unit: percent, range: [0, 100]}}"
TYPES = {
    "bulb": SPEC.format(type="bulb", metrics=METRICS) + """\
commands:
  on: {sets: {on: 1}, expires: 1m}
  off: {sets: {on: 0}, expires: 1m}
  dim: {args: {level: {unit: percent, range: [0, 100]}}, sets: {brightness: level}, expires: 4s}
""",
    "beam": SPEC.format(type="beam", metrics=METRICS) + """\
alerts:
  - id: broken
    when: on > 0
    actions:
      - {on: firing, type: bulb, command: on}
      - {on: resolved, type: bulb, command: off}
""",
}  # fmt: skip


@dataclass
class Ground:
    types: Path
    settings_for: SettingsFor
    stack: Stack
    warehouse: Warehouse
    weir: Weir
    folder: Path
    process: Process

    def bulb(self, name: str, does: Callable[[Bulb, Message], None] = obey, site: str = "hall") -> Bulb:
        """One that has spoken, and is registered by that."""
        bulb = Bulb(self.settings_for("simulator"), name, does, site).come()
        bulb.say()
        self.until_registered("bulb", name)
        return bulb

    def until_registered(self, type_name: str, name: str) -> None:
        there = "SELECT FROM devices WHERE type = :type AND device_id = :name"
        wait_for(lambda: self.warehouse.rows(there, type=type_name, name=name), 20, f"{name} is not registered")

    def ask(self, device: str, *words: str, **options: Any) -> dict[str, Any]:
        """What `weir command` says of it."""
        said = self.weir("command", device, *words, "--json", "--by", "ada", **options)
        found: dict[str, Any] = json.loads(said.stdout)
        return found

    def begin(self, device: str, *words: str) -> str:
        return str(self.ask(device, *words, "--wait", "0s")["command_id"])

    def shown(self, command_id: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.weir("commands", "show", command_id, "--json").stdout)
        return found

    def until(self, command_id: str, state: str, seconds: float = 20) -> dict[str, Any]:
        wanted = "SELECT FROM commands WHERE command_id = :id AND state = :state"
        wait_for(
            lambda: self.warehouse.rows(wanted, id=command_id, state=state),
            seconds,
            lambda: f"{self.shown(command_id)}\n{self.log()}",
        )
        return self.shown(command_id)

    def of_rule(self, rule: str = "broken", **where: str) -> list[dict[str, Any]]:
        wanted = "".join(f" AND {name} = :{name}" for name in where)
        return self.warehouse.rows(
            f"SELECT * FROM commands WHERE via = 'rule' AND by = :rule{wanted} ORDER BY requested_at, device_id",
            rule=rule, **where,
        )  # fmt: skip

    def killed_at(self, when: str, function: str, call: int = 1) -> Process:
        """Started, and on its way to its end; `process` comes after it."""
        point = when, function, str(call), str(int(signal.SIGKILL))
        return Process(
            "commander", self.settings_for("commander"), self.folder / "commander.log", WEIR_TYPES_DIR=self.types,
            module="tests.integration.killed_at", command=(*point, "service", "commander"),
        ).start()  # fmt: skip

    def log(self) -> str:
        return (self.folder / "commander.log").read_text()[-3000:]


@contextmanager
def commander_ground(stack: Stack, folder: Path) -> Iterator[Ground]:
    """Its bridge runs, a commander does not yet."""
    types = folder / "types"
    types.mkdir()
    for name, text in TYPES.items():
        (types / f"{name}.yaml").write_text(text)
    provision_kafka(f"127.0.0.1:{stack.ports.kafka}", stack.secrets, load_catalog(types))
    weir = command(WEIR_HOME=stack.layout.home, WEIR_TYPES_DIR=types)
    process = Process("commander", stack.settings("commander"), folder / "commander.log", WEIR_TYPES_DIR=types)
    with (
        closing(Warehouse.of(stack.settings("operator"))) as warehouse,
        Process("bridge", stack.settings("bridge"), folder / "bridge.log", WEIR_TYPES_DIR=types) as bridge,
    ):
        bridge.start().ready()
        yield Ground(types, stack.settings, stack, warehouse, weir, folder, process)


def states(command: dict[str, Any]) -> list[str]:
    return [one["state"] for one in command["history"]]
