"""Silences as Alertmanager has them, asked for every few seconds. Without it, those last known go on."""

import logging
import threading

from connections.alertmanager import Alertmanager
from fleet.errors import Unavailable, WeirError
from fleet.settings import Settings
from fleet.silence import Silence
from streaming.outbox import Outbox

ASK_SECONDS = 2.0

log = logging.getLogger("weir.silences")


class SilenceWatch:
    def __init__(self, settings: Settings, outbox: Outbox):
        self.settings, self._outbox = settings, outbox
        self.known: tuple[Silence, ...] = ()
        self._kept: tuple[Silence, ...] | None = None
        self._problem = ""

    def begin(self) -> None:
        """With those that were last known. Raises Unavailable."""
        if not self.known:
            self.known = tuple(self._outbox.silences())

    def run(self, stop: threading.Event) -> None:
        if not self.settings.alertmanager_url:
            stop.wait()  # who returns is called again, at once
            return
        client = Alertmanager.of(self.settings)
        try:
            while not stop.is_set():
                self.ask(client)
                stop.wait(ASK_SECONDS)
        finally:
            client.close()

    def ask(self, client: Alertmanager) -> None:
        try:
            silences = tuple(sorted(client.silences(), key=lambda s: s.silence_id))
            self.known = silences
            if silences != self._kept:
                self._outbox.keep_silences(silences)
                self._kept = silences
            self._problem = ""
        except WeirError as error:
            if not self._problem or not isinstance(error, Unavailable):
                log.warning("silences stay as they were last known: %s", error)
            self._problem = str(error)
