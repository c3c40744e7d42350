"""Each alert's state as a retained message on MQTT: QoS 1, and told as delivered once the broker has it."""

import time

import paho.mqtt.client as paho
from paho.mqtt.reasoncodes import ReasonCode
from pydantic import SecretStr

from connections import mqtt
from fleet import errors
from fleet.notification import Delivered, Notification, Outcome, Refused, Retry
from fleet.receivers import MqttOptions
from fleet.retained_state import state_of, topic_of
from fleet.settings import Settings
from fleet.webhook_body import rfc3339

REFUSED = 0x80
AT_ONCE = 500
"""Messages of a digest published before the next; each such part has the receiver's timeout for itself."""
QUOTA = 0x97
"""The one refusal of a message that may pass by itself."""


class MqttState:
    """Keeps its connection; one that is gone when it is needed again is made anew at once. A broker that does not let
    us in is tried again: it was offered no message, and else a changed password would make dead letters of all.

    Heartbeats and tests go to `<prefix>/weir/heartbeat` and `/test`.
    """

    def __init__(self, options: MqttOptions, settings: Settings):
        """`settings`: with the broker, unless the options name another."""
        self._options, self._settings = options, settings
        if options.host:
            self._settings = settings.model_copy(
                update={
                    "mqtt_host": options.host,
                    "mqtt_port": options.port or (8883 if options.ca_file else 1883),
                    "mqtt_user": options.user,
                    "mqtt_password": options.password if options.user else SecretStr(""),
                    "mqtt_ca": options.ca_file,
                    "env_file": None,
                }
            )
        self._client: paho.Client | None = None
        self._answers: dict[int, ReasonCode] = {}
        self._begun = ("", 0)
        """A digest that was not delivered as a whole, and how many of its messages the broker has: it goes on there."""

    def send(self, notification: Notification) -> Outcome:
        if notification.alerts and notification.kind != "test":
            messages = [(topic_of(self._options.prefix, alert), state_of(alert)) for alert in notification.alerts]
        else:  # the alert of a test is made up, and would stay there for ever
            text = f"{notification.summary}\n{rfc3339(notification.created_at)}".encode()
            messages = [(f"{self._options.prefix}/weir/{notification.kind}", text)]
        done = self._begun[1] if self._begun[0] == notification.notification_id else 0
        refused: list[str] = []
        while done < len(messages):
            part = messages[done : done + AT_ONCE]
            outcome = self._send(part)
            if isinstance(outcome, Retry):
                if len(messages) > 1:
                    self._begun = (notification.notification_id, done)
                return outcome
            if isinstance(outcome, Refused):
                refused.append(outcome.why)
            done += len(part)
        return Refused(refused[0]) if refused else Delivered("")

    def _send(self, messages: list[tuple[str, bytes]]) -> Outcome:
        deadline = time.monotonic() + self._options.timeout_seconds
        kept = self._client is not None
        try:
            try:
                return self._publish(messages, deadline)
            except errors.Unavailable:
                if not kept:
                    raise
                return self._publish(messages, deadline)  # the broker went while nothing was said
        except errors.WeirError as error:
            return Retry(str(error)) if error.retryable else Refused(str(error))

    def close(self) -> None:
        if self._client is not None:
            self._client.disconnect()
            self._client.loop(0)
            self._abandon()

    def _publish(self, messages: list[tuple[str, bytes]], deadline: float) -> Outcome:
        try:
            client = self._client or self._let_in(deadline)
            asked = [client.publish(topic, body, qos=1, retain=True).mid for topic, body in messages]
            while not all(mid in self._answers for mid in asked):
                self._loop(client, deadline)
        except BaseException:
            self._abandon()
            raise
        answers = [self._answers.pop(mid) for mid in asked]
        wrong = [(topic, a) for (topic, _), a in zip(messages, answers, strict=True) if a.value >= REFUSED]
        if wrong:
            topic, answer = next((each for each in wrong if each[1].value == QUOTA), wrong[0])
            told = f"the MQTT broker refuses {topic} of user {self._settings.mqtt_user!r}: {answer}"
            return Retry(told) if answer.value == QUOTA else Refused(f"{told}; see its ACL")
        return Delivered("")

    def _let_in(self, deadline: float) -> paho.Client:
        try:
            return self._connect(deadline)
        except errors.Refused as error:
            raise errors.Unavailable(str(error)) from error

    def _connect(self, deadline: float) -> paho.Client:
        client = mqtt.client_of(self._settings, "", reconnect_on_failure=False)
        self._client, self._answers = client, {}
        connected: list[ReasonCode] = []
        client.on_connect = lambda _c, _u, _f, reason, _p: connected.append(reason)
        client.on_publish = lambda _c, _u, mid, reason, _p: self._answers.__setitem__(mid, reason)
        client.max_inflight_messages_set(AT_ONCE)  # 20, and a round trip for each 20, is paho's own
        client.connect_timeout = max(0.1, deadline - time.monotonic())
        mqtt.open_connection(client, self._settings, True, 0, mqtt.RECEIVE_MAXIMUM)
        while not connected:
            try:
                self._loop(client, deadline)
            except errors.Unavailable:
                if not connected:  # who is refused is told so, and then cut off
                    raise
        if connected[0].value >= REFUSED:
            raise mqtt.refusal(self._settings, connected[0])
        return client

    def _loop(self, client: paho.Client, deadline: float) -> None:
        where = f"the MQTT broker at {self._settings.mqtt_host}:{self._settings.mqtt_port}"
        left = deadline - time.monotonic()
        if left <= 0:
            raise errors.Unavailable(f"{where} did not confirm within {self._options.timeout_seconds:g} s")
        if client.loop(min(left, 0.1)) != paho.MQTT_ERR_SUCCESS:
            raise errors.Unavailable(f"{where} closed the connection")

    def _abandon(self) -> None:
        if self._client is not None:
            self._client._sock_close()
        self._client = None
