"""The alert service when a transaction fails: one new beginning, and each transition once."""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from connections import kafka
from connections.kafka_transactions import transactional_producer
from fleet.catalog import load_catalog
from fleet.channels import ALERTS_GROUP, CONTROL, MARK_HEADER, TRANSITIONS
from fleet.control import Spec, encode_control
from fleet.errors import Refused
from fleet.reading import Reading, encode_reading
from fleet.settings import Settings
from fleet.transition import Transition, decode_transition, encode_transition
from stack.provision import provision_kafka
from stack.stack import Stack
from streaming import alerts as service
from streaming.alerts import Alerts
from tests.integration.logs import records
from tests.integration.processes import wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

DEVICES = 40
SPEC = """\
type: {name}
version: 1
system: {name}s
cadence: 1s
partitions: 1
self_registration: true
metrics: {{heat: {{unit: degC}}}}
examples:
  good: [{{payload: {{device_id: d1, event_time: 1732985789000, values: {{heat: 1}}}}, values: {{heat: 1}}}}]
  bad: [{{payload: 1, reason: malformed_json}}]
alerts: [{{id: hot, when: heat > 300}}]
"""


class Running:
    """The service on a thread of this process, with a type of its own."""

    def __init__(self, settings: Settings, name: str):
        self.name, self.alerts = name, Alerts(settings)
        self.ended_by: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.alerts.run(self._stop)
        except Refused as error:
            self.ended_by = error

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.fixture
def ground(stack: Stack, settings_for: Callable[[str], Settings], tmp_path: Path) -> Iterator[tuple[Settings, str]]:
    """The service's settings, and the name of a device type that is new to the log."""
    name = f"kiln_{secrets.token_hex(4)}"
    folder = tmp_path / "types"
    folder.mkdir()
    text = SPEC.format(name=name)
    (folder / f"{name}.yaml").write_text(text)
    provision_kafka(f"127.0.0.1:{stack.ports.kafka}", stack.secrets, load_catalog(folder))
    control = Spec(revision=1, at=time.time_ns() // 1_000_000, type=name, version=1, text=text)
    producer = kafka.producer(settings_for("registry"), "tests")
    mark = [(MARK_HEADER, CONTROL)]
    producer.send(f"readings.{name}s", encode_control(control), partition=0, headers=mark).get(20)
    kafka.close(producer, 5)
    yield (
        settings_for("alerts").model_copy(
            update={"types_dir": folder, "service_instance": name, "alerts_metrics_port": 0}
        ),
        name,
    )


def heat(settings: Settings, name: str, value: float) -> None:
    producer = kafka.producer(settings, "tests")
    for n in range(DEVICES):
        reading = Reading(f"d{n}", name, "yard", time.time_ns() // 1000, {"heat": value})
        producer.send(f"readings.{name}s", encode_reading(reading), f"d{n}".encode())
    kafka.close(producer, 20)


def told(settings: Settings, name: str) -> list[tuple[str, str]]:
    """(device, to), of transitions that are there for good."""
    found = map(decode_transition, (r.value for r in records(settings, TRANSITIONS, isolation_level="read_committed")))
    return sorted((t.device, t.to) for t in found if t.type == name)


@pytest.mark.parametrize("most", [3, service.TRANSACTION_TRANSITIONS])
def test_fenced_within_a_transaction_it_begins_anew_once(
    ground: tuple[Settings, str], settings_for: Callable[[str], Settings], monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """As the broker does to a transaction that was open for too long: it raises the epoch while records are sent."""
    settings, name = ground
    operator, simulator = settings_for("operator"), settings_for("simulator")
    encoded: list[Transition] = []

    def fence_once(transition: Transition) -> bytes:
        encoded.append(transition)
        if len(encoded) == 5:
            other = transactional_producer(settings, "tests", f"alerts-{kafka.instance_id(settings, ALERTS_GROUP)}")
            kafka.close(other)
        return encode_transition(transition)

    monkeypatch.setattr(service, "TRANSACTION_TRANSITIONS", most)
    monkeypatch.setattr(service, "encode_transition", fence_once)
    heat(simulator, name, 350)
    running = Running(settings, name)
    try:
        everything = sorted((f"d{n}", "firing") for n in range(DEVICES))
        wait_for(lambda: told(operator, name) == everything, 60, lambda: str(told(operator, name)), every=0.5)
        assert running.alerts.failed_commits == 1
        heat(simulator, name, 20)
        everything = sorted((f"d{n}", to) for n in range(DEVICES) for to in ("firing", "resolved"))
        wait_for(lambda: told(operator, name) == everything, 60, lambda: str(told(operator, name)), every=0.5)
        assert running.alerts.failed_commits == 1
    finally:
        running.stop()
    assert running.ended_by is None


def test_of_two_with_one_name_the_newer_goes_on(
    ground: tuple[Settings, str], settings_for: Callable[[str], Settings]
) -> None:
    settings, name = ground
    operator, simulator = settings_for("operator"), settings_for("simulator")
    older = Running(settings, name)
    newer = None
    try:
        heat(simulator, name, 350)
        wait_for(lambda: len(told(operator, name)) == DEVICES, 60, "nothing is told", every=0.5)
        newer = Running(settings, name)
        wait_for(lambda: older.ended_by is not None, 60, "the older one goes on")
        assert "has taken over" in str(older.ended_by)
        heat(simulator, name, 20)
        everything = sorted((f"d{n}", to) for n in range(DEVICES) for to in ("firing", "resolved"))
        wait_for(lambda: told(operator, name) == everything, 60, lambda: str(told(operator, name)), every=0.5)
        assert newer.ended_by is None
    finally:
        for running in filter(None, (older, newer)):
            running.stop()
