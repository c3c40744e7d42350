"""What the specs say of a rule beyond its transitions: whether it is about the sensor, whether it may be inhibited."""

import logging

from fleet.catalog import Catalog
from fleet.settings import Settings
from streaming.watched_catalog import WatchedCatalog

log = logging.getLogger("weir.dispatcher")


class RuleFlags:
    def __init__(self, settings: Settings, catalog: Catalog):
        self._specs = WatchedCatalog(settings.types_dir, catalog, log)
        self._of = _flags(catalog)

    def of(self, type_name: str, rule: str) -> tuple[bool, bool]:
        """(quality, inhibitable); of a rule that is gone, the defaults."""
        return self._of.get((type_name, rule), (False, True))

    def look(self) -> None:
        if self._specs.look():
            self._of = _flags(self._specs.catalog)


def _flags(catalog: Catalog) -> dict[tuple[str, str], tuple[bool, bool]]:
    return {(t.type, rule.id): (rule.quality, rule.inhibitable) for t in catalog for rule in t.alerts}
