"""MQTT 5 on paho: a subscriber that acknowledges when told to, and a publisher that counts its confirmations."""

import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from connections.mqtt_frames import BadFrame, Delivery, pubacks, split
from fleet.errors import ConfigurationError, Refused, Unavailable, WeirError
from fleet.settings import Settings

CONNECT_TIMEOUT_SECONDS = 5.0
KEEPALIVE_SECONDS = 30
SESSION_SECONDS = 7 * 86_400
"""How long the broker keeps the queue of a subscriber that does not come back."""
RECEIVE_MAXIMUM = 65_535
CHUNK_BYTES = 256 * 1024
DROPPED = "$SYS/broker/publish/messages/dropped"
NOTICES = "$SYS/broker/log/N"
"""Lines of its log: who connected, and who was cut off and why."""


def session_id(settings: Settings, name: str) -> str:
    """The client id of a service's session that stays with the broker. Whoever logs in can take over, or end, a session
    whose id it knows, whichever user it is; this one is known to those who have the service's password."""
    secret = settings.mqtt_password.get_secret_value()
    return f"{name}-{blake2b(f'{name} {secret}'.encode(), digest_size=16).hexdigest()}"


def _where(settings: Settings) -> str:
    return f"{settings.mqtt_host}:{settings.mqtt_port}"


def _at_once(client: paho.Client, userdata: Any, sock: Any) -> None:
    """Nagle's algorithm would hold a small packet back until the one before is acknowledged, for up to 40 ms."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def client_of(settings: Settings, client_id: str, **options: Any) -> paho.Client:
    client = paho.Client(
        CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5, **options
    )  # fmt: skip
    client.connect_timeout = CONNECT_TIMEOUT_SECONDS
    client.on_socket_open = _at_once
    if settings.mqtt_user:
        client.username_pw_set(settings.mqtt_user, settings.mqtt_password.get_secret_value())
    if settings.mqtt_ca:
        if not settings.mqtt_ca.is_file():
            raise ConfigurationError(f"WEIR_MQTT_CA names {settings.mqtt_ca}, which does not exist")
        client.tls_set(ca_certs=str(settings.mqtt_ca))
    return client


def open_connection(
    client: paho.Client, settings: Settings, clean: bool, session_seconds: int, receive_maximum: int
) -> None:
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = session_seconds
    properties.ReceiveMaximum = max(1, min(receive_maximum, RECEIVE_MAXIMUM))
    try:
        client.connect(
            settings.mqtt_host, settings.mqtt_port, KEEPALIVE_SECONDS, clean_start=clean, properties=properties
        )
    except ssl.SSLError as error:
        raise Refused(f"MQTT broker at {_where(settings)}: TLS: {error}. Check WEIR_MQTT_CA and the port") from error
    except OSError as error:
        raise Unavailable(
            f"nothing answers at the MQTT broker's address {_where(settings)} ({error}). Is it running (`weir status`),"
            " and are WEIR_MQTT_HOST and WEIR_MQTT_PORT right?"
        ) from error


def refusal(settings: Settings, reason: ReasonCode) -> WeirError:
    text = f"MQTT broker at {_where(settings)} refuses user {settings.mqtt_user!r}: {reason}."
    if reason.value in (0x86, 0x87, 0x8C):  # bad user name or password, not authorized, bad authentication method
        return Refused(f"{text} Check user and password in {settings.env_file or 'WEIR_MQTT_USER, WEIR_MQTT_PASSWORD'}")
    return Unavailable(text)


class Subscriber:
    """One session with the broker, driven by one thread: `poll` gives what came, `ack` confirms in order of arrival.

    Persistent by its client id unless `clean`: what is not acknowledged comes again after a reconnect.
    Every method raises Unavailable when the connection is gone; make a new one then.
    """

    def __init__(
        self,
        settings: Settings,
        client_id: str,
        subscriptions: Iterable[str],
        *,
        max_in_flight: int = RECEIVE_MAXIMUM,
        clean: bool = False,
        qos: int = 1,
    ):
        self._settings, self._subscriptions, self._qos = settings, list(subscriptions), qos
        self._connected: ReasonCode | None = None
        self._lost: ReasonCode | None = None
        self._granted = 0
        self.is_resumed = False
        """Whether the broker had the session already."""
        self._buffer = b""
        self.has_more = False
        """Whether the last poll left something to be read."""
        client = self._client = client_of(settings, client_id, manual_ack=True, reconnect_on_failure=False)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        open_connection(client, settings, clean, 0 if clean else SESSION_SECONDS, max_in_flight)
        self._first: list[Delivery] = []
        try:
            self._until(lambda: self._connected is not None)
            self._subscribe()
            self._until(lambda: self._granted == len(self._subscriptions))
        except BaseException:
            self.abandon()
            raise

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        self._connected, self.is_resumed = reason, flags.session_present

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        self._lost = reason

    def _on_subscribe(self, client: Any, userdata: Any, mid: int, reasons: list[ReasonCode], properties: Any) -> None:
        for reason in reasons:
            if reason.is_failure:
                raise Refused(f"MQTT user {self._settings.mqtt_user!r} may not subscribe: {reason}")
        self._granted += len(reasons)

    def _subscribe(self) -> None:
        if self._connected is None or self._connected.is_failure:
            raise refusal(self._settings, self._connected or ReasonCode(PacketTypes.CONNACK))
        # Retained messages only where the subscription is new: a reconnect must not read them again.
        options = SubscribeOptions(qos=self._qos, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        if self._subscriptions:
            self._client.subscribe([(topic, options) for topic in self._subscriptions])

    def _until(self, reached: Callable[[], bool]) -> None:
        """A persistent session's messages may come before the broker's answers; they are kept for the first poll."""
        deadline = time.monotonic() + CONNECT_TIMEOUT_SECONDS
        while not reached():
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"MQTT broker at {_where(self._settings)} took the connection and did not answer within"
                    f" {CONNECT_TIMEOUT_SECONDS:.0f} s; is it an MQTT port, and without TLS if WEIR_MQTT_CA is not set?"
                )
            self._first += self._receive(0.1)

    def fileno(self) -> int:
        """For select()."""
        sock = self._client.socket()
        return -1 if sock is None else int(sock.fileno())

    def poll(self, timeout: float) -> list[Delivery]:
        """What arrived, waiting at most `timeout` seconds for it."""
        if self._first:
            first, self._first = self._first, []
            return first
        return self._receive(timeout)

    def _receive(self, timeout: float) -> list[Delivery]:
        client, sock = self._client, self._client.socket()
        if sock is None:
            raise self._gone()
        pending = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        writers = [sock] if client.want_write() else []
        readable, writable, _ = select.select([sock], writers, [], 0 if pending else timeout)
        if writable:
            client.loop_write()
        deliveries: list[Delivery] = []
        self.has_more = False
        if readable or pending:
            self._read(deliveries)
        client.loop_misc()
        if client.socket() is None and not deliveries:
            raise self._gone()
        return deliveries

    def _read(self, deliveries: list[Delivery]) -> None:
        client = self._client
        others: list[tuple[int, bytes]] = []
        data = self._buffer + self._come()
        try:
            used = split(data, deliveries, others)
        except BadFrame as error:
            raise Unavailable(f"MQTT broker at {_where(self._settings)} sent what is no MQTT: {error}") from error
        self._buffer = data[used:]
        client._last_bytes_received = time.monotonic()
        for first, body in others:
            self._hand_on(first, body)

    def _come(self) -> bytes:
        """At most CHUNK_BYTES. Over TLS a read gives one record, which may be one message; all of them are taken."""
        client, chunks, size = self._client, list[bytes](), 0
        is_tls = isinstance(client.socket(), ssl.SSLSocket)
        try:
            while size < CHUNK_BYTES and (is_tls or not chunks):
                chunk = client._sock_recv(CHUNK_BYTES - size)
                if not chunk and not chunks:
                    raise self._gone()
                if not chunk:
                    break  # the next read says so again
                chunks.append(chunk)
                size += len(chunk)
        except BlockingIOError:
            pass
        except OSError as error:
            raise Unavailable(f"MQTT broker at {_where(self._settings)}: connection lost ({error})") from error
        self.has_more = size == CHUNK_BYTES
        return b"".join(chunks)

    def _hand_on(self, first: int, body: bytes) -> None:
        """To paho, as if it had read this packet itself (paho-mqtt is pinned, for this is its inside: an
        other version that differs gets no further than its first SUBACK in tests/integration/test_bridge.py)."""
        self._client._in_packet = {
            "command": first, "have_remaining": 1, "remaining_count": [], "remaining_mult": 1,
            "remaining_length": len(body), "packet": bytearray(body), "to_process": 0, "pos": 0,
        }  # fmt: skip
        self._client._packet_handle()

    def keep_alive(self) -> None:
        """Instead of `poll`, where nothing more is to be taken in."""
        client = self._client
        if client.socket() is None:
            raise self._gone()
        if client.want_write():
            client.loop_write()
        client._last_bytes_received = time.monotonic()  # what is not read is no silence of the broker's
        client.loop_misc()

    def ack(self, mids: list[int]) -> None:
        """Confirms messages; `mids` in the order in which they arrived, as MQTT asks."""
        if mids and self._client.socket() is None:
            raise self._gone()
        if mids:
            self._client._packet_queue(paho.PUBACK, pubacks(mids), 0, 0)

    def flush(self, timeout: float) -> None:
        """Waits until all acknowledgements are on their way."""
        deadline = time.monotonic() + timeout
        while self._client.want_write() and time.monotonic() < deadline and (sock := self._client.socket()):
            select.select([], [sock], [], 0.1)
            self._client.loop_write()

    def close(self) -> None:
        """Says goodbye; a persistent session stays."""
        if self._client.socket() is not None:
            self._client.disconnect()
            self._client.loop_write()
        self.abandon()

    def unsubscribe(self, subscription: str) -> None:
        """What the broker keeps already still comes."""
        self._client.unsubscribe(subscription)

    def end(self) -> None:
        """Says goodbye for good: the session, and all that the broker keeps for it, is no more."""
        if self._client.socket() is not None:
            properties = Properties(PacketTypes.DISCONNECT)
            properties.SessionExpiryInterval = 0
            self._client.disconnect(properties=properties)
            self._client.loop_write()
        self.abandon()

    def abandon(self) -> None:
        """Cuts the connection without a word, as a crash would."""
        self._client._sock_close()

    def _gone(self) -> Unavailable:
        reason = f": {self._lost}" if self._lost is not None else ""
        return Unavailable(f"MQTT broker at {_where(self._settings)}: connection lost{reason}")


def dropped_messages(settings: Settings, timeout: float = 5.0) -> int | None:
    """How many messages Mosquitto dropped since its start, by its own account; None where it does not say.
    The user needs to read `$SYS/broker/publish/messages/dropped`."""
    subscriber = Subscriber(settings, "", [DROPPED], clean=True, qos=0)
    deadline = time.monotonic() + timeout
    try:
        while time.monotonic() < deadline:
            for delivery in subscriber.poll(0.2):
                return int(delivery.payload)
    finally:
        subscriber.close()
    return None
