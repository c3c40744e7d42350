"""Files in the lake that no manifest names: what a flush that was killed left behind. Readers never see them."""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache

from connections.lake import Lake
from connections.store import TEMPORARY
from fleet.lake_layout import ALERTS, COMPACTED, DATA_FILE, LANDED, REJECTED, manifest_path

FOLDERS = ("raw", REJECTED, ALERTS, LANDED, COMPACTED)
MIN_AGE = timedelta(hours=1)
"""A flush writes its files again each time it is tried, so that one under way is younger than this."""


def sweep(lake: Lake, now: datetime, min_age: timedelta = MIN_AGE) -> list[str]:
    """Removes them, and returns what was removed. Raises Unavailable where the lake does not answer."""
    named = lru_cache(maxsize=10_000)(lambda manifest: files_of(lake, manifest))  # one manifest names many files
    orphans = [
        path for folder in FOLDERS for path in lake.files(folder)
        if is_orphan(path, named) and now - lake.modified(path) >= min_age
    ]  # fmt: skip
    lake.sweep(orphans)
    return orphans


def is_orphan(path: str, named: Callable[[str], frozenset[str]]) -> bool:
    """Whether no manifest names the file; `named` gives the files of a manifest. What landing did not write stays:
    of compacted files etl.lake_tidy knows."""
    name = path.rpartition("/")[2]
    if name.startswith(TEMPORARY):
        return True
    match = DATA_FILE.match(name)
    if not match:
        return False
    manifest = manifest_path(match["topic"], int(match["partition"]), int(match["first"]))
    return path not in named(manifest)


def files_of(lake: Lake, manifest: str) -> frozenset[str]:
    """None where there is no such manifest."""
    try:
        return frozenset(file.path for file in lake.manifest(manifest).files)
    except FileNotFoundError:
        return frozenset()
