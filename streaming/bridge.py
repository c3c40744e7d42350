"""MQTT → Kafka. One worker a route, each with its own session, producer and thread, so that one fails alone.

A worker takes what came, sends it to Kafka, and acknowledges to MQTT, in order of arrival, what Kafka has confirmed
(acks=all). It holds at most `bridge_max_in_flight` messages unconfirmed. When Kafka or MQTT fails it drops both
connections and begins again; what was not acknowledged comes again, so nothing is lost and some may come twice.
"""

import logging
import threading
import time
from collections import Counter as Tally
from collections import deque
from collections.abc import Callable
from typing import Any

from kafka.errors import KafkaError, MessageSizeTooLargeError

from connections import kafka, mqtt
from connections.kafka_appends import Appender
from connections.mqtt_frames import Delivery
from fleet.catalog import Catalog
from fleet.channels import (
    REJECTED,
    Route,
    parse_data_topic,
    readings_topics,
    routes,
    unrouted_subscription,
)
from fleet.contract import Intake, Reject
from fleet.control import key_of
from fleet.errors import ConfigurationError, Unavailable
from fleet.reading import Reading, encode_reading
from fleet.settings import Settings
from streaming.admission import Admission
from streaming.entrance import MAX_REQUEST_BYTES, letter_of, read_safely
from streaming.rejections import Rejections

POLL_SECONDS = 0.25
CONFIRM_SECONDS = 0.004
"""How often a worker looks for Kafka's confirmations while it waits for some; see LINGER_MS of connections.kafka."""
BUSY_IN_FLIGHT, BUSY_LINGER_MS, BUSY_SECONDS = 16, 10, 0.002
"""While more of its messages than these wait for Kafka, a worker is busy: its batches wait longer for more records, and
it lets more messages come before it reads again. See docs/decisions/0032."""
UNROUTED_SECONDS = 0.05
"""So long between two reads, for the worker that passes over nearly all it gets."""
FEW = 64
"""Messages. After a read of so many the next follows at once."""
MAX_BYTES_IN_FLIGHT = 64 * 1024 * 1024
REMEMBERED_TOPICS = 50_000
DRAIN_SECONDS = 5.0
REGISTRY_SECONDS = 5.0
"""How long a worker waits for the registry before it says so."""
QUIET_SECONDS = 2.0
"""A former session that has given nothing for so long is empty."""
UNROUTED = "unrouted"

log = logging.getLogger("weir.bridge")


class Tallies:
    """What a worker counted since it was first started. One thread writes, others read."""

    def __init__(self) -> None:
        self.received = self.bridged = self.acknowledged = self.in_flight = 0
        self.rejected: Tally[tuple[str, str]] = Tally()
        """(reason, device type) → messages whose dead letter Kafka confirmed or has yet to."""


class Worker:
    """One route. `route` None is the worker for messages that no route takes."""

    def __init__(
        self, settings: Settings, catalog: Catalog, intake: Intake, admission: Admission, rejections: Rejections,
        route: Route | None,
    ):  # fmt: skip
        self.settings, self.intake, self.admission, self.route = settings, intake, admission, route
        self.rejections = rejections
        self.name = route.name if route else UNROUTED
        self.subscription = route.subscription if route else unrouted_subscription()
        self.tallies = Tallies()
        self.connected = False
        self._routes = routes(catalog)
        self._types = catalog.types
        self._mine: dict[str, bool] = {}
        self._former_ended = False

    def subscribe(self) -> mqtt.Subscriber:
        """The session stays with the broker between connections: it is what keeps messages while we are away."""
        return mqtt.Subscriber(
            self.settings,
            mqtt.session_id(self.settings, f"weir-bridge-{self.name}"),
            [self.subscription],
            max_in_flight=self.settings.bridge_max_in_flight,
        )

    def run(self, stop: threading.Event, under_way: Callable[[], None] = lambda: None) -> None:
        """Until `stop`, or until something fails. `under_way()` is called when both sides are connected."""
        if not self._may_begin(stop):
            return
        subscriber = self.subscribe()
        try:
            producer = kafka.producer(self.settings, f"weir-bridge-{self.name}", max_request_size=MAX_REQUEST_BYTES)
        except BaseException:
            subscriber.abandon()
            raise
        self.connected = True
        log.info("worker=%s connected subscription=%s", self.name, self.subscription)
        under_way()
        passage = Passage(self, subscriber, producer)
        try:
            self._take_former(stop, subscriber, producer)
            while not stop.is_set():
                passage.step()
            passage.drain()
            subscriber.flush(1)
            subscriber.close()
        except KafkaError as error:
            raise kafka.unavailable(self.settings, error) from error
        finally:
            self.connected = False
            self.tallies.in_flight = 0
            subscriber.abandon()
            kafka.close(producer)

    def _take_former(self, stop: threading.Event, subscriber: mqtt.Subscriber, producer: Any) -> None:
        """What the broker keeps in the session of before ids had a secret, which is ended then. Others can take that
        from us: what goes wrong with it holds up nothing, and the next start tries again. Raises KafkaError."""
        if self._former_ended:
            return
        former = None
        try:
            former = mqtt.Subscriber(
                self.settings, f"weir-bridge-{self.name}", [], max_in_flight=self.settings.bridge_max_in_flight
            )
            if former.is_resumed:
                former.unsubscribe(self.subscription)
                passage, quiet_at = Passage(self, former, producer), time.monotonic() + QUIET_SECONDS
                while time.monotonic() < quiet_at:
                    if stop.is_set():
                        return
                    if passage.step():
                        quiet_at = time.monotonic() + QUIET_SECONDS
                    subscriber.keep_alive()
            former.end()
            self._former_ended = True
            if former.is_resumed:
                log.info("worker=%s ended its former session", self.name)
        except Unavailable as error:
            log.warning("worker=%s its former session: %s", self.name, error)
        finally:
            if former:
                former.abandon()

    def _may_begin(self, stop: threading.Event) -> bool:
        """Waits for the registry where readings cannot be judged without it; the session keeps them meanwhile. False
        where `stop` came first. Raises Unavailable."""
        if self.route is None:
            return True
        deadline = time.monotonic() + REGISTRY_SECONDS
        while not self.admission.may_judge(self.route.type):
            if stop.wait(CONFIRM_SECONDS * 10):
                return False
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"the registry has not been read yet, and devices of {self.route.type} do not register themselves;"
                    " nothing of theirs is acknowledged before"
                )
        return True

    def takes(self, topic: str) -> bool:
        """Of the unrouted worker: whether a message is its own. Others get what they subscribed to, and no more."""
        if self.route:
            return True
        mine = self._mine.get(topic)
        if mine is None:
            if len(self._mine) >= REMEMBERED_TOPICS:
                self._mine.clear()
            mine = self._mine[topic] = not any(route.takes(topic) for route in self._routes)
        return mine

    def read(self, delivery: Delivery, now_us: int) -> Reading | Reject:
        topic, payload = delivery.topic, delivery.payload
        result = read_safely(lambda: self.intake.read_message(topic, payload, now_us), topic)
        if isinstance(result, Reject):
            return result
        if self.route is None:
            address = parse_data_topic(topic)
            return Reject("bad_topic", f"no route takes {topic[:200]!r}", address.system if address else "")
        return self.admission.check(result) or result

    def key(self, reading: Reading) -> bytes:
        return key_of(self._types[reading.device_type], reading.device_id, reading.site).encode()


class Passage:
    """One connected stretch of a worker's life: messages between MQTT and Kafka's confirmation."""

    def __init__(self, worker: Worker, subscriber: mqtt.Subscriber, producer: Any):
        self.worker, self.subscriber, self.producer = worker, subscriber, producer
        self._appender = Appender(producer)
        self._few = min(FEW, worker.settings.bridge_max_in_flight // 2)  # more may not come before we acknowledge
        self.max_in_flight = 2 * worker.settings.bridge_max_in_flight  # QoS 0 knows no receive maximum
        self._pending: deque[tuple[int, int, Any, Any]] = deque()
        """(mid, bytes, Kafka's confirmation, that of the copy), in order of arrival."""
        self._bytes = 0

    def step(self) -> bool:
        """Take what came, confirm what is through. Whether anything came or has yet to be confirmed."""
        deliveries: list[Delivery] = []
        full = len(self._pending) >= self.max_in_flight or self._bytes >= MAX_BYTES_IN_FLIGHT
        if full:
            time.sleep(CONFIRM_SECONDS)
            self.subscriber.keep_alive()
        else:
            deliveries = self.subscriber.poll(CONFIRM_SECONDS if self._pending else POLL_SECONDS)
            if deliveries:
                self.take(deliveries)
            self._gather(len(deliveries))
        self.confirm()
        return bool(deliveries or self._pending)

    def _gather(self, came: int) -> None:
        is_busy = len(self._pending) > BUSY_IN_FLIGHT
        self._appender.linger(BUSY_LINGER_MS if is_busy else kafka.LINGER_MS)
        pause = UNROUTED_SECONDS if self.worker.route is None else BUSY_SECONDS * is_busy
        if 0 < came < self._few and not self.subscriber.has_more:
            time.sleep(pause)

    def take(self, deliveries: list[Delivery]) -> None:
        worker, tallies, pending, send = self.worker, self.worker.tallies, self._pending, self._appender.send
        now_us = time.time_ns() // 1000
        route = worker.route
        for delivery in deliveries:
            if not worker.takes(delivery.topic):
                pending.append((delivery.mid, 0, None, None))
                continue
            tallies.received += 1
            copy = None
            result = worker.read(delivery, now_us)
            if isinstance(result, Reading) and route:
                try:
                    value, key = encode_reading(result), worker.key(result)
                    confirmation = send(route.readings_topic, value, key)
                    if route.copy_topic:
                        copy = send(route.copy_topic, value, key)
                    tallies.bridged += 1
                except MessageSizeTooLargeError as error:
                    confirmation = self.reject(Reject("oversized", str(error)), delivery, now_us)
            else:
                assert isinstance(result, Reject)
                confirmation = self.reject(result, delivery, now_us)
            pending.append((delivery.mid, len(delivery.payload), confirmation, copy))
            self._bytes += len(delivery.payload)
        tallies.in_flight = len(pending)

    def reject(self, reject: Reject, delivery: Delivery, now_us: int) -> Any:
        self.worker.tallies.rejected[reject.reason, reject.device_type] += 1
        self.worker.rejections.note(reject, delivery.topic)
        return self.producer.send(REJECTED, letter_of(reject, delivery.topic, delivery.payload, now_us))

    def confirm(self) -> None:
        """Acknowledges, in order of arrival, what Kafka has. Raises what Kafka raised."""
        pending, mids = self._pending, []
        count = 0
        while pending:
            mid, size, confirmation, copy = pending[0]
            if confirmation is not None and not _confirmed(confirmation):
                break
            if copy is not None and not _confirmed(copy):
                break
            pending.popleft()
            self._bytes -= size
            count += 1
            if mid:
                mids.append(mid)
        if count:
            self.subscriber.ack(mids)
            self.worker.tallies.acknowledged += count
            self.worker.tallies.in_flight = len(pending)

    def drain(self) -> None:
        """Before a stop: what is with Kafka is waited for, at most DRAIN_SECONDS; the rest comes again next time."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._pending and time.monotonic() < deadline:
            time.sleep(CONFIRM_SECONDS)
            self.confirm()


def _confirmed(future: Any) -> bool:
    if not future.is_done:
        return False
    if future.exception is not None:
        raise future.exception
    return True


def check(settings: Settings, workers: list[Worker], catalog: Catalog) -> None:
    """Makes every worker's session, which from then on keeps its messages, then asks Kafka for the right to write.

    Raises Unavailable, or Refused where nothing could be written; a topic that is missing stops its own worker alone.
    """
    for worker in workers:
        worker.subscribe().close()
    topics = readings_topics(catalog)
    problems = kafka.access_problems(settings, kafka.WRITE, topics)
    if REJECTED in problems or len(problems) == len(topics) - 1:
        raise kafka.refused(settings, kafka.WRITE, problems)
    for problem in problems.items():
        log.error("topic=%s %s; its workers cannot work (`make up` creates what fleet/types names)", *problem)


def workers_of(
    settings: Settings, catalog: Catalog, admission: Admission, rejections: Rejections, only: list[str] | None = None
) -> list[Worker]:
    """A worker for each route, and one for what no route takes. `only` names some of them."""
    intake = Intake(catalog)
    workers = [Worker(settings, catalog, intake, admission, rejections, route) for route in (*routes(catalog), None)]
    if only:
        unknown = sorted(set(only) - {w.name for w in workers})
        if unknown:
            names = ", ".join(w.name for w in workers)
            raise ConfigurationError(f"the bridge has no worker {', '.join(unknown)}; it has {names}")
        workers = [w for w in workers if w.name in only]
    return workers
