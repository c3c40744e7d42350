"""All workers of the bridge in one process, the heartbeats beside them, and what is shown of them."""

import logging
import threading
import time
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from fleet.catalog import load_catalog
from fleet.settings import Settings
from streaming.admission import Admission
from streaming.announcer import Announcer
from streaming.bridge import DRAIN_SECONDS, check, workers_of
from streaming.broker_watch import BrokerWatch
from streaming.heartbeat import Heartbeats
from streaming.registrar import Registrar
from streaming.rejections import Rejections
from streaming.reporter import Figures, Reporter
from streaming.service import Health, Supervised

REPORT_SECONDS = 60.0

log = logging.getLogger("weir.bridge")


class Bridge:
    """`run` returns after `stop` is set and the workers have confirmed what was in flight."""

    def __init__(self, settings: Settings, only: list[str] | None = None):
        self.settings = settings
        self.catalog = load_catalog(settings.types_dir)
        self.admission = Admission(self.catalog)
        self.registrar = Registrar(settings, self.catalog, self.admission)
        self.announcer = Announcer(settings)
        self.rejections = Rejections(settings)
        self.workers = workers_of(settings, self.catalog, self.admission, self.rejections, only)
        self.broker = BrokerWatch(settings)
        self.heartbeats = Heartbeats(settings, self.catalog, self.broker)
        self.reporter = Reporter(settings, "bridge", self.catalog, self.figures)
        self._threads: dict[str, Supervised] = {}
        self._aside: list[Supervised] = []
        """Without these messages go on: they are no reason not to be ready."""

    def run(self, stop: threading.Event) -> None:
        check(self.settings, self.workers, self.catalog)
        health = Health(self.settings.bridge_metrics_port, self.problem, self.settings.bind)
        health.registry.register(self)
        health.registry.register(self.reporter)
        for worker in self.workers:
            self._start(worker.name, worker.run, stop)
        self._start("heartbeats", self.heartbeats.run, stop)
        self._aside = [
            self._supervise("registry", self.registrar.run, stop),
            self._supervise("specs", self.announcer.run, stop),
            self._supervise("rejections", self.rejections.run, stop),
            self._supervise("$SYS", self.broker.run, stop),
        ]
        self.reporter.start(stop)
        log.info("started workers=%d topics=%s", len(self.workers), ",".join(self.heartbeats.topics))
        while not stop.wait(REPORT_SECONDS):
            log.info("%s", self.summary())
        deadline = time.monotonic() + DRAIN_SECONDS + 3
        for supervised in (*self._threads.values(), self._aside[0]):
            supervised.thread.join(max(0.0, deadline - time.monotonic()))
        log.info("stopped %s", self.summary())
        health.close()

    def _start(self, name: str, work: Callable[..., None], stop: threading.Event) -> None:
        self._threads[name] = self._supervise(name, work, stop)

    def _supervise(self, name: str, work: Callable[..., None], stop: threading.Event) -> Supervised:
        def under_way() -> None:
            supervised.problem = ""

        supervised = Supervised(name, lambda: work(stop, under_way), stop)
        supervised.thread.start()
        return supervised

    def problem(self) -> str:
        """One line naming the threads that do not do their work now; empty when all do."""
        return "; ".join(f"{name}: {t.problem}" for name, t in self._threads.items() if t.problem)

    def figures(self) -> Figures:
        tallies = [worker.tallies for worker in self.workers]
        reasons = [(reason, n) for t in tallies for (reason, _), n in list(t.rejected.items())]
        counts = {
            "rejects": sum(n for _, n in reasons),
            "unknown_devices": sum(n for reason, n in reasons if reason in ("unknown_device", "retired_device")),
            "restarts": sum(t.restarts for t in (*self._threads.values(), *self._aside)),
        }
        return Figures({"lag": sum(t.in_flight for t in tallies), "spec_errors": len(self.announcer.problems)}, counts)

    def summary(self) -> str:
        tallies = [w.tallies for w in self.workers]
        return (
            f"received={sum(t.received for t in tallies)} bridged={sum(t.bridged for t in tallies)}"
            f" rejected={sum(t.rejected.total() for t in tallies)} in_flight={sum(t.in_flight for t in tallies)}"
            f" newcomers={len(self.admission.newcomers())} heartbeats={self.heartbeats.sent}"
            f" mqtt_dropped={self.broker.dropped} mqtt_refused={self.broker.refused.total()}"
        )

    def collect(self) -> Iterator[Metric]:
        """Read when somebody asks, so that no message pays for a metric."""
        received = CounterMetricFamily("weir_bridge_received", "MQTT messages taken", labels=["worker"])
        bridged = CounterMetricFamily("weir_bridge_bridged", "Readings sent to Kafka", labels=["worker"])
        done = CounterMetricFamily("weir_bridge_acknowledged", "Messages acknowledged to MQTT", labels=["worker"])
        rejected = CounterMetricFamily(
            "weir_bridge_rejected", "Dead letters", labels=["worker", "reason", "device_type"]
        )  # fmt: skip
        in_flight = GaugeMetricFamily("weir_bridge_in_flight", "Messages not yet confirmed by Kafka", labels=["worker"])
        up = GaugeMetricFamily("weir_bridge_worker_up", "1 where MQTT and Kafka are connected", labels=["worker"])
        restarts = CounterMetricFamily("weir_bridge_restarts", "Times that a worker began again", labels=["worker"])
        for worker in self.workers:
            tallies, name = worker.tallies, [worker.name]
            received.add_metric(name, tallies.received)
            bridged.add_metric(name, tallies.bridged)
            done.add_metric(name, tallies.acknowledged)
            in_flight.add_metric(name, tallies.in_flight)
            up.add_metric(name, worker.connected)
            if worker.name in self._threads:
                restarts.add_metric(name, self._threads[worker.name].restarts)
            for (reason, device_type), count in list(tallies.rejected.items()):
                rejected.add_metric([*name, reason, device_type], count)
        yield from (received, bridged, done, rejected, in_flight, up, restarts)
        yield CounterMetricFamily("weir_bridge_heartbeats", "Heartbeat records written", value=self.heartbeats.sent)
        yield GaugeMetricFamily(
            "weir_bridge_registry_up", "1 where the registry can be asked", value=self.registrar.connected
        )
        yield GaugeMetricFamily("weir_bridge_registry_revision", "As far as it was read", value=self.admission.revision)
        yield GaugeMetricFamily(
            "weir_bridge_newcomers", "Devices yet to be registered", value=len(self.admission.newcomers())
        )
        yield CounterMetricFamily("weir_bridge_registered", "Devices registered here", value=self.registrar.registered)
        yield CounterMetricFamily("weir_bridge_controls", "Control records published", value=self.registrar.published)
        yield CounterMetricFamily("weir_bridge_specs", "Specs announced to the log", value=self.announcer.announced)
        yield GaugeMetricFamily(
            "weir_bridge_spec_errors", "Wrong lines in the specs' files", value=len(self.announcer.problems)
        )
        yield CounterMetricFamily(
            "weir_bridge_rejections_told", "Notices to devices of what was rejected", value=self.rejections.told
        )
        refused = CounterMetricFamily("weir_mqtt_refused", "Connections that Mosquitto ended", labels=["reason"])
        for reason, count in list(self.broker.refused.items()):
            refused.add_metric([reason], count)
        yield refused
        if self.broker.dropped is not None:
            yield GaugeMetricFamily(
                "weir_mqtt_dropped_messages", "Dropped by Mosquitto since its start", value=self.broker.dropped
            )
