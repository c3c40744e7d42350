"""A device that obeys: a real MQTT client, which says its readings and answers commands as it is told to."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fleet.channels import Address, command_topic
from fleet.settings import Settings

SYSTEM, TYPE = "obey", "bulb"
Message = dict[str, Any]


class Bulb:
    """`got` has every message, a second one of an id too; `does` is called for the first alone, as devices are to."""

    def __init__(self, settings: Settings, device_id: str, does: "Callable[[Bulb, Message], None]", site: str = "hall"):
        self.device_id, self.site, self.does = device_id, site, does
        self.values = {"on": 0.0, "brightness": 0.0}
        self.got: list[Message] = []
        self._subscribed = threading.Event()
        self._topic = command_topic(Address(SYSTEM, site, TYPE, device_id))
        self._settings = settings
        client = self._client = paho.Client(CallbackAPIVersion.VERSION2, f"bulb-{device_id}", protocol=paho.MQTTv5)
        client.username_pw_set(settings.mqtt_user, settings.mqtt_password.get_secret_value())
        client.on_connect = lambda c, *_: c.subscribe(self._topic, qos=1)
        client.on_subscribe = lambda *_: self._subscribed.set()
        client.on_message = lambda _c, _u, message: self._take(json.loads(message.payload))

    def come(self) -> "Bulb":
        """The broker keeps what comes while it is away."""
        self._subscribed.clear()
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = 3600
        self._client.connect(
            self._settings.mqtt_host, self._settings.mqtt_port, clean_start=False, properties=session
        )  # fmt: skip
        self._client.loop_start()
        assert self._subscribed.wait(20)
        return self

    def close(self) -> None:
        self.leave()

    def leave(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _take(self, message: Message) -> None:
        is_new = message["id"] not in self.ids()
        self.got.append(message)
        if is_new and message["expires"] > time.time():
            self.does(self, message)

    def ids(self) -> list[str]:
        return [message["id"] for message in self.got]

    def answer(self, message: Message, state: str, reason: str = "") -> None:
        body = json.dumps({"id": message["id"], "state": state, "reason": reason})
        self._client.publish(f"{self._topic}/answer", body, qos=1).wait_for_publish(0)

    def apply(self, message: Message) -> None:
        match message["command"]:
            case "on" | "off":
                self.values["on"] = float(message["command"] == "on")
            case "dim":
                self.values["brightness"] = message["args"]["level"]
        self.say()

    def say(self, event_time: float | None = None) -> None:
        self.tell(TYPE, self.device_id, self.values, event_time)

    def tell(self, type_name: str, device_id: str, values: dict[str, float], event_time: float | None = None) -> None:
        at = round((event_time or time.time()) * 1000)
        reading = {"device_id": device_id, "event_time": at, "values": values}
        self._client.publish(f"dt/{SYSTEM}/{self.site}/{type_name}/{device_id}", json.dumps(reading), qos=1)


DELAY_SECONDS = 0.5


def obey_later(bulb: Bulb, message: Message) -> None:
    """As things that move do: the answer is there first."""
    bulb.answer(message, "delivered")
    threading.Timer(DELAY_SECONDS, bulb.apply, [message]).start()


def obey(bulb: Bulb, message: Message) -> None:
    bulb.answer(message, "delivered")
    bulb.apply(message)


def apply(bulb: Bulb, message: Message) -> None:
    """Without an answer."""
    bulb.apply(message)


def refuse(bulb: Bulb, message: Message) -> None:
    bulb.answer(message, "refused", "the filament is broken")


def hold(bulb: Bulb, message: Message) -> None:
    """The test goes on from there."""
