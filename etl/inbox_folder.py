"""The folder in which people drop files: what lies there, and who has it. A file is claimed by a rename, which happens
once whoever else looks; what it becomes is the folder that it ends in.

    <inbox>/<type>/roof.csv              dropped
    <inbox>/.claimed/<type>/roof.csv     being taken, or left behind by who was killed
    <inbox>/.taken/<type>/…-roof.csv     taken, or a copy of one that was
    <inbox>/.refused/<type>/…-roof.csv   refused: `weir inbox list` says why
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from fleet.errors import ConfigurationError, Unavailable
from fleet.file_row import Refusal

CLAIMED, TAKEN, REFUSED = ".claimed", ".taken", ".refused"
SETTLED_SECONDS = 10.0
"""So long nobody has written to a file that is whole. Who writes into it more slowly gives it a name that is passed
over, and renames it at the end."""
UNFINISHED = (".part", ".partial", ".tmp", ".filepart", ".crdownload", "~")
"""Ends of names that programs give to what they are still writing; so do names that begin with a dot."""


LONGEST_NAME = 240
"""Bytes that are kept of a name, its end; with the number before it the file system takes it."""


class Dropped(NamedTuple):
    """`type` and `name` to be shown and written down; what they are in the file system is the path's."""

    type: str
    name: str
    path: Path


class Folder:
    def __init__(self, path: Path):
        self.path = path

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One at a time; the lock goes with its process. Raises Unavailable where another is at it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(f"the inbox {self.path}: {error.strerror} (WEIR_INBOX names it)") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise Unavailable(f"somebody else is taking what is in {self.path}; it is taken once") from None
        finally:
            os.close(lock)

    def make(self, types: Iterable[str]) -> None:
        """A folder for each type, so that people find where to drop."""
        for name in types:
            (self.path / name).mkdir(exist_ok=True)

    def left_behind(self) -> list[Dropped]:
        """Claimed by somebody who did not come to an end."""
        return self._files(self.path / CLAIMED)

    def dropped(self) -> list[Dropped]:
        return self._files(self.path)

    def _files(self, folder: Path) -> list[Dropped]:
        try:
            types = [e for e in sorted(folder.iterdir()) if not e.name.startswith(".") and _is_folder(e)]
        except FileNotFoundError:
            return []
        return [
            Dropped(plain(type_.name), plain(entry.name), entry)
            for type_ in types
            for entry in sorted(type_.iterdir())
            if not entry.name.startswith(".") and not entry.name.endswith(UNFINISHED)
        ]

    def loose(self) -> list[Dropped]:
        """What lies beside the types' folders."""
        found = (e for e in sorted(self.path.iterdir()) if not e.name.startswith(".") and not _is_folder(e))
        return [Dropped("", plain(entry.name), entry) for entry in found]

    def claim(self, dropped: Dropped) -> Dropped | None:
        """None where it is gone, or one of its name is claimed still. Raises OSError."""
        path = self.path / CLAIMED / dropped.path.parent.name / dropped.path.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path):
            return None
        try:
            dropped.path.rename(path)
        except FileNotFoundError:
            return None
        return dropped._replace(path=path)

    def give_back(self, claimed: Dropped) -> None:
        """To where it was dropped. Where another of its name lies there by now it stays claimed, and is next."""
        path = self.path / claimed.path.parent.name / claimed.path.name
        if not os.path.lexists(path):
            claimed.path.rename(path)

    def put(self, claimed: Dropped, where: str, number: int) -> None:
        """`number`: of its row in inbox_files, so that two of one name have room."""
        name = os.fsdecode(os.fsencode(claimed.path.name)[-LONGEST_NAME:])
        path = self.path / where / claimed.path.parent.name / f"{number:06d}-{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        claimed.path.rename(path)


NO_FILE = Refusal("no_file", "neither a file nor a folder")


def _is_folder(path: Path) -> bool:
    """One that lies here: who follows a link moves away what lies elsewhere."""
    return path.is_dir() and not path.is_symlink()


def plain(name: str) -> str:
    """A name may be bytes that are no text, and a cell may have any character."""
    return name.encode("utf-8", "backslashreplace").decode().replace("\0", "\ufffd")


def is_settled(path: Path) -> bool:
    """Whether nobody has written to it lately. What is no file is."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    # A time that lies ahead came with the file: who writes sets it to now.
    return not stat.S_ISREG(found.st_mode) or abs(time.time() - found.st_mtime) >= SETTLED_SECONDS


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO | Refusal]:
    """A file to read, or why it is none. A link is never followed: it may name what is not the sender's to read."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        yield Refusal("no_permission", f"who takes it (uid {os.getuid()}) may not read it; chmod it")
        return
    except OSError as error:
        if error.errno == errno.ELOOP:
            yield Refusal("symlink", "a symbolic link is not followed; drop the file itself")
        elif error.errno == errno.ENXIO:  # a socket
            yield NO_FILE
        else:
            yield Refusal("unreadable", str(error.strerror))
        return
    mode = os.fstat(number).st_mode
    if stat.S_ISREG(mode):
        with os.fdopen(number, "rb") as file:
            yield file
        return
    os.close(number)
    if stat.S_ISDIR(mode):
        yield Refusal("directory", "a folder within a type's folder; drop the files themselves")
    else:
        yield NO_FILE


def state(file: BinaryIO) -> tuple[int, int]:
    """Changes when somebody writes to it."""
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns
