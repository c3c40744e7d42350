"""From a file of the types folder to the alerts, on the real servers: what changed is told to every partition once,
what is wrong changes nothing and is named, and alerts whose rule is gone end."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from connections import kafka
from connections.registry import Registry
from connections.warehouse import Warehouse
from fleet.catalog import load_catalog
from fleet.channels import CONTROL, TRANSITIONS, mark_of
from fleet.control import Control, Device, Spec, decode_control
from fleet.reading import Reading, encode_reading
from fleet.registry import new_entry
from fleet.settings import Settings
from fleet.transition import Transition, decode_transition
from stack.provision import provision_kafka
from stack.stack import Stack
from streaming.announcer import Announcer
from tests.integration.logs import records
from tests.integration.processes import Process, wait_for

pytestmark = pytest.mark.stack

SettingsFor = Callable[[str], Settings]
TOPIC = "readings.kilns"
SPEC = """\
type: {type}
version: 1
system: kilns
cadence: 1s
lateness: 0s
partitions: 3
self_registration: true
metrics:
  heat: {{unit: degC}}
examples:
  good: [{{payload: {{device_id: d1, event_time: 1732985789000, values: {{heat: 1}}}}, values: {{heat: 1}}}}]
  bad: [{{payload: 1, reason: malformed_json}}]
alerts:
  - {{id: hot, when: heat > limit, params: {{limit: 900}}}}
  - {{id: warm, when: heat > 500}}
"""


@pytest.fixture
def types(tmp_path: Path, stack: Stack) -> Path:
    folder = tmp_path / "types"
    folder.mkdir()
    for name in ("kiln", "oven"):
        (folder / f"{name}.yaml").write_text(SPEC.format(type=name))
    provision_kafka(f"127.0.0.1:{stack.ports.kafka}", stack.secrets, load_catalog(folder))
    return folder


@pytest.fixture
def registry(settings_for: SettingsFor) -> Iterator[Registry]:
    warehouse = Warehouse.of(settings_for("registry"))
    yield Registry(warehouse)
    warehouse.close()


@pytest.fixture
def service(settings_for: SettingsFor, types: Path, tmp_path: Path) -> Iterator[Callable[[str], Process]]:
    """Starts a service with the test's own types."""
    started: list[Process] = []

    def start(name: str) -> Process:
        log = tmp_path / f"{name}-{len(started)}.log"
        started.append(Process(name, settings_for(name), log, WEIR_TYPES_DIR=types, WEIR_BRIDGE_HEARTBEAT_SECONDS=1))
        return started[-1].start().ready()

    yield start
    for process in started:
        process.kill()


def controls(settings: Settings) -> list[tuple[int, Control]]:
    return [(r.partition, decode_control(r.value)) for r in records(settings, TOPIC) if mark_of(r.headers) == CONTROL]


def told(settings: Settings, type_name: str, part: str = "") -> Counter[int]:
    """Partition → specs of the type with that in their text."""
    return Counter(
        p for p, c in controls(settings) if isinstance(c, Spec) and c.type == type_name and part in c.text
    )  # fmt: skip


def said(settings: Settings, device: str) -> list[Transition]:
    found = [decode_transition(r.value) for r in records(settings, TRANSITIONS) if mark_of(r.headers) is None]
    return sorted((t for t in found if t.device == device), key=lambda t: t.event_time_us)


def send(settings: Settings, device: str, heat: float, type_name: str = "kiln") -> None:
    producer = kafka.producer(settings, "tests")
    reading = Reading(device, type_name, "yard", time.time_ns() // 1000, {"heat": heat})
    producer.send(TOPIC, encode_reading(reading), device.encode()).get(timeout=20)
    kafka.close(producer, 5)


EACH = {0: 1, 1: 1, 2: 1}


def test_a_file_and_what_becomes_of_it(
    types: Path, settings_for: SettingsFor, service: Callable[[str], Process]
) -> None:
    operator, simulator = settings_for("operator"), settings_for("simulator")
    before = told(operator, "kiln")
    bridge = service("bridge")
    wait_for(lambda: told(operator, "oven") and told(operator, "kiln") - before == EACH, 10, "the specs are not told")
    service("alerts")
    send(simulator, "k-1", 950)
    wait_for(lambda: len(said(operator, "k-1")) == 2, 20, lambda: str(said(operator, "k-1")), every=0.3)

    # A file that is wrong: nothing is told, and it is named.
    kiln = types / "kiln.yaml"
    good = kiln.read_text()
    kiln.write_text(good.replace("heat > limit", "heat > limt"))
    errors = lambda: bridge.metric("weir_bridge_spec_errors")  # noqa: E731
    named = f"{kiln}:14: alerts.0.when: "
    wait_for(lambda: errors() == 1 and named in bridge.log.read_text(), 10, bridge.log.read_text)
    (types / "oven.yaml").write_text(SPEC.format(type="oven").replace("heat > 500", "heat > 501"))
    wait_for(lambda: bridge.log.read_text().count("the rules stay as they were") >= 1, 10, "not named")
    time.sleep(5)  # two looks and more: were the good one of the two told, it would be by now
    assert told(operator, "oven", "heat > 501") == {}

    # Mended, with one rule less: its alert ends, the other's goes on.
    kiln.write_text(good.replace("  - {id: warm, when: heat > 500}\n", ""))
    wait_for(lambda: errors() == 0 and "in order again" in bridge.log.read_text(), 10, bridge.log.read_text)
    wait_for(lambda: len(said(operator, "k-1")) == 3, 20, lambda: str(said(operator, "k-1")), every=0.3)
    assert [(t.rule, t.to, t.reason) for t in said(operator, "k-1")][2] == ("warm", "resolved", "rule_removed")
    assert told(operator, "oven", "heat > 501") == EACH
    assert told(operator, "kiln") - before == dict.fromkeys(EACH, 2)

    # A bridge that starts again, or is killed, tells nothing again.
    bridge.kill()
    bridge = service("bridge")
    wait_for(lambda: "registry revision" in bridge.log.read_text(), 20, lambda: bridge.log.read_text())

    # A type that is gone has no rules.
    kiln.unlink()
    wait_for(lambda: len(said(operator, "k-1")) == 4, 20, lambda: bridge.log.read_text(), every=0.3)
    assert [(t.rule, t.to, t.reason) for t in said(operator, "k-1")][3] == ("hot", "resolved", "rule_removed")
    assert told(operator, "kiln") - before == dict.fromkeys(EACH, 3)

    # It comes back: its devices are told again, for who forgot them with it.
    kiln.write_text(good)
    wait_for(lambda: told(operator, "kiln") - before == dict.fromkeys(EACH, 4), 10, lambda: bridge.log.read_text())


def test_two_watchers_tell_it_once(types: Path, settings_for: SettingsFor, registry: Registry) -> None:
    """And devices that were registered before their type was ever announced are told after it."""
    operator = settings_for("operator")
    (types / "oven.yaml").unlink()
    (types / "stove.yaml").write_text(SPEC.format(type="stove"))
    settings = settings_for("bridge").model_copy(update={"types_dir": types})
    catalog = load_catalog(types)
    stove = catalog.type("stove")
    with registry.changes() as changes:
        changes.put(stove, None, new_entry(stove, "s-1", "yard", changes.at, params={"limit": 100.0}))
    watchers = [Announcer(settings) for _ in range(4)]
    stop = threading.Event()
    threads = [threading.Thread(target=watcher.run, args=(stop,)) for watcher in watchers]
    for thread in threads:
        thread.start()
    wait_for(lambda: sum(told(operator, "stove").values()) >= 3, 20, "not told")
    (types / "stove.yaml").write_text(SPEC.format(type="stove").replace("heat > 500", "heat > 502"))
    wait_for(lambda: sum(told(operator, "stove", "heat > 502").values()) >= 3, 20, "the change is not told")
    time.sleep(3)  # for all four to look again
    stop.set()
    for thread in threads:
        thread.join(20)
    assert told(operator, "stove", "heat > 502") == EACH
    assert told(operator, "stove") == dict.fromkeys(EACH, 2)
    assert registry.state([TOPIC])[1] is False
    of_stove = [c for _, c in controls(operator) if getattr(c, "type", "") == "stove"]
    assert [c.params for c in of_stove if isinstance(c, Device)] == [{"limit": 100.0}] * 2
    partition = next(p for p, c in controls(operator) if isinstance(c, Device) and c.device == "s-1")
    order = [type(c) for p, c in controls(operator) if p == partition and getattr(c, "type", "") == "stove"]
    assert order == [Device, Spec, Device, Spec]
