"""A publisher for many messages: QoS 1, packets written and confirmations read by the hundred, in one thread.

paho's own publish costs about 350 µs of processor time a message with its confirmation; this costs about 15.
"""

import time
from collections import deque
from collections.abc import Iterable
from struct import pack

from connections.mqtt import Subscriber
from fleet.errors import Refused, Unavailable
from fleet.settings import Settings

PUBLISH_QOS1, DUPLICATE, PUBACK = 0x32, 0x08, 0x40
MESSAGE_EXPIRY = 0x02
REFUSED = 0x80
"""From this reason code on the broker has not taken the message."""
FLUSH_BYTES = 32 * 1024
AWAY_SECONDS = 60.0
"""For how long a broker may be gone, or confirm nothing, before we give up."""
MAX_IDS = 65_535


def publish_frame(mid: int, topic: bytes, payload: bytes, expires_seconds: int | None = None) -> bytes:
    """An MQTT 5 PUBLISH packet with QoS 1 and no properties, but for how long the broker keeps it for who is away."""
    properties = b"\0" if expires_seconds is None else pack(">BBI", 5, MESSAGE_EXPIRY, expires_seconds)
    length = 2 + len(topic) + 2 + len(properties) + len(payload)
    size = bytearray()
    rest = length
    while True:
        rest, digit = divmod(rest, 128)
        size.append(digit | 0x80 if rest else digit)
        if not rest:
            break
    return b"".join((bytes((PUBLISH_QOS1,)), size, pack(">H", len(topic)), topic, pack(">H", mid), properties, payload))


class RawPublisher(Subscriber):
    """Writes raw packets and keeps the broker's PUBACKs, as (message id, reason code)."""

    def __init__(self, settings: Settings, client_id: str, subscriptions: Iterable[str] = (), clean: bool = True):
        self.answers: list[tuple[int, int]] = []
        super().__init__(settings, client_id, subscriptions, clean=clean)

    def write(self, packets: bytes) -> None:
        if self._client.socket() is None:
            raise self._gone()
        # As a PUBACK: what paho takes for a PUBLISH it counts as its own.
        self._client._packet_queue(PUBACK, packets, 0, 0)

    def _hand_on(self, first: int, body: bytes) -> None:
        if first & 0xF0 == PUBACK:
            self.answers.append((int.from_bytes(body[:2], "big"), body[2] if len(body) > 2 else 0))
        else:
            super()._hand_on(first, body)


class BulkPublisher:
    """Not for several threads. Reconnects by itself and sends again, in order, what was not confirmed.

    `settled` gets (message id, whether the broker took it); ids come round again, so take them out between publishes.
    Methods raise Unavailable after AWAY_SECONDS without a broker, and Refused once it has refused a message.
    """

    def __init__(self, settings: Settings, client_id: str = "", max_in_flight: int = 1000):
        self.published = self.acknowledged = self.refused = self.reconnects = 0
        self.last_refusal = ""
        self.settled: deque[tuple[int, bool]] = deque()
        self._settings, self._client_id, self._max = settings, client_id, min(max_in_flight, MAX_IDS // 2)
        self._mid = 0
        self._under_way: dict[int, bytes] = {}
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._connection = RawPublisher(settings, client_id)

    @property
    def outstanding(self) -> int:
        """Published, and neither confirmed nor refused."""
        return len(self._under_way)

    def publish(self, topic: str, payload: bytes) -> int:
        """The message's id. Waits while `max_in_flight` are unconfirmed; may be held back until `poll`."""
        if self.refused:
            raise self._refusal()
        if len(self._under_way) >= self._max:
            self._wait_for(self._max - 1, AWAY_SECONDS)
        self._mid = self._mid % MAX_IDS + 1
        while self._mid in self._under_way:
            self._mid = self._mid % MAX_IDS + 1
        frame = publish_frame(self._mid, topic.encode("utf-8"), payload)
        self._under_way[self._mid] = frame
        self._buffer.append(frame)
        self._buffered += len(frame)
        self.published += 1
        if self._buffered >= FLUSH_BYTES:
            self.poll(0)
        return self._mid

    def poll(self, timeout: float) -> None:
        """Sends what is held back, and takes the broker's answers, waiting at most `timeout` seconds for some."""
        try:
            if self._buffer:
                packets, self._buffer, self._buffered = b"".join(self._buffer), [], 0
                self._connection.write(packets)
            self._connection.poll(timeout)
        except Unavailable as lost:
            self._take_answers()
            self._reconnect(lost)
        self._take_answers()

    def _take_answers(self) -> None:
        answers, self._connection.answers = self._connection.answers, []
        for mid, reason in answers:
            if self._under_way.pop(mid, None) is None:
                continue
            taken = reason < REFUSED
            if taken:
                self.acknowledged += 1
            else:
                self.refused += 1
                self.last_refusal = reason_text(reason)
            self.settled.append((mid, taken))

    def _reconnect(self, lost: Unavailable) -> None:
        self._connection.abandon()
        deadline = time.monotonic() + AWAY_SECONDS
        pause = 0.05
        while True:
            time.sleep(pause)
            pause = min(2 * pause, 1.0)
            try:
                self._connection = RawPublisher(self._settings, self._client_id)
                self._send_again()
                break
            except Unavailable as error:
                if time.monotonic() > deadline:
                    raise Unavailable(f"{lost}; gone for {AWAY_SECONDS:.0f} s: {error}") from error
        self.reconnects += 1

    def _send_again(self) -> None:
        # As they were sent, by MQTT's order rule; what had not left yet is among them.
        again = [bytes((frame[0] | DUPLICATE,)) + frame[1:] for frame in self._under_way.values()]
        self._buffer, self._buffered = [], 0
        if again:
            self._connection.write(b"".join(again))

    def _wait_for(self, outstanding: int, timeout: float) -> None:
        """Until at most so many are unconfirmed, or no answer at all came for `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while (left := len(self._under_way)) > outstanding:
            self.poll(0.2)
            if self.refused:  # Mosquitto 2.0.11 leaves what followed a refused message unanswered
                raise self._refusal()
            if len(self._under_way) < left:
                deadline = time.monotonic() + timeout
            elif time.monotonic() > deadline:
                where = f"{self._settings.mqtt_host}:{self._settings.mqtt_port}"
                raise Unavailable(
                    f"{left:,} of {self.published:,} messages were not confirmed by the MQTT broker at {where}"
                )

    def _refusal(self) -> Refused:
        user = self._settings.mqtt_user
        return Refused(f"the MQTT broker refuses what user {user!r} publishes: {self.last_refusal}; see its ACL")

    def flush(self, timeout: float = 30.0) -> None:
        """Waits for every confirmation, as long as some come within `timeout` seconds."""
        self._wait_for(0, timeout)

    def close(self, timeout: float = 30.0) -> None:
        """Waits for the confirmations, like `flush`."""
        try:
            self.flush(timeout)
        finally:
            self._connection.close()


REASONS = {0x87: "Not authorized", 0x90: "Topic name invalid", 0x97: "Quota exceeded"}


def reason_text(code: int) -> str:
    return REASONS.get(code, f"reason code 0x{code:02x}")
