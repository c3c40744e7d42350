"""From the types folder to the log: a spec that is new, changed or gone is told to every partition of its topic, once.

The alert service learns its rules there and nowhere else, so that a partition's log alone determines its alerts.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from connections import kafka
from connections.publication import open_producer, publish
from connections.registry import Registry
from connections.warehouse import Warehouse
from fleet.catalog import Catalog, catalog_of, read_files
from fleet.errors import SpecError
from fleet.settings import Settings

LOOK_SECONDS = 2.0
"""How often the files are read. A change is taken when two looks see the same: an editor that is still writing may
leave half a file that is a good spec, without the rules at its end."""

log = logging.getLogger("weir.specs")


class Announcer:
    def __init__(self, settings: Settings):
        """Raises ConfigurationError where the settings name no warehouse."""
        self.settings = settings
        self.registry = Registry(Warehouse.of(settings))
        self.problems: list[str] = []
        """What is wrong with the files now, a line each; while there is any, the rules stay as they were."""
        self.announced = 0

    def run(self, stop: threading.Event, under_way: Callable[[], None] = lambda: None) -> None:
        """Until `stop`, or until the database or Kafka fails; begun again, it compares anew."""
        taken: Mapping[Path, bytes] | None = None
        before: Mapping[Path, bytes] | None = None
        try:
            while not stop.is_set():
                files = self._read()
                if not files:
                    taken = files
                elif files != taken and (taken is None or files == before):
                    self.take(files)
                    taken = files
                before = files
                under_way()
                stop.wait(LOOK_SECONDS)
        finally:
            self.registry.warehouse.close()

    def _read(self) -> Mapping[Path, bytes]:
        """Nothing where the files cannot be read: the folder is being replaced, perhaps."""
        try:
            files = read_files(self.settings.types_dir)
        except OSError as error:
            self._report([f"{error.filename}: {error.strerror}"])
            return {}
        if not files:
            self._report([f"{self.settings.types_dir}: no device types there"])
        return files

    def take(self, files: Mapping[Path, bytes]) -> None:
        """These are the specs from here on, if nothing is wrong with any. Raises Unavailable, Refused."""
        try:
            catalog = catalog_of(files)
        except SpecError as error:
            self._report(str(error).splitlines())
            return
        texts = {file.stem: content.decode() for file, content in files.items()}
        told = self._tell(catalog, texts)
        self._report([])
        self.announced += len(told)
        if told:
            log.info("announced %s", ", ".join(told))

    def _tell(self, catalog: Catalog, texts: Mapping[str, str]) -> list[str]:
        """Returns the types that were announced now."""
        known = self.registry.specs()
        topics = {spec.topic for spec in catalog} | {spec.kafka_topic for spec in known}
        in_force = {(spec.kafka_topic, spec.type): spec.text for spec in known if spec.is_in_force}
        told: list[str] = []
        if in_force != {(spec.topic, spec.type): texts[spec.type] for spec in catalog}:
            topics = self._there(topics)
            # Compared again within the transaction: of two that see a change at once, the second finds it told.
            with self.registry.changes() as changes:
                told = [t.type for t in catalog if t.topic in topics and changes.reload(t, texts[t.type])]
                told += [f"{name} (gone)" for name in changes.withdraw(catalog, topics)]
        if self.registry.state(topics)[1]:
            self._publish(topics)
        return told

    def _there(self, topics: set[str]) -> set[str]:
        """Those that can be written. A record for one that is not made yet would wait, and hold up whoever tries."""
        missing = kafka.access_problems(self.settings, kafka.WRITE, topics)
        for problem in missing.items():
            log.error("topic=%s %s; its types are announced when the bridge has started again (`make up`)", *problem)
        return topics - set(missing)

    def _publish(self, topics: set[str]) -> None:
        """At once; what fails is published when this is begun again, or by the registrar."""
        producer = open_producer(self.settings)
        try:
            publish(self.registry.warehouse, producer, topics)
        finally:
            kafka.close(producer)

    def _report(self, problems: list[str]) -> None:
        if problems == self.problems:
            return
        self.problems = problems
        for problem in problems:
            log.error("the rules stay as they were: %s", problem)
        if not problems:
            log.info("the specs are in order again")
