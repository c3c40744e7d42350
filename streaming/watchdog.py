"""An end to what has no timeout of its own."""

import faulthandler
import logging
import os
import threading
import time

HUNG_SECONDS = 30.0
"""Commits, polls and questions about offsets may wait for Kafka for good: the group knows nothing of it, as heartbeats
go on."""

LOOKS = 10

log = logging.getLogger("weir.watchdog")


class Watchdog:
    """Ends the process where a block does not come back: supervisord starts it again, and what it wrote last
    says where to go on."""

    def __init__(self, seconds: float = HUNG_SECONDS):
        self._seconds = seconds
        self._since: float | None = None
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(self, *exc: object) -> None:
        self._since = None

    def _watch(self) -> None:
        """Counts looks, not seconds: a process that was frozen, and its blocks with it, has not looked."""
        seen, looks = None, 0
        while True:
            time.sleep(self._seconds / LOOKS)
            since = self._since
            looks = looks + 1 if since is not None and since == seen else 0
            seen = since
            if looks == LOOKS:
                log.error("Kafka's client has hung for %.0f s; ending this process, whose threads are", self._seconds)
                try:
                    faulthandler.dump_traceback(all_threads=True)
                finally:
                    os._exit(75)
