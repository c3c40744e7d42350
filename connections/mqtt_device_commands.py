"""Commands as devices hear them, for devices that are simulated: one connection for all of them."""

from collections import deque

import paho.mqtt.client as paho
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from connections import mqtt
from fleet.settings import Settings


class DeviceLink:
    """Hears what is published on the subscription, and answers, in paho's own thread. Reconnects by itself; what comes
    while it is away is lost, as for a device that is off. Raises Unavailable where there is no broker at first."""

    def __init__(self, settings: Settings, subscription: str):
        self._heard: deque[tuple[str, bytes]] = deque()
        self.refusal = ""
        """Why commands are not heard; empty where they are, or nothing is known yet."""

        def connected(
            client: paho.Client, userdata: object, flags: object, reason: ReasonCode, properties: Properties | None
        ) -> None:  # fmt: skip
            self.refusal = str(mqtt.refusal(settings, reason)) if reason.is_failure else ""
            if not reason.is_failure:
                client.subscribe(subscription, qos=1)

        def subscribed(
            client: paho.Client, userdata: object, mid: int, reasons: list[ReasonCode], properties: Properties | None
        ) -> None:  # fmt: skip
            if any(reason.is_failure for reason in reasons):
                self.refusal = f"MQTT user {settings.mqtt_user!r} may not hear {subscription}; see the broker's ACL"

        client = self._client = mqtt.client_of(settings, "")
        client.on_connect = connected
        client.on_subscribe = subscribed
        client.on_message = lambda _c, _u, message: self._heard.append((message.topic, bytes(message.payload)))
        mqtt.open_connection(client, settings, True, 0, mqtt.RECEIVE_MAXIMUM)
        client.loop_start()

    def heard(self) -> list[tuple[str, bytes]]:
        """(topic, payload) of what came since."""
        found = []
        while self._heard:
            found.append(self._heard.popleft())
        return found

    def answer(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload, qos=1)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
