"""What a service says of itself: a reading of the type `weir_component` every 10 s, into the topic of that type.

From there it goes the way of all readings: lake, tables, rules. Whoever reports, reports by this one thread; the same
figures are on `/metrics`.
"""

import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError
from prometheus_client.core import GaugeMetricFamily, Metric

from connections import kafka
from fleet.catalog import Catalog
from fleet.channels import OWN_TYPE
from fleet.reading import Reading, encode_reading
from fleet.settings import SERVICES, Settings
from streaming.service import Supervised

REPORT_SECONDS = 10.0
CONFIRM_SECONDS = 20
PER_SECOND = {"evaluations": "evaluations_per_second"}
"""Counts that are told by the second."""

log = logging.getLogger("weir.report")


@dataclass
class Figures:
    """Of one moment; names are metrics of the type."""

    states: dict[str, float | None] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    """Since the process began, never falling; told as what came since the last report."""
    positions: Mapping[TopicPartition, int | None] | None = None
    """Of a service that reads from Kafka: the next offset of each partition that is its own; None: not known yet. Told
    as `lag`."""


def device_id(service: str, instance: str = "1") -> str:
    """Known in advance, so that a service that never came up can be missed."""
    return f"{service}-{_level(instance)}"[:64]


def own_devices() -> dict[str, str]:
    """Id → site, of one of each service on this machine."""
    return {device_id(service): site() for service in SERVICES}


def site() -> str:
    """This machine."""
    return _level(socket.gethostname())[:64] or "here"


def _level(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.:-]", "-", text)


class Reporter:
    """Without a spec of its type it says nothing."""

    def __init__(self, settings: Settings, service: str, catalog: Catalog, figures: Callable[[], Figures]):
        self.settings, self.service, self._figures = settings, service, figures
        self.spec = catalog.types.get(OWN_TYPE)
        self._told: dict[str, int] = {"restarts": -1}  # the first report counts the start of the process
        self._told_at = time.monotonic()
        self.values: dict[str, float | None] = {}
        """As last reported."""
        self.thread: Supervised | None = None

    def start(self, stop: threading.Event) -> None:
        if self.spec is not None:
            self.thread = Supervised("report", lambda: self.run(stop), stop)
            self.thread.thread.start()

    def run(self, stop: threading.Event) -> None:
        """Until `stop`, or until Kafka fails; what was not told then is told in the next report."""
        name = f"weir-{self.service}-report"
        consumer = kafka.consumer(self.settings, name)
        producer = None
        try:
            producer = kafka.producer(
                self.settings, name, linger_ms=0, delivery_timeout_ms=CONFIRM_SECONDS * 1000, max_block_ms=3_000
            )
            while not stop.is_set():
                self.report(consumer, producer)
                stop.wait(REPORT_SECONDS)
        except KafkaError as error:
            raise kafka.unavailable(self.settings, error) from error
        finally:
            consumer.close(autocommit=False)
            if producer is not None:
                kafka.close(producer)

    def report(self, consumer: Any, producer: Any) -> None:
        """Raises KafkaError; counts are then told by the next one."""
        assert self.spec is not None
        figures, now = self._figures(), time.monotonic()
        values = dict(figures.states)
        if (positions := figures.positions) is not None:
            known = bool(positions) and None not in positions.values()
            ends = consumer.end_offsets(list(positions), timeout_ms=kafka.ANSWER_MS) if known else {}
            values["lag"] = lag(positions, ends) if known else None
        for count, total in {"restarts": 0, **figures.counts}.items():
            gained = total - self._told.get(count, 0)
            if count in PER_SECOND:
                values[PER_SECOND[count]] = round(gained / max(now - self._told_at, 1e-3), 1)
            else:
                values[count] = gained
        reading = Reading(
            device_id(self.service, self.settings.service_instance), OWN_TYPE, site(),
            time.time_ns() // 1_000_000 * 1000, values, None, self.spec.version,
        )  # fmt: skip
        producer.send(self.spec.topic, encode_reading(reading), reading.device_id.encode()).get(timeout=CONFIRM_SECONDS)
        self._told, self._told_at, self.values = {"restarts": 0, **figures.counts}, now, values

    def collect(self) -> Iterator[Metric]:
        shown = GaugeMetricFamily("weir_component", "What the service last reported of itself", labels=["metric"])
        for name, value in self.values.items():
            if value is not None:
                shown.add_metric([name], value)
        yield shown


def lag(positions: Mapping[TopicPartition, int | None], ends: Mapping[TopicPartition, int]) -> int:
    """Records between the positions and the ends of the logs, which may have been asked for before a read."""
    return sum(max(0, ends[place] - (position or 0)) for place, position in positions.items())
