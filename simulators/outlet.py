"""Where a run's messages go: MQTT, Kafka or a file. Each says which were confirmed, and nothing else counts as sent."""

import gzip
import time
from base64 import b64encode
from collections import deque
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, cast

import msgspec

from fleet.catalog import Catalog
from fleet.channels import copy_topics
from fleet.contract import Intake, Reject
from fleet.control import key_of
from fleet.errors import ConfigurationError, Unavailable, WeirError
from fleet.reading import Reading, encode_reading
from fleet.settings import Settings
from simulators.message import Message

MAX_IN_FLIGHT = 1_000
"""Of the broker's answers outstanding; the same number of Kafka records."""
INGEST_LAG_US = 120_000_000
"""How much later than now ingest may read a message."""
GATEWAYS = ("http", "coap")
TARGETS = ("mqtt", "kafka", "http", "coap", "file")


class Confirmed(NamedTuple):
    """A message that arrived, and how the contract reads it there."""

    message: Message
    result: Reading | Reject
    clock_dependent: bool = False
    """Refused for its future time now, and no longer if ingest reads it a little later."""


class Outlet(Protocol):
    """`send` may wait for room. `confirmed` gives each message once, in the order of confirmation. `close` waits at
    most `patience` seconds for what is under way; after it `unconfirmed` counts what may or may not have arrived. All
    raise WeirError where the other side is gone or says no."""

    def send(self, message: Message, topic: str, payload: bytes) -> None: ...
    def confirmed(self) -> list[Confirmed]: ...
    def close(self, patience: float) -> None: ...
    @property
    def unconfirmed(self) -> int: ...


def open_outlet(
    target: str, path: Path | None, settings: Settings, catalog: Catalog, gateway: str = "", tokens: Path | None = None
) -> Outlet:
    """Raises ConfigurationError for a target that needs a path or a gateway, or does not want one."""
    if (target == "file") != (path is not None):
        raise ConfigurationError("--to file needs --out FILE" if target == "file" else "--out goes with --to file")
    if (target in GATEWAYS) != bool(gateway and tokens):
        wanted = f"--to {target} needs --gateway URL and --tokens FILE"
        raise ConfigurationError(wanted if target in GATEWAYS else "--gateway and --tokens go with --to http and coap")
    if path is not None:
        return FileOutlet(path, catalog)
    if tokens is not None:
        from simulators.gateway_outlet import open_gateway

        return open_gateway(target, gateway, tokens, catalog)
    return KafkaOutlet(settings, catalog) if target == "kafka" else MqttOutlet(settings, catalog)


def clock_us() -> int:
    return time.time_ns() // 1000


def read(intake: Intake, message: Message, topic: str, payload: bytes, now_us: int) -> Confirmed:
    result = intake.read_message(topic, payload, now_us)
    if not isinstance(result, Reject) or result.reason != "future_time":
        return Confirmed(message, result)
    later = intake.read_message(topic, payload, now_us + INGEST_LAG_US)
    return Confirmed(message, result, not isinstance(later, Reject))


class MqttOutlet:
    """QoS 1. Confirmed is what the broker answered with a PUBACK."""

    def __init__(self, settings: Settings, catalog: Catalog):
        from connections.mqtt_publisher import BulkPublisher

        self._publisher = BulkPublisher(settings, max_in_flight=MAX_IN_FLIGHT)
        self._closed = False
        self._intake = Intake(catalog)
        self._under_way: dict[int, tuple[Message, str, bytes]] = {}
        self._confirmed: list[Confirmed] = []

    def send(self, message: Message, topic: str, payload: bytes) -> None:
        self._settle()
        self._under_way[self._publisher.publish(topic, payload)] = (message, topic, payload)

    def _settle(self) -> None:
        settled = self._publisher.settled
        now_us = clock_us() if settled else 0
        while settled:
            number, taken = settled.popleft()
            message, topic, payload = self._under_way.pop(number)
            if taken:
                self._confirmed.append(read(self._intake, message, topic, payload, now_us))

    def confirmed(self) -> list[Confirmed]:
        if not self._closed:
            self._publisher.poll(0)
        self._settle()
        found, self._confirmed = self._confirmed, []
        return found

    def close(self, patience: float) -> None:
        self._closed = True
        self._publisher.close(patience)

    @property
    def unconfirmed(self) -> int:
        return len(self._under_way)


class KafkaOutlet:
    """Straight into the readings topic and the features' own, as the ingest side would write it: canonical, by device
    or site. What the contract refuses goes as it is, for landing to find unreadable."""

    def __init__(self, settings: Settings, catalog: Catalog):
        from connections.kafka import WRITE, check_access, producer

        self._intake, self._catalog = Intake(catalog), catalog
        simulated = [spec for spec in catalog if spec.simulation]
        self._copies = {spec.type: copy_topics(spec) for spec in simulated}
        copies = [topic for topics in self._copies.values() for topic in topics.values()]
        check_access(settings, WRITE, [*(spec.topic for spec in simulated), *copies])
        self._producer = producer(settings, "weir-simulator")
        self._under_way: deque[tuple[list[Any], Message, str, bytes]] = deque()

    def send(self, message: Message, topic: str, payload: bytes) -> None:
        from kafka.errors import KafkaError

        spec = self._catalog.type(message.reading.device_type)
        result = self._intake.read_message(topic, payload, clock_us())
        value = payload if isinstance(result, Reject) else encode_reading(result)
        key = key_of(spec, message.reading.device_id, message.reading.site)
        copies = self._copies.get(spec.type, {}) if isinstance(result, Reading) else {}
        topics = [spec.topic, *(copies[metric] for metric in message.reading.values if metric in copies)]
        try:
            sent = [self._producer.send(name, value, key.encode()) for name in topics]
        except KafkaError as error:
            raise Unavailable(f"Kafka takes nothing on {', '.join(topics)}: {error}") from error
        self._under_way.append((sent, message, spec.topic, value))

    def confirmed(self) -> list[Confirmed]:
        found = []
        while self._under_way and all(each.is_done for each in self._under_way[0][0]):
            sent, message, topic, value = self._under_way[0]
            if failed := next((each for each in sent if each.failed()), None):
                raise Unavailable(f"Kafka did not take a record on {topic}, or its copy: {failed.exception}")
            self._under_way.popleft()
            found.append(Confirmed(message, self._intake.read_record(topic, value)))
        return found

    def close(self, patience: float) -> None:
        from kafka.errors import KafkaError

        try:
            self._producer.flush(timeout=patience)
        except KafkaError as error:
            raise Unavailable(f"Kafka did not confirm {self.unconfirmed:,} records: {error}") from error
        finally:
            self._producer.close(timeout=5)

    @property
    def unconfirmed(self) -> int:
        return len(self._under_way)


class Line(msgspec.Struct, omit_defaults=True):
    """A line of a sample log: one MQTT message. `payload_base64` where it is not UTF-8."""

    topic: str
    payload: str | None = None
    payload_base64: str | None = None

    @classmethod
    def of(cls, topic: str, payload: bytes) -> "Line":
        try:
            return cls(topic, payload.decode("utf-8"))
        except UnicodeDecodeError:
            return cls(topic, payload_base64=b64encode(payload).decode("ascii"))


class FileOutlet:
    """JSON lines, gzipped where the name ends in .gz. Confirmed is what was handed to the file."""

    def __init__(self, path: Path, catalog: Catalog):
        self._intake, self._path = Intake(catalog), path
        self._encode = msgspec.json.Encoder().encode
        self._confirmed: list[Confirmed] = []
        try:
            self._plain = path.open("wb")
        except OSError as error:
            raise ConfigurationError(f"--out {path}: {error.strerror}") from None
        zipped = gzip.GzipFile(fileobj=self._plain, mode="wb") if path.suffix == ".gz" else None
        self._file = cast(IO[bytes], zipped or self._plain)

    def send(self, message: Message, topic: str, payload: bytes) -> None:
        try:
            self._file.write(self._encode(Line.of(topic, payload)) + b"\n")
        except OSError as error:
            raise self._failed(error) from error
        self._confirmed.append(read(self._intake, message, topic, payload, clock_us()))

    def confirmed(self) -> list[Confirmed]:
        found, self._confirmed = self._confirmed, []
        return found

    def close(self, patience: float) -> None:
        try:
            self._file.close()
            self._plain.close()  # gzip leaves it open
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> WeirError:
        return Unavailable(f"{self._path}: {error.strerror}; is the disk full?")

    @property
    def unconfirmed(self) -> int:
        return 0
