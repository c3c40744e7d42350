"""What every service has: log lines, a stop on SIGTERM, metrics over HTTP, threads that are started again alone."""

import faulthandler
import gc
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest

from fleet.errors import ConfigurationError, WeirError
from fleet.settings import Settings

BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
SETTLED_SECONDS = 60.0
"""A thread that lived this long begins anew with the first, short pause."""

log = logging.getLogger("weir.service")


def log_lines(level: str) -> None:
    """One line an event on stdout, `time level logger key=value …`. Libraries are heard from ERROR on: while a broker
    is away they write several lines a second, and we say it once."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_OneLine("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(level=logging.ERROR, handlers=[handler], force=True)
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # where each thread is, for who finds a service stuck
    logging.getLogger("weir").setLevel(level.upper())


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", " | ")


class Service(Protocol):
    def run(self, stop: threading.Event) -> None: ...


def run(made: Callable[[Settings], Service]) -> None:
    """Until SIGTERM or SIGINT."""
    settings = Settings.load()
    log_lines(settings.log_level)
    service = made(settings)
    gc.collect()
    gc.freeze()  # what is there stays: the garbage collector need not go through it again and again
    sys.setswitchinterval(0.001)  # an answer of Kafka waits so long for a thread that computes; by default 5 ms
    service.run(stop_on_signals())


def stop_on_signals() -> threading.Event:
    """Set by SIGTERM and SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


class Health:
    """`/metrics` for Prometheus and `/ready` (200 or 503, with the reason)."""

    def __init__(self, port: int, problem: Callable[[], str], bind: str = "127.0.0.1"):
        """`problem` says in a line why the service does not do its work now; empty when it does. Port 0: no server."""
        self.registry = CollectorRegistry()
        self._problem = problem
        self._server: ThreadingHTTPServer | None = None
        if port:
            try:
                self._server = ThreadingHTTPServer((bind, port), self._handler())
            except OSError as error:
                raise ConfigurationError(f"port {port} for the metrics is taken ({error}); choose another") from error
            threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        health = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                problem = health._problem() if self.path == "/ready" else ""
                known = self.path in ("/ready", "/metrics")
                body = generate_latest(health.registry) if self.path == "/metrics" else (problem or "ready\n").encode()
                self.send_response(503 if problem else 200 if known else 404)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler

    def close(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()


class Supervised:
    """A thread whose work is begun again after any failure, with growing pauses, alone."""

    def __init__(self, name: str, work: Callable[[], None], stop: threading.Event):
        self.name, self.restarts, self.problem = name, 0, "starting"
        """`problem` is what went wrong last; the work itself empties it when it is under way."""
        self._work, self._stop = work, stop
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        attempt = 0
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self._work()
            except Exception as error:  # whatever it was: this thread alone begins again
                if self._stop.is_set():
                    return
                if time.monotonic() - began > SETTLED_SECONDS:
                    attempt = 0
                pause = BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)]
                attempt += 1
                self.restarts += 1
                self.problem = f"{type(error).__name__}: {error}"
                log.error(
                    "worker=%s failed, again in %.1f s: %s", self.name, pause, self.problem,
                    exc_info=not isinstance(error, WeirError),
                )  # fmt: skip
                self._stop.wait(pause)
