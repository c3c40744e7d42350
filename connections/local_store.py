"""A lake on a local disk: a file is written beside its place, synced, and moved or linked there."""

import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from connections.store import TEMPORARY


class LocalStore:
    def __init__(self, root: str):
        self.root = Path(root)

    def write(self, path: str, data: bytes | memoryview) -> None:
        temporary = self._write(path, data)
        temporary.replace(self.root / path)
        _sync_folder(temporary.parent)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        temporary = self._write(path, data)
        try:
            os.link(temporary, self.root / path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        _sync_folder(temporary.parent)
        return True

    def _write(self, path: str, data: bytes | memoryview) -> Path:
        target = self.root / path
        _make_folder(target.parent)
        temporary = target.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def signed_address(self, path: str) -> None:
        return None

    def names(self, folder: str) -> list[str]:
        return os.listdir(self.root / folder)  # noqa: PTH208 - a folder may hold 10^5 manifests

    def files(self, folder: str) -> Iterator[str]:
        def seen(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):  # a folder that went meanwhile
                raise error

        for parent, _, names in os.walk(self.root / folder, onerror=seen):
            inside = Path(parent).relative_to(self.root)
            yield from (str(inside / name) for name in names)

    def modified(self, path: str) -> datetime:
        return datetime.fromtimestamp((self.root / path).stat().st_mtime, UTC)

    def remove(self, path: str) -> None:
        (self.root / path).unlink()


def _make_folder(folder: Path) -> None:
    """With all above it, each durable in the folder that holds it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
