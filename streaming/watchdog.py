"""An end to what has no timeout of its own."""

import faulthandler
import logging
import os
import threading
import time

HUNG_SECONDS = 30.0
"""Commits, polls and questions about offsets may wait for Kafka for good: the group knows nothing of it, as heartbeats
go on."""

log = logging.getLogger("weir.watchdog")


class Watchdog:
    """Ends the process where a block does not come back: supervisord starts it again, and the log says what is
    committed."""

    def __init__(self, seconds: float = HUNG_SECONDS):
        self._seconds = seconds
        self._since: float | None = None
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(self, *exc: object) -> None:
        self._since = None

    def _watch(self) -> None:
        while True:
            time.sleep(self._seconds / 10)
            since = self._since
            if since is not None and time.monotonic() - since > self._seconds:
                log.error("Kafka's client has hung for %.0f s; ending this process, whose threads are", self._seconds)
                faulthandler.dump_traceback(all_threads=True)
                os._exit(75)
