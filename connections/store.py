"""What a lake needs of the place where its files lie; each kind of place has a module of its own beside this one."""

from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

TEMPORARY = ".tmp-"
"""First characters of a file that is being written; no reader takes it, the sweep removes it."""


class Store(Protocol):
    """Paths are relative to the lake. A file or folder that is not there is a FileNotFoundError; all else that goes
    wrong is another OSError, which says what to set where a setting can help."""

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Whole and durable when this returns; replaces a file of the same name, in one step."""

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Whole and durable, or False where there is such a file: nothing is changed then."""

    def read(self, path: str) -> bytes: ...

    def signed_address(self, path: str) -> str | None:
        """Where the file can be read by HTTP, for an hour and without keys; None where Spark can read it by itself."""

    def names(self, folder: str) -> Iterable[str]:
        """Of files and folders in it; in no order."""

    def files(self, folder: str) -> Iterable[str]:
        """Paths of all files below it, at any depth; in no order."""

    def modified(self, path: str) -> datetime: ...

    def remove(self, path: str) -> None:
        """A file."""
