"""The gateway's process: HTTP and CoAP on one event loop, what keeps it informed beside it, and what is shown of it."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from connections.warehouse import Warehouse
from fleet.catalog import Catalog, load_catalog
from fleet.channels import readings_topics
from fleet.errors import ConfigurationError
from fleet.settings import Settings
from streaming import gateway_coap, gateway_http
from streaming.admission import Admission
from streaming.badges import BadgeOffice, Badges
from streaming.command_routes import routes
from streaming.deposit import Deposit
from streaming.gateway import Gate
from streaming.registrar import Registrar
from streaming.reporter import Figures, Reporter
from streaming.service import Health, Supervised
from streaming.watched_catalog import WatchedCatalog

REPORT_SECONDS = 60.0
LOOK_SECONDS = 0.1

log = logging.getLogger("weir.gateway")


class Gateway:
    """`run` returns after `stop` is set and what was taken is answered."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.catalog = load_catalog(settings.types_dir)
        self.specs = WatchedCatalog(settings.types_dir, self.catalog, log)
        self.warehouse = Warehouse.of(settings)
        self.admission = Admission(self.catalog)
        self.badges = Badges(self.catalog, settings.credentials_key.get_secret_value())
        self.office = BadgeOffice(settings, self.badges)
        self.registrar = Registrar(settings, self.catalog, self.admission, self.badges.learn_entries)
        self.deposit = Deposit(settings, readings_topics(self.catalog))
        self.gate = Gate(settings, self.catalog, self.admission, self.badges, self.deposit)
        self.reporter = Reporter(settings, "gateway", self.catalog, self.figures)
        self._threads: dict[str, Supervised] = {}

    def run(self, stop: threading.Event) -> None:
        self.deposit.look()  # what cannot work at all ends here, with a line that says why
        health = Health(self.settings.gateway_metrics_port, self.problem, self.settings.bind)
        health.registry.register(self)
        health.registry.register(self.reporter)
        self._start("registry", self.registrar.run, stop)
        self._start("credentials", self.office.run, stop)
        self._start("requests", self._serve, stop)
        self.reporter.start(stop)
        while not stop.wait(REPORT_SECONDS):
            log.info("%s", self.summary())
        for supervised in self._threads.values():
            supervised.thread.join(gateway_http.DRAIN_SECONDS + 5)
        log.info("stopped %s", self.summary())
        self.warehouse.close()
        health.close()

    def _start(self, name: str, work: Callable[..., None], stop: threading.Event) -> None:
        def under_way() -> None:
            supervised.problem = ""

        supervised = self._threads[name] = Supervised(name, lambda: work(stop, under_way), stop)
        supervised.thread.start()

    def _serve(self, stop: threading.Event, under_way: Callable[[], None]) -> None:
        asyncio.run(self._serve_until(stop, under_way))

    async def _serve_until(self, stop: threading.Event, under_way: Callable[[], None]) -> None:
        settings = self.settings
        if not settings.gateway_http_port or not settings.gateway_coap_port:
            raise ConfigurationError("WEIR_GATEWAY_HTTP_PORT and WEIR_GATEWAY_COAP_PORT say where the gateway listens")
        listener = gateway_http.listener(settings)
        try:
            coap = await gateway_coap.server(self.gate, settings)
        except BaseException:
            listener.close()
            raise
        deposit = asyncio.create_task(self.deposit.run())
        commands = routes(settings, self.warehouse, self.types_now)
        server = gateway_http.server(gateway_http.create_app(self.gate, [commands]), settings)
        http = asyncio.create_task(server.serve([listener]))
        try:
            while not stop.is_set() and not http.done() and not deposit.done():
                if server.started:
                    under_way()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            server.should_exit = True
            await http
            await coap.shutdown()
            deposit.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await deposit

    def types_now(self) -> Catalog:
        """Of which people command devices: as the commander's, which takes in changed files too."""
        self.specs.look()
        return self.specs.catalog

    def problem(self) -> str:
        """One line saying what keeps readings from being taken; empty when nothing does."""
        found = [f"{name}: {thread.problem}" for name, thread in self._threads.items() if thread.problem]
        # A cache that is complete serves while the database is away.
        ready = self.badges.is_known.is_set() and self.admission.is_known.is_set()
        found = [one for one in found if not ready or one.startswith("requests")]
        return "; ".join([*found, *([f"kafka: {self.deposit.problem}"] if self.deposit.problem else [])])

    def figures(self) -> Figures:
        rejected = list(self.gate.tallies.rejected.items())
        counts = {
            "rejects": sum(n for _, n in rejected),
            "unknown_devices": sum(
                n for (_, reason, _), n in rejected if reason in ("unknown_device", "retired_device")
            ),
            "restarts": sum(t.restarts for t in self._threads.values()) + max(0, self.deposit.restarts),
        }
        return Figures({"lag": self.deposit.in_flight}, counts)

    def summary(self) -> str:
        tallies = self.gate.tallies
        return (
            f"accepted={tallies.accepted.total()} rejected={tallies.rejected.total()} refused={tallies.refused.total()}"
            f" in_flight={self.deposit.in_flight} credentials={len(self.badges)}"
        )

    def collect(self) -> Iterator[Metric]:
        """Read when somebody asks, so that no request pays for a metric."""
        tallies = self.gate.tallies
        accepted = CounterMetricFamily("weir_gateway_accepted", "Readings that Kafka confirmed", labels=["protocol"])
        rejected = CounterMetricFamily(
            "weir_gateway_rejected", "Dead letters", labels=["protocol", "reason", "device_type"]
        )  # fmt: skip
        refused = CounterMetricFamily(
            "weir_gateway_refused", "Requests that left nothing", labels=["protocol", "reason"]
        )  # fmt: skip
        for protocol, count in list(tallies.accepted.items()):
            accepted.add_metric([protocol], count)
        for which, count in list(tallies.rejected.items()):
            rejected.add_metric(which, count)
        for what, count in list(tallies.refused.items()):
            refused.add_metric(what, count)
        yield from (accepted, rejected, refused)
        yield GaugeMetricFamily(
            "weir_gateway_in_flight", "Requests that wait for Kafka", value=self.deposit.in_flight
        )  # fmt: skip
        yield GaugeMetricFamily("weir_gateway_credentials", "Known, ended ones too", value=len(self.badges))
