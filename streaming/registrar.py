"""Between the bridge and the registry: reads what changed, registers devices that came by themselves, and publishes the
control records that whoever made them left behind. Messages do not wait for it.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any

from connections import kafka
from connections.publication import open_producer, publish
from connections.registry import Registry
from connections.warehouse import Warehouse
from fleet.catalog import Catalog
from fleet.channels import OWN_TYPE
from fleet.registry import Entry
from fleet.settings import Settings
from streaming.admission import Admission
from streaming.reporter import own_devices

LOOK_SECONDS = 1.0
"""How often the registry's revision is asked for; a change takes effect within it."""
BATCH = 5_000
"""Newcomers in one transaction."""

log = logging.getLogger("weir.registrar")


class Registrar:
    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        admission: Admission,
        also: Callable[[list[Entry]], None] = lambda _: None,
    ):
        """`also` is told of what changed, before the admission is. Raises ConfigurationError where the settings name no
        warehouse."""
        self._also = also
        self.settings, self.catalog, self.admission = settings, catalog, admission
        self.registry = Registry(Warehouse.of(settings))
        self.topics = [system.topic for system in catalog.systems.values()]
        self.connected = False
        self._ended: list[tuple[str, str]] = []
        """Devices that spoke until their retirement was read here."""
        self.registered = self.published = 0

    def run(self, stop: threading.Event, under_way: Callable[[], None] = lambda: None) -> None:
        """Until `stop`, or until the database or Kafka fails; what waits then goes on waiting, here or in the table."""
        producer: Any = None
        try:
            while True:
                stopping = stop.is_set()
                if self.step():
                    producer = producer or open_producer(self.settings)
                    self.published += publish(self.registry.warehouse, producer, self.topics)
                if not self.connected:
                    self.connected = True
                    log.info("registry revision=%d", self.admission.revision)
                under_way()
                if stopping and not self._ended:  # once more at the end, for who came since the last time
                    return
                stop.wait(LOOK_SECONDS)
        finally:
            self.connected = False
            if producer:
                kafka.close(producer)
            self.registry.warehouse.close()

    def step(self) -> bool:
        """Reads, then registers. Returns whether control records wait to be published."""
        self._retire_again()
        self._read()
        if OWN_TYPE in self.catalog.types:
            # Their readings do not come through the bridge; those that never come are to be missed.
            self.admission.expect(OWN_TYPE, own_devices())
        newcomers = self.admission.newcomers()
        if newcomers:
            for first in range(0, len(newcomers), BATCH):
                self._register(dict(list(newcomers.items())[first : first + BATCH]))
            self._read()
        return self.registry.state(self.topics)[1]

    def _read(self) -> None:
        known = self.admission.revision
        revision, _ = self.registry.state(self.topics)
        if revision != known or not self.admission.is_known.is_set():
            # What is committed meanwhile is read too, and again the next time.
            entries = self.registry.devices(after=known)
            self._also(entries)
            self._ended += self.admission.learn(entries, revision)

    def _retire_again(self) -> None:
        """Of a device that went on speaking for the second until its retirement was known here, readings stand in the
        log behind the record that retired it, where they make a new device of it. By now they are all in the log."""
        if not self._ended:
            return
        with self.registry.changes() as changes:
            for entry in changes.entries(self._ended).values():
                if entry.retired_at is not None:
                    changes.put(self.catalog.types[entry.type], entry, entry)
        self._ended = []

    def _register(self, newcomers: dict[tuple[str, str], str]) -> None:
        by_type: dict[str, dict[str, str]] = {}
        for (name, device_id), site in newcomers.items():
            by_type.setdefault(name, {})[device_id] = site
        with self.registry.changes() as changes:
            made = {name: changes.register(self.catalog.types[name], sites) for name, sites in by_type.items()}
        self.admission.registered(newcomers)
        for name, device_ids in made.items():
            self.registered += len(device_ids)
            if device_ids:
                shown = ", ".join(device_ids[:5])
                log.info("registered type=%s devices=%d such as %s", name, len(device_ids), shown)
