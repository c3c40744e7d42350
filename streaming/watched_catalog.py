"""The device types as their files say now, for a service that goes on with what it knows while one of them is wrong."""

import logging
from collections.abc import Mapping
from pathlib import Path

from fleet.catalog import Catalog, catalog_of, read_files
from fleet.errors import SpecError


class WatchedCatalog:
    def __init__(self, folder: Path, catalog: Catalog, log: logging.Logger):
        self.catalog = catalog
        self._folder, self._log = folder, log
        self._files: Mapping[Path, bytes] = {}

    def look(self) -> bool:
        """Takes in changed files; whether there were any. While one is wrong, all stays as it was; the bridge says what
        is wrong."""
        try:
            files = read_files(self._folder)
            if not files or files == self._files:
                return False
            self._files = files
            self.catalog = catalog_of(files)
        except (OSError, SpecError) as error:
            self._log.warning("specs stay as they were: %s", next(iter(str(error).splitlines()), ""))
            return False
        return True
