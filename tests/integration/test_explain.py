"""`weir rules explain` on the real servers: a log written by hand, and what the command says of moments in it."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from kafka import TopicPartition
from sqlalchemy import text

from connections import kafka
from connections.kafka_admin import KafkaAdmin
from connections.publication import partition_of_key
from connections.warehouse import Warehouse
from fleet.catalog import load_catalog
from fleet.channels import CONTROL, HEARTBEAT, MARK_HEADER
from fleet.control import Control, Device, Spec, encode_control
from fleet.reading import Reading, encode_reading
from fleet.settings import Settings
from stack.provision import provision_kafka
from stack.stack import Stack
from tests.command import Weir, command
from tests.integration.processes import wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

SettingsFor = Callable[[str], Settings]
SPEC = """\
type: {type}
version: 1
system: {system}
cadence: 10s
lateness: 0s
partitions: {partitions}
partition_by: {by}
self_registration: true
metrics: {{heat: {{unit: degC}}}}
examples:
  good: [{{payload: {{device_id: d1, event_time: 1732985789000, values: {{heat: 1}}}}, values: {{heat: 1}}}}]
  bad: [{{payload: 1, reason: malformed_json}}]
alerts:
  - {{id: hot, title: Too hot, when: heat > limit, clear: heat < limit - 10, for: 30s, params: {{limit: 300}}}}
  - {{id: {only}, no_data: 60s}}
"""
TYPES = {
    "kiln": SPEC.format(type="kiln", system="forges", partitions=1, by="device", only="silent"),
    "shelf": SPEC.format(type="shelf", system="shelves", partitions=3, by="site", only="shelf_silent"),
}
TOPICS = {"kiln": "readings.forges", "shelf": "readings.shelves"}
START = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=20)


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat()


@pytest.fixture(scope="module")
def types(tmp_path_factory: pytest.TempPathFactory, stack: Stack) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    for name, spec in TYPES.items():
        (folder / f"{name}.yaml").write_text(spec)
    provision_kafka(f"127.0.0.1:{stack.ports.kafka}", stack.secrets, load_catalog(folder))
    return folder


@pytest.fixture(scope="module")
def weir(stack: Stack, types: Path) -> Weir:
    return command(WEIR_HOME=stack.layout.home, WEIR_TYPES_DIR=types)


@pytest.fixture(scope="module")
def explain(weir: Weir) -> Weir:
    """What it prints fits 80 columns."""

    def explained(*arguments: str, code: int = 0) -> CompletedProcess[str]:
        done = weir("rules", "explain", *arguments, code=code)
        if "--json" not in arguments:
            assert all(len(line) <= 80 for line in done.stdout.splitlines()), done.stdout
        return done

    return explained


@pytest.fixture(scope="module")
def log(settings_for: SettingsFor, types: Path) -> Iterator[None]:
    """Of both types the same: d1 hot from 10 s on, and silent after 50 s; d2 speaks on."""
    for role, operation in (("simulator", kafka.WRITE), ("operator", kafka.READ)):  # new rights take a moment
        asked = settings_for(role), operation, TOPICS.values()
        wait_for(lambda asked=asked: not kafka.access_problems(*asked), 20, f"{role} may not {operation}")  # type: ignore[misc]
    producer = kafka.producer(settings_for("simulator"), "tests")
    since_ms = int(START.timestamp() * 1000)

    def send(name: str, value: bytes, key: str | None, mark: bytes | None = None, partition: int | None = None) -> None:
        headers = [] if mark is None else [(MARK_HEADER, mark)]
        producer.send(TOPICS[name], value, key.encode() if key else None, headers, partition).get(timeout=20)

    def control(name: str, record: Control, key: str | None) -> None:
        for partition in [None] if key else sorted(producer.partitions_for(TOPICS[name])):
            send(name, encode_control(record), key, CONTROL, partition)

    for name, spec in TYPES.items():
        control(name, Spec(revision=1, at=since_ms, type=name, version=1, text=spec), None)
        key = "d1" if name == "kiln" else "yard"
        about: dict[str, Any] = {"at": since_ms, "type": name, "site": "yard", "registered_at": since_ms}
        control(name, Device(revision=2, device="d1", params={"limit": 310.0}, **about), key)
        for seconds, device, heat in (
            (0, "d1", 250), (10, "d1", 320), (20, "d1", 330), (35, "d2", 20), (50, "d1", 305), (100, "d2", 20),
            (130, "d2", 20),
        ):  # fmt: skip
            reading = Reading(device, name, "yard", (since_ms + seconds * 1000) * 1000, {"heat": float(heat)})
            send(name, encode_reading(reading), device if name == "kiln" else "yard")
        for partition in sorted(producer.partitions_for(TOPICS[name])):
            send(name, b'{"at":0}', None, HEARTBEAT, partition)
    yield
    kafka.close(producer, 5)


MOMENTS: dict[str, tuple[float, str, str, list[str]]] = {
    # seconds, rule, state, what the text says
    "before it was hot": (5, "hot", "inactive", ["false: heat > limit", "310: limit", "250: heat", "heat 250, 5s old"]),
    "pending": (25, "hot", "pending", ["for 30s ends", "true: heat > limit"]),
    "firing": (45, "hot", "firing", ["in breach since", "before    ", "alert "]),
    "in the band": (55, "hot", "firing", ["neither when nor clear", "heat 305, 5s old"]),
    "stale": (95, "hot", "firing", [
        "unknown: heat > limit", "heat unknown: 305 is 45s old, and stale after 30s", "at the last evaluation",
    ]),
    "not silent yet": (109, "silent", "inactive", ["last heard", "; due "]),
    "silent": (111, "silent", "firing", ["silent since"]),
}  # fmt: skip


@pytest.mark.parametrize("name", MOMENTS)
def test_a_moment(log: None, explain: Weir, name: str) -> None:
    seconds, rule, state, said = MOMENTS[name]
    words = ("--type", "kiln", "--device", "d1", "--rule", rule, "--at", at(seconds))
    found = json.loads(explain(*words, "--json").stdout)
    assert (found["state"], found["device"], found["log"]["is_whole"]) == (state, "d1", True)
    shown = explain(*words).stdout
    flat = " ".join(shown.split())
    assert state in flat
    for expected in said:
        assert " ".join(expected.split()) in flat, shown


def test_now_and_the_transitions_before(log: None, explain: Weir) -> None:
    found = json.loads(explain("--type", "kiln", "--device", "d1", "--rule", "hot", "--json").stdout)
    assert [event["what"] for event in found["events"]] == ["breach", "firing"]
    firing = found["events"][-1]
    assert (firing["at"], firing["transition_id"].rpartition("-")[2]) == (at(40), "1")
    assert firing["transition_id"].startswith(found["alert_id"])
    level = found["levels"][0]
    assert (level["since"], level["state"]) == (at(10), "firing")
    assert level["sides"][0]["at_evaluation"] is False
    assert found["values"][0]["is_stale"] is True
    assert found["log"]["read_to"] == found["log"]["end"]


def test_a_type_by_site(log: None, weir: Weir, explain: Weir, settings_for: SettingsFor) -> None:
    """Its partition is where the warehouse has its readings of the time, else that of the site it is registered at."""
    words = ("--device", "d1", "--rule", "shelf_silent", "--at", at(25))
    assert "no shelf 'd1' is known" in explain(*words, code=1).stderr
    home = partition_of_key("yard", [0, 1, 2])
    site = next(name for name in ("attic", "cellar", "porch", "roof") if partition_of_key(name, [0, 1, 2]) != home)
    weir("devices", "add", "shelf", "d1", "--site", site)
    assert "lies before all that readings.shelves-" in explain(*words, code=1).stderr
    warehouse = Warehouse.of(settings_for("live"))
    with warehouse.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO readings VALUES (:at, 'shelves', 'shelf', 'yard', 'd1', 'heat', 250, NULL,"
                " 'readings.shelves', :partition, 2)"
            ),
            {"at": START, "partition": home},
        )
    warehouse.close()
    found = json.loads(explain(*words, "--json").stdout)
    assert (found["site"], found["log"]["partition"], found["last_reading"]) == ("yard", home, at(20))


ERRORS: dict[str, tuple[list[str], str]] = {
    "unknown device": (["--type", "kiln", "--device", "d7", "--rule", "hot"], "no kiln 'd7' is known"),
    "unknown rule": (["--device", "d1", "--rule", "silen"], "no type has a rule 'silen'; did you mean 'silent'?"),
    "unknown rule of a type": (
        ["--type", "kiln", "--device", "d1", "--rule", "warm"],
        "no rule 'warm' was in force then, by version 1 of kiln; there are: hot, silent",
    ),
    "unknown type": (
        ["--type", "kil", "--device", "d1", "--rule", "hot"],
        "no device type 'kil'; did you mean 'kiln'?",
    ),
    "several types": (["--device", "d7", "--rule", "hot"], "rule 'hot' is one of kiln, shelf: say which with --type"),
    "no time": (["--type", "kiln", "--device", "d1", "--rule", "hot", "--at", "noon"], "at: 'noon' is no time"),
    "ahead": (["--type", "kiln", "--device", "d1", "--rule", "hot", "--at", "2999-01-01"], "lies ahead"),
    "before the log": (
        ["--type", "kiln", "--device", "d2", "--rule", "hot", "--at", at(-3600)],
        "lies before all that readings.forges-0 has of kiln d2",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(log: None, explain: Weir, name: str) -> None:
    words, said = ERRORS[name]
    assert said in explain(*words, code=1).stderr


def test_a_log_whose_beginning_is_gone(log: None, explain: Weir, stack: Stack) -> None:
    with KafkaAdmin(f"127.0.0.1:{stack.ports.kafka}", "admin", stack.secrets["KAFKA_ADMIN"]) as admin:
        admin._client.delete_records({TopicPartition("readings.forges", 0): 4})  # the spec, the device, two readings
    found = json.loads(
        explain("--type", "kiln", "--device", "d1", "--rule", "hot", "--at", at(25), "--json").stdout
    )  # fmt: skip
    assert (found["log"]["begin"], found["log"]["is_whole"]) == (4, False)
    assert (found["state"], found["levels"][0]["since"]) == ("pending", at(20))
    shown = explain("--type", "kiln", "--device", "d1", "--rule", "hot", "--at", at(25)).stdout
    assert "it no longer begins at 0: all this is made from less than there was" in " ".join(shown.split())
