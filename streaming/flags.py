"""What the specs say of a rule beyond its transitions: whether it is about the sensor, whether it may be inhibited."""

import logging
from collections.abc import Mapping
from pathlib import Path

from fleet.catalog import Catalog, catalog_of, read_files
from fleet.errors import SpecError
from fleet.settings import Settings

log = logging.getLogger("weir.dispatcher")


class RuleFlags:
    def __init__(self, settings: Settings, catalog: Catalog):
        self._folder = settings.types_dir
        self._files: Mapping[Path, bytes] = {}
        self._of = _flags(catalog)

    def of(self, type_name: str, rule: str) -> tuple[bool, bool]:
        """(quality, inhibitable); of a rule that is gone, the defaults."""
        return self._of.get((type_name, rule), (False, True))

    def look(self) -> None:
        """Takes in changed files. While one is wrong, all stays as it was; the bridge says what is wrong."""
        try:
            files = read_files(self._folder)
            if files and files != self._files:
                self._files = files
                self._of = _flags(catalog_of(files))
        except (OSError, SpecError) as error:
            log.warning("specs stay as they were: %s", next(iter(str(error).splitlines()), ""))


def _flags(catalog: Catalog) -> dict[tuple[str, str], tuple[bool, bool]]:
    return {(t.type, rule.id): (rule.quality, rule.inhibitable) for t in catalog for rule in t.alerts}
