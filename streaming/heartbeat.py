"""The record that says ingest is alive: by it, silence in a partition is told from a stopped bridge."""

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from kafka.errors import KafkaError

from connections import kafka
from fleet.catalog import Catalog
from fleet.channels import HEARTBEAT, MARK_HEADER
from fleet.settings import Settings
from streaming.broker_watch import BrokerWatch

CONFIRM_SECONDS = 20

log = logging.getLogger("weir.bridge")


def beat(producer: Any, topics: list[str], mqtt_dropped: int | None) -> int:
    """One heartbeat into every partition of the topics, confirmed by Kafka. Returns how many."""
    said = {"at": time.time_ns() // 1_000_000} | ({} if mqtt_dropped is None else {"mqtt_dropped": mqtt_dropped})
    value = json.dumps(said, separators=(",", ":")).encode()
    confirmations, failure = [], None
    for topic in topics:
        try:
            partitions = sorted(producer.partitions_for(topic))
        except KafkaError as error:  # one topic that is missing must not silence the others
            log.error("no heartbeat on topic=%s: %r", topic, error)
            failure = error
            continue
        for partition in partitions:
            headers = [(MARK_HEADER, HEARTBEAT)]
            confirmations.append(producer.send(topic, value, partition=partition, headers=headers))
    for confirmation in confirmations:
        confirmation.get(timeout=CONFIRM_SECONDS)
    if failure is not None and not confirmations:
        raise failure
    return len(confirmations)


class Heartbeats:
    """A record in every partition of every readings topic, each `bridge_heartbeat_seconds`, so that a log without
    readings is told from a log without ingest. By a producer of its own: no worker can hold it up."""

    def __init__(self, settings: Settings, catalog: Catalog, broker: BrokerWatch):
        self.settings, self.broker = settings, broker
        self.topics = [system.topic for system in catalog.systems.values()]
        self.sent = 0

    def run(self, stop: threading.Event, under_way: Callable[[], None] = lambda: None) -> None:
        producer = kafka.producer(
            self.settings, "weir-bridge-heartbeats", linger_ms=0, delivery_timeout_ms=20_000, max_block_ms=3_000
        )
        try:
            due = time.monotonic()
            while not stop.is_set():
                self.sent += beat(producer, self.topics, self.broker.dropped)
                under_way()
                due = max(due + self.settings.bridge_heartbeat_seconds, time.monotonic())
                stop.wait(due - time.monotonic())
        except KafkaError as error:
            raise kafka.unavailable(self.settings, error) from error
        finally:
            kafka.close(producer)
