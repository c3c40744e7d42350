"""Whether the alert service goes on: by how far it has come in the topic in which Weir's services report of themselves.

The dispatcher is one of them, so that something is to be taken there every 10 s, whatever the devices do.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping

from connections.partition_log import committed
from fleet.catalog import Catalog
from fleet.channels import ALERTS_GROUP, OWN_TYPE
from fleet.errors import WeirError
from fleet.settings import Settings

ASK_SECONDS = 10.0
STILL_SECONDS = 60.0
"""It commits what it has taken within a second, and takes up to half of this to come back after a kill."""

log = logging.getLogger("weir.dispatcher")


class AlertsWatch:
    """Without a spec of the services' own type it knows nothing, and has no problem."""

    def __init__(self, settings: Settings, catalog: Catalog, clock: Callable[[], float] = time.monotonic):
        self._settings, self._clock = settings, clock
        spec = catalog.types.get(OWN_TYPE)
        self._topic = spec.topic if spec else ""
        self._at: Mapping[int, int | None] | None = None
        self._moved_at = clock()

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                if self._topic:
                    self.see(committed(self._settings, ALERTS_GROUP, self._topic))
            except WeirError as error:
                log.warning("how far the alert service has come is not known: %s", error)
            stop.wait(ASK_SECONDS)

    def see(self, at: Mapping[int, int | None]) -> None:
        """Its next offset in each partition of the topic."""
        if at != self._at:
            self._at, self._moved_at = at, self._clock()

    def problem(self) -> str:
        still = self._clock() - self._moved_at
        return f"the alert service has taken nothing for {still:.0f} s" if self._topic and still > STILL_SECONDS else ""
