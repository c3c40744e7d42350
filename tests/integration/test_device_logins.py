"""Devices at the MQTT broker: each with its own login, which lets it at its own topics alone."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from connections.mqtt_publisher import BulkPublisher
from fleet.settings import Settings
from stack.stack import Stack
from tests.command import Weir
from tests.integration.gateway_clients import Gateway, issued
from tests.integration.processes import Process, wait_for

pytestmark = pytest.mark.stack

SettingsFor = Callable[[str], Settings]


class Device:
    """A client of the broker, connected or refused."""

    def __init__(self, settings: Settings, user: str, password: str):
        self.connected, self.reason, self.lost = threading.Event(), "", threading.Event()
        self.answers: dict[int, bool] = {}
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5, reconnect_on_failure=False)
        self.client.username_pw_set(user, password)
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = lambda *_: self.lost.set()
        self.client.on_publish = lambda _c, _d, mid, reason, _p: self.answers.__setitem__(mid, not reason.is_failure)
        self.client.on_subscribe = lambda _c, _d, mid, codes, _p: self.answers.__setitem__(mid, not codes[0].is_failure)
        self.client.connect(settings.mqtt_host, settings.mqtt_port)
        self.client.loop_start()
        assert self.connected.wait(60)

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        self.reason = "" if not reason.is_failure else str(reason)
        self.connected.set()

    def may_publish(self, topic: str) -> bool:
        return self._answered(self.client.publish(topic, b"{}", qos=1).mid)

    def may_subscribe(self, topic: str) -> bool:
        _, mid = self.client.subscribe(topic, qos=1)
        assert mid is not None
        return self._answered(mid)

    def _answered(self, mid: int) -> bool:
        wait_for(lambda: mid in self.answers, 15, "no answer")
        return self.answers[mid]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@contextmanager
def device(settings: Settings, credential: dict[str, Any]) -> Iterator[Device]:
    """Connected; the broker learns of a new credential within seconds."""
    found: list[Device] = []

    def connects() -> bool:
        found.append(Device(settings, credential["mqtt_user"], credential["token"]))
        if found[-1].reason:
            found[-1].close()
        return not found[-1].reason

    wait_for(connects, 15, lambda: found[-1].reason, every=0.3)
    try:
        yield found[-1]
    finally:
        found[-1].close()


def refused(settings: Settings, credential: dict[str, Any]) -> bool:
    one = Device(settings, credential["mqtt_user"], credential["token"])
    one.close()
    return bool(one.reason)


def test_a_device_is_let_at_its_own_topics_alone(weir: Weir, settings_for: SettingsFor, gateway: Gateway) -> None:
    operator, badge = settings_for("operator"), issued(weir, "mqtt-1", site="door")
    issued(weir, "mqtt-2", site="door")
    gateway.start().ready()
    published = {
        "dt/access/door/badge/mqtt-1": True,
        "cmd/access/door/badge/mqtt-1/answer": True,
        "dt/access/door/badge/mqtt-2": False,
        "dt/access/hall/badge/mqtt-1": False,
        "dt/access/door/badge/mqtt-1/temperature": False,
        "cmd/access/door/badge/mqtt-1": False,
        "alerts/access/door/badge/mqtt-1/hot": False,
    }
    for topic, allowed in published.items():
        with device(operator, badge) as one:  # a connection each: that of who is refused ends
            assert one.may_publish(topic) is allowed, topic
    services = operator.model_copy(update={})
    assert not refused(services, {"mqtt_user": "operator", "token": services.mqtt_password.get_secret_value()})
    assert refused(operator, badge | {"token": "weir_wrong"})


def test_commands_reach_their_own_device_alone(weir: Weir, settings_for: SettingsFor, gateway: Gateway) -> None:
    """Mosquitto lets a device subscribe to what it may not read, and then gives it nothing of it."""
    operator, one, two = settings_for("operator"), issued(weir, "cmd-1"), issued(weir, "cmd-2")
    gateway.start().ready()
    with device(operator, one) as first, device(operator, two) as second:
        heard: dict[str, list[tuple[str, bytes]]] = {"cmd-1": [], "cmd-2": []}
        for name, client in (("cmd-1", first), ("cmd-2", second)):
            client.client.on_message = lambda _c, _d, m, name=name: heard[name].append((m.topic, m.payload))
            client.may_subscribe("cmd/#")
            client.may_subscribe("dt/#")
        assert first.may_publish("cmd/access/hall/badge/cmd-1/answer")
        assert first.may_publish("dt/access/hall/badge/cmd-1")
        assert second.may_publish("dt/access/hall/badge/cmd-2")  # behind the others' messages in the broker's order
        commander = BulkPublisher(settings_for("commander"))
        sent: dict[str, list[tuple[str, bytes]]] = {name: [] for name in heard}
        for number in range(2):  # what is the other's would be heard before the second of one's own
            for name, to in sent.items():
                to.append((f"cmd/access/hall/badge/{name}", f"{name} {number}".encode()))
                commander.publish(*to[-1])
        commander.close(5)
        wait_for(lambda: all(sent[name][-1] in heard[name] for name in sent), 20, lambda: str(heard))
        assert heard == sent


def test_a_device_hears_why_its_message_was_rejected(
    weir: Weir, settings_for: SettingsFor, gateway: Gateway, own_types: Path, tmp_path: Path
) -> None:
    """It alone does, on its own topic, at once; of what follows once for all after a pause."""
    operator, one, two = settings_for("operator"), issued(weir, "rej-1"), issued(weir, "rej-2")
    gateway.start().ready()
    with (
        Process("bridge", settings_for("bridge"), tmp_path / "bridge.log", WEIR_TYPES_DIR=own_types) as bridge,
        device(operator, one) as first,
        device(operator, two) as second,
    ):
        bridge.start().ready()
        heard: list[tuple[str, str, dict[str, Any]]] = []
        for name, client in (("first", first), ("second", second)):
            client.client.on_message = lambda _c, _d, m, name=name: heard.append((name, m.topic, json.loads(m.payload)))
            client.may_subscribe("rejected/#")
        assert first.may_publish("dt/access/hall/badge/rej-1")
        wait_for(lambda: heard, 15, "no notice")
        wait_for(lambda: bridge.metric("weir_bridge_rejections_told_total") >= 1, 15, "not counted")
        (found,) = heard
        assert found[:2] == ("first", "rejected/access/hall/badge/rej-1")
        assert found[2]["reason"] == "missing_field" and "device_id" in found[2]["detail"]
        assert (found[2]["topic"], found[2]["rejected"]) == ("dt/access/hall/badge/rej-1", 1)
        for _ in range(2):
            assert first.may_publish("dt/access/hall/badge/rej-1")
        assert second.may_publish("dt/access/hall/badge/rej-2")
        wait_for(lambda: len(heard) == 3, 30, "no notice to the second, or no second to the first")
        others = [(name, topic, said["rejected"]) for name, topic, said in heard[1:]]
        assert others == [
            ("second", "rejected/access/hall/badge/rej-2", 1), ("first", "rejected/access/hall/badge/rej-1", 2),
        ]  # fmt: skip


def test_a_login_ends_with_its_credential_and_outlives_the_broker(
    weir: Weir, settings_for: SettingsFor, gateway: Gateway, stack: Stack
) -> None:
    operator, first = settings_for("operator"), issued(weir, "ends-1")
    gateway.start().ready()
    with device(operator, first) as old:
        (second,) = json.loads(weir("devices", "credentials", "rotate", "badge", "ends-1", "--json").stdout)
        with device(operator, second) as new:
            assert old.may_publish("dt/access/hall/badge/ends-1")
            assert new.may_publish("dt/access/hall/badge/ends-1")
            weir("devices", "credentials", "revoke", "badge", "ends-1", "--number", "1")
            wait_for(old.lost.is_set, 20, "its connection stays")
            assert not new.lost.is_set()
    assert refused(operator, first)
    stack.restart("mosquitto")
    with device(operator, second) as again:
        assert again.may_publish("dt/access/hall/badge/ends-1")
    weir("devices", "retire", "badge", "ends-1")
    wait_for(lambda: refused(operator, second), 20, "a retired device logs in")
