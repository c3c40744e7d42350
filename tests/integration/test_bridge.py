"""MQTT → Kafka on the real brokers: what is readable arrives, the rest is rejected by name, kills lose nothing."""

import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from connections import kafka, mqtt
from connections.kafka_batches import LOG_APPEND_TIME
from connections.mqtt_publisher import BulkPublisher
from fleet.channels import HEARTBEAT, REJECTED, mark_of
from fleet.contract import MAX_PAYLOAD_BYTES
from fleet.dead_letter import decode_dead_letter
from fleet.reading import Reading, decode_reading
from fleet.settings import CHECKOUT, Settings
from stack.stack import Stack
from tests.integration.logs import readings, records
from tests.integration.processes import Process, wait_for
from tests.unit.test_landing import INTAKE

pytestmark = pytest.mark.stack

SettingsFor = Callable[[str], Settings]


@pytest.fixture
def bridge(settings_for: SettingsFor, tmp_path: Path) -> Iterator[Process]:
    with Process("bridge", settings_for("bridge"), tmp_path / "bridge.log", WEIR_BRIDGE_HEARTBEAT_SECONDS=1) as process:
        yield process.start().ready()


def weather(site: str, seq: int, device: int = 7, **changes: object) -> tuple[str, bytes]:
    message = {"sensor_id": device, "temperature": 20.5, "timestamp": time.time(), "seq": seq, **changes}
    return f"dt/weather/{site}/weather_station/{device}", json.dumps(message).encode()


def room(site: str, metric: str, **changes: object) -> tuple[str, bytes]:
    message = {"device_id": "s5", "event_time": int(time.time() * 1000), "value": 412.5, **changes}
    return f"dt/occupancy/{site}/room_node/edge/{metric}", json.dumps(message).encode()


def sequence(settings: Settings, site: str) -> Counter[int | None]:
    """How often each seq of a site stands in the weather topic. Other tests leave junk there too."""
    of_site = (r.value for r in readings(settings, "sensor") if site.encode() in r.value)
    found = (INTAKE.read_record("sensor", value) for value in of_site)
    return Counter(reading.seq for reading in found if isinstance(reading, Reading) and reading.site == site)


def test_readings_and_rejects_arrive(settings_for: SettingsFor, bridge: Process, publisher: BulkPublisher) -> None:
    site = "arrive"
    sent = [weather(site, 1), room(site, "co2"), room(site, "occupancy", value=2)]
    bad = [
        ("oversized", *weather(site, 2, padding="x" * MAX_PAYLOAD_BYTES)),
        ("oversized", weather(site, 2)[0], b"\xff" * 1_000_000),
        ("not_utf8", weather(site, 2)[0], b'{"sensor_id": "\xff"}'),
        ("malformed_json", weather(site, 2)[0], b'{"sensor_id": 7,'),
        ("wrong_type", *weather(site, 2, temperature="hot")),
        ("missing_field", weather(site, 2)[0], b'{"sensor_id": 7, "temperature": 1}'),
        ("unknown_metric", *weather(site, 2, pressure=1013)),
        ("unknown_metric", *room(site, "radon")),
        ("unknown_type", f"dt/weather/{site}/rain_gauge/7", b"{}"),
        ("bad_topic", f"dt/{site}", b"{}"),
        ("bad_topic", f"dt/occupancy/{site}/room_node/edge", b"{}"),
        ("bad_topic", f"dt/weather/{site}/weather_station/7/temperature", weather(site, 2)[1]),
        ("bad_topic", f"dt/weather/{site}/weather_station/a b", weather(site, 2)[1]),
        ("bad_id", *room(site, "co2", device_id="s 5")),
        ("bad_time", *weather(site, 2, timestamp=12)),
        ("future_time", *weather(site, 2, timestamp=time.time() + 400)),
        ("identity_mismatch", weather(site, 2, device=8)[0], weather(site, 2)[1]),
    ]
    for _, topic, payload in bad:
        publisher.publish(topic, payload)
    for topic, payload in sent:
        publisher.publish(topic, payload)
    publisher.flush()
    acknowledged = [f'weir_bridge_acknowledged_total{{worker="{w}"}}' for w in ("weather_station", "unrouted")]
    wait_for(
        lambda: sequence(settings_for("operator"), site)[1] and bridge.metric(acknowledged[1]) >= len(bad) + len(sent),
        20, lambda: bridge.log.read_text(), every=0.3,
    )  # fmt: skip

    operator = settings_for("operator")
    letters = [decode_dead_letter(r.value) for r in records(operator, REJECTED)]
    got = Counter((x.reason, x.mqtt_topic, x.payload) for x in letters if site in (x.mqtt_topic or ""))
    assert got == Counter((reason, topic, payload) for reason, topic, payload in bad)
    assert {x.device_type for x in letters if x.reason == "wrong_type"} == {"weather_station"}

    rooms = [r for r in readings(operator, "readings.occupancy") if f'"{site}"'.encode() in r.value]
    rooms.sort(key=lambda r: r.value)  # two workers: in whichever order
    assert [decode_reading(r.value).values for r in rooms] == [{"co2": 412.5}, {"occupancy": 2.0}]
    assert {r.key for r in rooms} == {site.encode()}
    copies = [r for r in readings(operator, "occupancy.co2") if f'"{site}"'.encode() in r.value]
    assert [r.value for r in copies] == [rooms[0].value]
    consumer = kafka.consumer(operator, "tests")
    places = kafka.partitions(consumer, ["readings.occupancy"])
    consumer.assign(places)
    consumer.seek_to_beginning()
    polled: list[Any] = []
    wait_for(
        lambda: polled.extend(r for of in consumer.poll(timeout_ms=500).values() for r in of) or polled, 20, "none"
    )
    consumer.close(autocommit=False)
    assert {r.timestamp_type for r in polled} == {LOG_APPEND_TIME}


def test_heartbeats_go_into_every_partition(settings_for: SettingsFor, bridge: Process) -> None:
    wait_for(lambda: bridge.metric("weir_bridge_heartbeats_total") >= 12, 20, "no two heartbeats everywhere")
    found = [r for r in records(settings_for("operator"), "sensor", "readings.occupancy") if r.headers]
    beats = Counter((r.topic, r.partition) for r in found if mark_of(r.headers) == HEARTBEAT)
    assert set(beats) == {("sensor", n) for n in range(4)} | {("readings.occupancy", n) for n in range(2)}
    assert min(beats.values()) >= 2
    wait_for(lambda: "weir_mqtt_dropped_messages 0.0" in bridge._get("/metrics"), 15, "Mosquitto's drops are not shown")


def test_whom_mosquitto_refuses_is_counted(settings_for: SettingsFor, bridge: Process) -> None:
    """What it cuts off never reaches the bridge, which learns of it by Mosquitto's log."""
    settings = settings_for("operator")

    def count(reason: str) -> float:
        return bridge.metric(f'weir_mqtt_refused_total{{reason="{reason}"}}') or 0

    def said(*packets: bytes) -> bytes:
        """All that Mosquitto answers until it closes."""
        with socket.create_connection((settings.mqtt_host, settings.mqtt_port), 5) as connection:
            for packet in packets:
                connection.sendall(packet)
            answer = b""
            while chunk := connection.recv(1024):
                answer += chunk
            return answer

    def connect(user: str, password: str) -> bytes:
        fields = b"".join(struct.pack(">H", len(text)) + text for text in (b"guest", user.encode(), password.encode()))
        head = b"\x00\x04MQTT\x04\xc2\x00\x3c"
        return bytes((0x10, len(head + fields))) + head + fields

    assert said(connect("bridge", "wrong")) == b"\x20\x02\x00\x05"  # CONNACK: not authorised
    mine = connect(settings.mqtt_user, settings.mqtt_password.get_secret_value())
    accepted = b"\x20\x02\x00\x00"
    assert said(mine, b"\x30\xff\xff\xff\x7f") == accepted  # a message of 256 MiB, of which this is the head
    assert said(mine, b"\x30\x01\x00") == accepted  # a topic's length that is cut off
    assert said(mine, b"\xf0\x00") == accepted  # no packet of MQTT 3.1.1
    assert said(mine, b"\x32\x06\x00\x01t\x00\x01x") == accepted + b"\x40\x02\x00\x01"  # topic `t`, not the operator's
    reasons = ("not_authorised", "oversized", "malformed", "protocol_error", "forbidden_topic")
    wait_for(lambda: all(count(r) for r in reasons), 15, lambda: str({r: count(r) for r in reasons}))


class Stream:
    """Readings of one site in a thread, seq 0, 1, 2 …, until told to stop."""

    def __init__(self, publisher: BulkPublisher, site: str, pause: float = 0.002):
        self.sent = 0
        self._stop = threading.Event()

        def run() -> None:
            while not self._stop.is_set():
                publisher.publish(*weather(site, self.sent))
                publisher.poll(0)
                self.sent += 1
                self._stop.wait(pause)

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def reach(self, count: int) -> None:
        wait_for(lambda: self.sent >= count, 60, f"{count} published")

    def end(self) -> int:
        self._stop.set()
        self._thread.join(30)
        return self.sent


def all_there(settings: Settings, site: str, count: int) -> Counter[int | None]:
    found: Counter[int | None] = Counter()

    def reached() -> bool:
        nonlocal found
        found = sequence(settings, site)
        return len(found) == count

    wait_for(reached, 60, lambda: f"{len(found)} of {count} readings", every=0.5)
    assert set(found) == set(range(count))
    return found


def test_kill_9_loses_nothing(settings_for: SettingsFor, bridge: Process, publisher: BulkPublisher) -> None:
    stream = Stream(publisher, "killed")
    for at in (300, 900, 1500):
        stream.reach(at)
        bridge.kill()
        stream.reach(at + 200)
        bridge.start().ready()
    sent = stream.end()
    publisher.flush()
    found = all_there(settings_for("operator"), "killed", sent)
    # What Kafka had and MQTT had not heard of comes again: at most a window for each kill.
    assert found.total() - sent <= 3 * 2000


WORKERS_NAME = "weir-bridge-weather_station"


def test_who_may_log_in_cannot_end_its_session(
    settings_for: SettingsFor, bridge: Process, publisher: BulkPublisher
) -> None:
    assert bridge.stop() == 0
    for seq in range(50):
        publisher.publish(*weather("kept", seq))
    publisher.flush()
    mqtt.Subscriber(settings_for("simulator"), WORKERS_NAME, [], clean=True).close()
    bridge.start().ready()
    all_there(settings_for("operator"), "kept", 50)


def test_what_the_session_of_an_older_version_kept_is_taken_and_the_session_ended(
    settings_for: SettingsFor, bridge: Process, publisher: BulkPublisher
) -> None:
    def back_after(first: int) -> None:
        for seq in range(first, first + 50):
            publisher.publish(*weather("former", seq))
        publisher.flush()
        bridge.start().ready()

    # Made while the bridge is away: one that has just started looks for it, and unsubscribes.
    assert bridge.stop() == 0
    mqtt.Subscriber(settings_for("bridge"), WORKERS_NAME, ["dt/weather/+/weather_station/+"]).close()
    operator = settings_for("operator")
    back_after(0)
    wait_for(lambda: sequence(operator, "former") == dict.fromkeys(range(50), 2), 30, bridge.log.read_text)
    wait_for(lambda: "worker=weather_station ended its former session" in bridge.log.read_text(), 30, "it goes on")
    assert bridge.stop() == 0
    back_after(50)
    all_there(operator, "former", 100)
    assert {sequence(operator, "former")[seq] for seq in range(50, 100)} == {1}


def test_the_brokers_may_restart_under_it(
    settings_for: SettingsFor, stack: Stack, bridge: Process, publisher: BulkPublisher
) -> None:
    stream = Stream(publisher, "restarts", pause=0.005)
    for broker in ("kafka", "mosquitto"):
        stream.reach(stream.sent + 100)
        stack.restart(broker)
        stream.reach(stream.sent + 100)
    sent = stream.end()
    publisher.flush(90)
    all_there(settings_for("operator"), "restarts", sent)
    bridge.ready(20)
    assert bridge.stop() == 0


def test_kafka_is_away_for_longer_than_a_record_is_kept(
    settings_for: SettingsFor, stack: Stack, publisher: BulkPublisher, tmp_path: Path
) -> None:
    """The producer gives up on what it holds; the workers begin again with what MQTT has kept."""
    delivery_seconds = 3.0
    bridge = Process(
        "bridge", settings_for("bridge"), tmp_path / "bridge.log", WEIR_KAFKA_DELIVERY_SECONDS=delivery_seconds
    )
    restarts = 'weir_bridge_restarts_total{worker="weather_station"}'
    with bridge.start().ready():
        stream = Stream(publisher, "outage")
        stream.reach(200)
        before, away_since = bridge.metric(restarts), time.monotonic()
        stack.supervisor.stop_program("kafka")  # which may take longer than the records are kept
        try:
            wait_for(lambda: bridge.metric(restarts) >= before + 2, 60, bridge.log.read_text)
            assert time.monotonic() - away_since > delivery_seconds
            assert "weather_station" in bridge.readiness()
            stream.reach(stream.sent + 200)
        finally:
            stack.restart("kafka")
        sent = stream.end()
        publisher.flush(90)
        all_there(settings_for("operator"), "outage", sent)
        bridge.ready(30)
        assert bridge.stop() == 0


def test_a_worker_that_cannot_work_stops_no_other(
    settings_for: SettingsFor, publisher: BulkPublisher, tmp_path: Path
) -> None:
    types = tmp_path / "types"
    types.mkdir()
    for spec in (CHECKOUT / "fleet" / "types").glob("*.yaml"):
        (types / spec.name).write_text(spec.read_text())
    ghost = (types / "weather_station.yaml").read_text()
    ghost = ghost.replace("type: weather_station", "type: ghost").replace("system: weather", "system: ghost")
    (types / "ghost.yaml").write_text(ghost.replace("kafka_topic: sensor", "kafka_topic: readings.ghost"))
    bridge = Process("bridge", settings_for("bridge"), tmp_path / "bridge.log", WEIR_TYPES_DIR=types)
    with bridge.start():
        wait_for(lambda: "started workers" in bridge.log.read_text() or not bridge.alive(), 30, "it does not start")
        for seq in range(50):
            topic, payload = weather("ghosts", seq)
            publisher.publish("dt/ghost/ghosts/ghost/7", payload)
            publisher.publish(topic, payload)
        publisher.flush()
        wait_for(lambda: "ghost: " in bridge.readiness(), 30, "it does not say what is wrong")
        assert all_there(settings_for("operator"), "ghosts", 50).total() == 50
        assert "readings.ghost" in bridge.log.read_text()
        assert bridge.stop() == 0


def test_a_wrong_spec_or_password_stops_it_with_a_line(settings_for: SettingsFor, tmp_path: Path) -> None:
    types = tmp_path / "types"
    types.mkdir()
    (types / "broken.yaml").write_text("type: broken\nversion: one\n")
    wrong = Process("bridge", settings_for("bridge"), tmp_path / "spec.log", WEIR_TYPES_DIR=types)
    refused = Process("bridge", settings_for("bridge"), tmp_path / "mqtt.log", WEIR_MQTT_PASSWORD="wrong")
    with wrong.start(), refused.start():
        wait_for(lambda: not wrong.alive() and not refused.alive(), 20, "they run")
    assert "broken.yaml:2: version" in wrong.log.read_text()
    assert "refuses user 'bridge'" in refused.log.read_text()
    assert "Traceback" not in wrong.log.read_text() + refused.log.read_text()
