"""Commands to real devices by real servers: obeyed, refused, late, away; and nothing lost or doubled by kill -9."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from connections import kafka
from connections.warehouse import Warehouse
from fleet.catalog import load_catalog
from fleet.channels import TRANSITIONS
from fleet.settings import Settings
from fleet.transition import Transition, encode_transition
from stack.provision import provision_kafka
from stack.stack import Stack
from tests.command import Weir, command
from tests.integration.bulb import Bulb, Message, apply, hold, obey, refuse
from tests.integration.gateway_clients import Gateway
from tests.integration.processes import Process, wait_for
from tests.integration.registry_log import away

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

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
        wait_for(
            lambda: self.shown(command_id)["state"] == state, seconds, lambda: f"{self.shown(command_id)}\n{self.log()}"
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
        return Process(
            "commander", self.settings_for("commander"), self.folder / "commander.log", WEIR_TYPES_DIR=self.types,
            module="tests.integration.killed_at", command=(when, function, str(call), "service", "commander"),
        ).start()  # fmt: skip

    def log(self) -> str:
        return (self.folder / "commander.log").read_text()[-3000:]


@pytest.fixture(scope="module")
def yard(
    stack: Stack, settings_for: SettingsFor, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ground]:  # fmt: skip
    """A system of its own with its bridge, for all tests here."""
    folder = tmp_path_factory.mktemp("commander")
    types = folder / "types"
    types.mkdir()
    for name, text in TYPES.items():
        (types / f"{name}.yaml").write_text(text)
    provision_kafka(f"127.0.0.1:{stack.ports.kafka}", stack.secrets, load_catalog(types))
    weir = command(WEIR_HOME=stack.layout.home, WEIR_TYPES_DIR=types)
    process = Process("commander", settings_for("commander"), folder / "commander.log", WEIR_TYPES_DIR=types)
    with (
        closing(Warehouse.of(settings_for("operator"))) as warehouse,
        Process("bridge", settings_for("bridge"), folder / "bridge.log", WEIR_TYPES_DIR=types) as bridge,
    ):
        bridge.start().ready()
        yield Ground(types, settings_for, stack, warehouse, weir, folder, process)


@pytest.fixture
def ground(yard: Ground) -> Iterator[Ground]:
    """With a commander that runs, unless the test stops it."""
    yard.process.start().ready()
    yield yard
    yard.process.kill()


def states(command: dict[str, Any]) -> list[str]:
    return [one["state"] for one in command["history"]]


@pytest.mark.parametrize("does", [obey, apply], ids=["answers and obeys", "obeys without a word"])
def test_a_device_obeys(ground: Ground, does: Callable[[Bulb, Message], None]) -> None:
    with closing(ground.bulb(f"obeys-{does.__name__}", does)) as bulb:
        found = ground.ask(bulb.device_id, "on", "--why", "it is dark", "--wait", "30s")
        assert (found["state"], found["by"], found["why"], found["via"]) == ("obeyed", "ada", "it is dark", "cli")
        assert states(found) == ["requested", "sent", *(["delivered"] if does is obey else []), "obeyed"]
        assert found["sets"] == {"on": 1} and found["site"] == "hall"
        (message,) = bulb.got
        assert set(message) == {"id", "command", "args", "expires"}
        assert message["id"] == found["command_id"] and 0 < message["expires"] - time.time() < 61
        assert ground.ask(bulb.device_id, "dim", "level=40", "--wait", "30s")["state"] == "obeyed"
        listed = json.loads(ground.weir("commands", "list", "--device", bulb.device_id, "--json").stdout)
        assert [row["command"] for row in listed] == ["dim", "on"]


def test_a_device_refuses(ground: Ground) -> None:
    with closing(ground.bulb("refuses", refuse)) as bulb:
        found = ground.ask(bulb.device_id, "on", "--wait", "30s", code=1)
        assert (found["state"], found["reason"]) == ("refused", "the filament is broken")
        assert states(found) == ["requested", "sent", "refused"]


def test_a_device_that_answers_late(ground: Ground) -> None:
    with closing(ground.bulb("late", hold)) as bulb:
        found = ground.ask(bulb.device_id, "dim", "level=40", "--wait", "30s", code=1)
        assert found["state"] == "expired"
        assert found["reason"] == "the device did not answer; by its readings brightness was not told"
        before = ground.process.metric("weir_commander_late_answers_total")
        obey(bulb, bulb.got[0])
        wait_for(lambda: ground.process.metric("weir_commander_late_answers_total") > before, 20, ground.log)
        assert ground.shown(found["command_id"])["state"] == "expired"


def test_a_device_that_takes_it_and_does_something_else(ground: Ground) -> None:
    def half(bulb: Bulb, message: Message) -> None:
        bulb.answer(message, "delivered")
        bulb.values["brightness"] = 30
        bulb.say()

    with closing(ground.bulb("half", half)) as bulb:
        found = ground.ask(bulb.device_id, "dim", "level=40", "--wait", "30s", code=1)
        assert states(found) == ["requested", "sent", "delivered", "expired"]
        assert found["reason"] == "the device has it; by its readings brightness is 30, not 40"


def test_a_device_that_is_away(ground: Ground) -> None:
    """The broker gives it what has not expired, and no more."""
    bulb = ground.bulb("away")
    bulb.leave()
    first, second = ground.begin("away", "dim", "level=40"), ground.begin("away", "on")
    ground.until(first, "expired")
    with closing(bulb.come()):
        assert ground.until(second, "obeyed")["state"] == "obeyed"
        assert bulb.ids() == [second]


def test_a_device_that_never_listened(ground: Ground) -> None:
    with closing(ground.bulb("speaker")) as bulb:
        bulb.tell("bulb", "deaf", bulb.values)
        ground.until_registered("bulb", "deaf")
        sent = next(
            one for one in ground.until(ground.begin("deaf", "on"), "sent")["history"] if one["state"] == "sent"
        )
        assert sent["reason"] == "nobody listens on the device's topic"


def test_the_same_id_again_is_the_same_command(ground: Ground) -> None:
    with closing(ground.bulb("again")) as bulb:
        found = [ground.ask("again", "on", "--id", "evening-1", "--wait", "30s") for _ in range(2)]
        assert found[0] == found[1]
        assert bulb.ids() == ["evening-1"]
        said = ground.weir("command", "again", "off", "--id", "evening-1", code=1).stderr
        assert "command 'evening-1' is another one already: on to bulb again" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["wrongs", "onn"], "a bulb knows no command 'onn'; did you mean 'on'?"),
        (["wrongs", "dim"], "dim wants level=… (percent, 0 to 100)"),
        (["wrongs", "dim", "level=101"], "level is 0 to 100 in percent; found 101"),
        (["wrongs", "dim", "level=high"], "expected NAME=NUMBER"),
        (["wrong", "on"], "no device 'wrong'; did you mean 'wrongs'?"),
        (["wrongs", "on", "--type", "blub"], "no device type 'blub'; did you mean 'bulb'?"),
        (["wrongs", "on", "--type", "beam"], "no device 'wrongs'"),
        (["beam-wrong", "on"], "a beam obeys no commands"),
        (["gone", "on"], "bulb gone is retired since"),
        (["wrongs", "on", "--wait", "soon"], "--wait 'soon': a duration is"),
    ],
)
def test_what_no_device_can_take(yard: Ground, words: list[str], says: str) -> None:
    if not yard.warehouse.rows("SELECT FROM devices WHERE device_id = 'gone'"):
        bulb = yard.bulb("wrongs")
        for type_name, name in (("beam", "beam-wrong"), ("bulb", "gone")):
            bulb.tell(type_name, name, {"on": 0})
            yard.until_registered(type_name, name)
        yard.weir("devices", "retire", "bulb", "gone")
        bulb.leave()
    assert says in yard.weir("command", *words, code=1).stderr


def test_a_device_that_is_retired_before_it_is_told(ground: Ground) -> None:
    bulb = ground.bulb("retires")
    ground.process.kill()
    asked = ground.begin("retires", "on")
    ground.weir("devices", "retire", "bulb", "retires")
    ground.process.start()
    assert "is retired since" in ground.until(asked, "refused")["reason"]
    bulb.leave()
    assert bulb.got == []


KILLS = [
    ("before it is sent", "before", "connections.mqtt_commands:CommandLink.send", 1),
    ("sent, not written down", "after", "connections.mqtt_commands:CommandLink.send", 2),
    ("written down as sent", "after", "streaming.commander:Commander._send", 1),
    ("answered, not written down", "before", "streaming.commander:answered", 1),
    ("answered, not acknowledged", "before", "connections.mqtt:Subscriber.ack", 1),
    ("shown, not written down", "after", "fleet.command_state:is_obeyed", 1),
]


@pytest.mark.parametrize(("when", "function", "most"), [k[1:] for k in KILLS], ids=[k[0] for k in KILLS])
def test_kill_9_loses_no_command_and_doubles_none(yard: Ground, when: str, function: str, most: int) -> None:
    """`most`: so often may the broker give it to the device, which knows it by its id."""
    name = f"killed-{KILLS.index(next(k for k in KILLS if k[1:] == (when, function, most)))}"
    did: list[str] = []

    def count(bulb: Bulb, message: Message) -> None:
        did.append(message["id"])
        obey(bulb, message)

    with closing(yard.bulb(name, count)) as bulb:
        asked = yard.begin(name, "on")
        broken = yard.killed_at(when, function)
        wait_for(lambda: not broken.alive(), 30, lambda: f"it was not killed\n{yard.log()}")
        yard.process.start()
        try:
            found = yard.until(asked, "obeyed")
        finally:
            yard.process.kill()
        assert found["state"] == "obeyed"
        assert did == [asked]
        assert 1 <= len(bulb.got) <= most


def test_killed_after_sending_and_back_after_the_end(yard: Ground) -> None:
    """It cannot be sent again; that the device did nothing is seen by its readings all the same."""
    with closing(yard.bulb("too-late", hold)) as bulb:
        asked = yard.begin("too-late", "on")
        broken = yard.killed_at("after", "connections.mqtt_commands:CommandLink.send")
        wait_for(lambda: not broken.alive(), 30, lambda: f"it was not killed\n{yard.log()}")
        bulb.say()
        with closing(Warehouse.of(yard.settings_for("commander"))) as own, own.transaction() as connection:
            connection.exec_driver_sql("UPDATE commands SET expires_at = now() WHERE device_id = 'too-late'")
        yard.process.start()
        try:
            wait_for(lambda: yard.shown(asked)["state"] in ("obeyed", "expired"), 20, yard.log)
        finally:
            yard.process.kill()
        found = yard.shown(asked)
        assert states(found) == ["requested", "sent", "expired"]
        assert found["reason"] == "the device did not answer; by its readings on is 0, not 1"


def test_what_happens_while_no_commander_runs(ground: Ground) -> None:
    with closing(ground.bulb("meanwhile", hold)) as bulb:
        asked = ground.begin("meanwhile", "on")
        wait_for(lambda: bulb.got, 20, ground.log)
        ground.until(asked, "sent")
        ground.process.kill()
        obey(bulb, bulb.got[0])
        ground.process.start()
        assert states(ground.until(asked, "obeyed"))[:2] == ["requested", "sent"]
        assert bulb.ids() == [asked]


def test_the_broker_is_away(ground: Ground) -> None:
    bulb = ground.bulb("brokerless")
    bulb.leave()
    with away(ground.stack, "mosquitto"):
        asked = ground.begin("brokerless", "on")
        late = ground.begin("brokerless", "dim", "level=4")
        wait_for(lambda: "MQTT broker" in ground.process.readiness(), 20, ground.log)
        time.sleep(4)  # until what was asked for last has expired
    with closing(bulb.come()):
        ground.until(asked, "obeyed", 30)
        assert ground.until(late, "expired")["reason"] == "it was not sent in time"
        assert bulb.ids() == [asked]


def test_a_rule_switches_on_and_off(ground: Ground) -> None:
    """Bulbs at its site alone; each once, with the commander killed in between; what is old commands nothing."""
    log = ground.folder / "alerts.log"
    with (
        closing(ground.bulb("stairs-1", site="stairs")) as one,
        closing(ground.bulb("stairs-2", site="stairs")) as two,
        closing(ground.bulb("elsewhere")) as other,
        Process("alerts", ground.settings_for("alerts"), log, WEIR_TYPES_DIR=ground.types) as alerts,
    ):
        alerts.start().ready()
        one.tell("beam", "beam-1", {"on": 0}, time.time() - 600)
        one.tell("beam", "beam-1", {"on": 1}, time.time() - 590)
        wait_for(lambda: len(ground.of_rule(site="stairs")) == 2, 30, lambda: ground.log() + log.read_text()[-2000:])
        assert {row["state"] for row in ground.of_rule(site="stairs")} == {"expired"}
        assert all(row["reason"].startswith("stale: ") for row in ground.of_rule(site="stairs"))
        one.tell("beam", "beam-1", {"on": 0}, time.time() - 580)
        wait_for(lambda: len(ground.of_rule(site="stairs")) == 4, 30, ground.log)

        one.tell("beam", "beam-1", {"on": 1})
        wait_for(lambda: one.values["on"] and two.values["on"], 30, lambda: ground.log() + log.read_text()[-2000:])
        ground.process.kill()
        one.tell("beam", "beam-1", {"on": 0})
        ground.process.start()
        wait_for(lambda: not one.values["on"] and not two.values["on"], 30, ground.log)
        ends = lambda: [row["state"] for row in ground.of_rule(site="stairs")[4:]]  # noqa: E731
        wait_for(lambda: ends() == ["obeyed"] * 4, 30, lambda: f"{ends()}\n{ground.log()}")
        assert [m["command"] for m in one.got] == [m["command"] for m in two.got] == ["on", "off"]
        assert other.got == []
        row = ground.of_rule(site="stairs")[4]
        assert (row["by"], row["rule_type"], row["why"]) == ("broken", "beam", "broken: beam-1 firing")
        assert row["transition_id"].startswith(row["alert_id"])


def test_the_rate_is_capped_and_a_log_read_again_commands_nothing_anew(ground: Ground) -> None:
    bulb = ground.bulb("capped-1", site="capped")
    producer = kafka.producer(ground.settings_for("alerts"), "tests-commander", linger_ms=0)

    def say(number: int, to: str) -> None:
        now = time.time_ns() // 1000
        t = Transition(
            transition_id=f"cap{number}-{1 if to == 'firing' else 2}", alert_id=f"cap{number}", rule="broken",
            device=f"b{number}", site="capped", type="beam", system="obey", to=to, severity="warning", reason=None,
            values={}, spec_version=1, flapping=False, title="Broken", annotations={}, labels={}, event_time_us=now,
            detected_at_us=now, since_us=now, starts_at_us=now, partition=0, offset=number,
        )  # fmt: skip
        producer.send(TRANSITIONS, encode_transition(t), b"capped").get(timeout=60)

    with closing(bulb):
        for number in range(12):
            say(number, "firing")
        for number in (0, 11):
            say(number, "resolved")
        wait_for(lambda: len(ground.of_rule(site="capped")) == 14, 30, ground.log)
        wait_for(lambda: len(bulb.got) == 11, 30, ground.log)
        rows = {row["transition_id"]: row for row in ground.of_rule(site="capped")}
        held = {name: row["reason"] for name, row in rows.items() if row["state"] == "refused"}
        assert set(held) == {"cap10-1", "cap11-1", "cap11-2"}
        assert held["cap10-1"] == "rate cap: the rule has sent the device 10 commands within 1m"
        assert held["cap11-2"] == "the device was not told of the alert's beginning"
        assert rows["cap0-2"]["command"] == "off"

        ground.process.kill()
        with closing(Warehouse.of(ground.settings_for("commander"))) as own, own.transaction() as connection:
            connection.exec_driver_sql("UPDATE command_offsets SET next_offset = 0")
        ground.process.start().ready()
        wait_for(lambda: ground.process.metric('weir_component{metric="lag"}') == 0, 30, ground.log)
        assert len(ground.of_rule(site="capped")) == 14
        assert len({message["id"] for message in bulb.got}) == 11, "what was killed before it was noted is sent again"
    producer.close(5)


def test_over_http(ground: Ground) -> None:
    """By the gateway that devices use; their tokens command nothing."""
    token = ground.settings_for("operator").operator_token.get_secret_value()
    head = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    own = Gateway(ground.settings_for("gateway"), ground.folder / "gateway.log", WEIR_TYPES_DIR=ground.types)
    with closing(ground.bulb("by-http")), own as gateway:
        (issued,) = json.loads(ground.weir("devices", "credentials", "issue", "bulb", "by-http", "--json").stdout)
        gateway.start().ready()
        client = httpx.Client(base_url=f"http://127.0.0.1:{gateway.http}", timeout=30)
        new = {"device": "by-http", "command": "on", "id": "http-1", "by": "ada", "why": "dark"}
        for bad, reason in (
            ({}, "no_token"),
            ({"Authorization": "Bearer x"}, "wrong_token"),
            ({"Authorization": head["Authorization"] + "x"}, "wrong_token"),
            ({"Authorization": f"Bearer {issued['token']}"}, "wrong_token"),
        ):
            refused = client.post("/v1/commands", json=new, headers=bad)
            assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert refused.json()["reason"] == reason
        made = client.post("/v1/commands", json=new, headers=head)
        assert (made.status_code, made.headers["Location"]) == (202, "/v1/commands/http-1")
        ground.until("http-1", "obeyed")
        shown = client.get("/v1/commands/http-1", headers=head).json()
        assert (shown["state"], shown["via"], shown["by"]) == ("obeyed", "http", "ada")
        assert client.post("/v1/commands", json=new, headers=head).status_code == 200
        for body, code, says in (
            ({**new, "command": "off"}, 409, "another one already"),
            ({**new, "command": "of"}, 422, "did you mean 'off'"),
            ({**new, "device": "by-htp"}, 422, "did you mean 'by-http'"),
            ({**new, "why": "a\0"}, 422, "characters that can be printed"),
            ({**new, "device": "by-http\0"}, 422, "did you mean 'by-http'"),
            ({"device": "by-http"}, 422, "command: Field required"),
        ):
            wrong = client.post("/v1/commands", json=body, headers=head)
            assert (wrong.status_code, wrong.headers["Content-Type"]) == (code, "application/problem+json"), body
            assert says in wrong.json()["detail"]
        for none in ("none", "http", "%00", "http-1%00"):
            wrong = client.get(f"/v1/commands/{none}", headers=head)
            assert (wrong.status_code, wrong.json()["reason"]) == (404, "unknown_command")
        assert gateway.metric('weir_gateway_refused_total{protocol="http",reason="unknown_command"}') == 4
        client.close()
