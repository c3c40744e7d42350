"""A disk of a few megabytes that really runs full: a tmpfs in a mount namespace of our own, which needs no root."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HOLD = 'mount -t tmpfs -o "size=$2,mode=0700" weir "$1" && echo mounted && exec cat'
"""It ends, and the namespace with it, when its standard input does: with the test at the latest."""


class SmallDisk:
    """`folder` is the small disk for programs started by `words`, and an empty folder for all others; the test sees the
    disk at `seen`."""

    def __init__(self, folder: Path, pid: int):
        self.words = ("nsenter", f"--target={pid}", "--user", "--mount", "--preserve-credentials", f"--wd={folder}")
        self.seen = Path(f"/proc/{pid}/root{folder}")
        self._filler = self.seen / "filler"

    def fill(self) -> None:
        """To the last byte: not even an empty file finds room for its name's page after this."""
        with self._filler.open("ab", buffering=0) as file:
            for size in (65536, 4096, 1):
                try:
                    while True:
                        file.write(b"\0" * size)
                except OSError as error:
                    assert error.errno == errno.ENOSPC, error

    @property
    def free_bytes(self) -> int:
        told = os.statvfs(self.seen)
        return told.f_bavail * told.f_bsize

    def make_room(self) -> None:
        self._filler.unlink()


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[SmallDisk]:
    """`size` as tmpfs wants it, such as 4m. Skips the test where this machine refuses user namespaces."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", HOLD, "sh", str(folder), size]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as holder:  # fmt: skip
        assert holder.stdin and holder.stdout and holder.stderr
        try:
            if holder.stdout.readline() != "mounted\n":
                pytest.skip(f"no user namespace with a tmpfs on this machine: {holder.stderr.read().strip()}")
            yield SmallDisk(folder, holder.pid)
        finally:
            holder.stdin.close()
            holder.wait(10)
