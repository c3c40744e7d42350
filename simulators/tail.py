"""What comes on an MQTT or Kafka topic, as it comes, for people to read or as JSON lines."""

import json
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from fleet.channels import CONTROL, HEARTBEAT, MARK_HEADER, REJECTED
from fleet.settings import Settings

POLL_SECONDS = 0.2
MAX_SHOWN = 2_000
"""Characters of a payload that people are shown; JSON lines have all of it."""


class Heard(NamedTuple):
    """A message. `at_ms` is when Kafka appended it or MQTT delivered it; `place` is partition/offset on Kafka."""

    at_ms: int
    topic: str
    payload: bytes
    key: bytes | None = None
    place: str = ""
    headers: tuple[tuple[str, bytes | None], ...] = ()

    @property
    def is_reading(self) -> bool:
        """Heartbeats and control records are marked; whatever else comes is shown."""
        return dict(self.headers).get(MARK_HEADER) not in (HEARTBEAT, CONTROL)


def is_mqtt(topic: str) -> bool:
    """Kafka's topics have no slash, no # and no +."""
    return any(sign in topic for sign in "/#+")


def listen(settings: Settings, topic: str, from_beginning: bool, stopping: Callable[[], bool]) -> Iterator[Heard]:
    """Messages until stopped. Raises WeirError where the broker is gone, says no, or has no such topic."""
    return _mqtt(settings, topic, stopping) if is_mqtt(topic) else _kafka(settings, topic, from_beginning, stopping)


def _mqtt(settings: Settings, topic: str, stopping: Callable[[], bool]) -> Iterator[Heard]:
    from connections.mqtt import Subscriber

    # QoS 0 and a clean session: a spectator leaves nothing behind on the broker.
    subscriber = Subscriber(settings, "", [topic], clean=True, qos=0)
    try:
        while not stopping():
            for delivery in subscriber.poll(POLL_SECONDS):
                yield Heard(time.time_ns() // 1_000_000, delivery.topic, delivery.payload)
    finally:
        subscriber.close()


def _kafka(settings: Settings, topic: str, from_beginning: bool, stopping: Callable[[], bool]) -> Iterator[Heard]:
    from connections.kafka import READ, check_access, consumer, partitions
    from connections.kafka_batches import Batches

    check_access(settings, READ, [topic])
    client = consumer(settings, "weir-tail")
    try:
        assigned = partitions(client, [topic])
        client.assign(assigned)
        if from_beginning:
            client.seek_to_beginning(*assigned)
        else:
            client.seek_to_end(*assigned)
            for partition in assigned:  # the end is looked up now, not at the first poll
                client.position(partition)
        batches = Batches(client)
        while not stopping():
            for batch in batches.poll(int(POLL_SECONDS * 1000)):
                for r in batch.records():
                    yield Heard(
                        r.timestamp, r.topic, r.value or b"", r.key, f"{r.partition}/{r.offset}", tuple(r.headers)
                    )  # fmt: skip
    finally:
        client.close()


def as_json(heard: Heard) -> str:
    """One line; bytes that are not UTF-8 as `payload_base64`."""
    line: dict[str, Any] = {"at": _iso(heard.at_ms), "topic": heard.topic}
    if heard.place:
        partition, _, offset = heard.place.partition("/")
        line |= {"partition": int(partition), "offset": int(offset)}
    if heard.key is not None:
        line["key"] = heard.key.decode("utf-8", "backslashreplace")
    if heard.headers:
        line["headers"] = {name: (value or b"").decode("utf-8", "backslashreplace") for name, value in heard.headers}
    try:
        line["payload"] = heard.payload.decode("utf-8")
    except UnicodeDecodeError:
        line["payload_base64"] = b64encode(heard.payload).decode("ascii")
    return json.dumps(line, ensure_ascii=False)


def as_text(heard: Heard) -> tuple[str, str]:
    """(where and when, what was said), without control characters."""
    headers = " ".join(f"{name}={(value or b'').decode('utf-8', 'backslashreplace')}" for name, value in heard.headers)
    key = "" if heard.key is None else heard.key.decode("utf-8", "backslashreplace")
    at = datetime.fromtimestamp(heard.at_ms / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]
    where = heard.topic if is_mqtt(heard.topic) else f"{heard.place} {key}"
    return _printable(" ".join(filter(None, (at, where, headers)))), _said(heard)


def _said(heard: Heard) -> str:
    payload = heard.payload
    if heard.topic == REJECTED:
        payload = _dead_letter(payload)
    text = _printable(payload.decode("utf-8", "backslashreplace"))
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}… ({len(payload):,} bytes)"


def _dead_letter(payload: bytes) -> bytes:
    """The original bytes in place of their base64, where it is a dead letter as we write them."""
    try:
        letter = json.loads(payload)
        original = b64decode(letter.pop("payload_base64"), validate=True)
    except (ValueError, KeyError, AttributeError, TypeError):
        return payload
    about = " ".join(f"{name}={value}" for name, value in letter.items() if name not in ("reason", "detail"))
    return f"{letter.get('reason')}: {letter.get('detail')} ({about}) ".encode() + original


def _printable(text: str) -> str:
    """A device must not be able to write on somebody's terminal."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
