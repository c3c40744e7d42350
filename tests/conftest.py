"""What tests share: a home of their own for a stack, with nothing of the user's stack touched."""

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling

from fleet.settings import CHECKOUT
from stack.layout import Layout
from stack.supervisor import Supervisor, kill_leftovers

# How long an example takes says how busy the machine is, and nothing of the code.
settings.register_profile("weir", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("weir")

TEST_HOMES = CHECKOUT / "var" / "test"
TEMPORARY = TEST_HOMES / "tmp"
"""For pytest, the tests, and all that they start: nothing is left in /tmp, and `make clean` takes it away."""
TEMPORARY.mkdir(parents=True, exist_ok=True)
HOMES = [TEST_HOMES / str(number) for number in range(20)]
JVM = {"JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1"}
"""For servers that live for minutes, and Spark in the tests' own process: half the CPU of a start."""
os.environ["TMPDIR"] = str(TEMPORARY)
os.environ |= JVM
# Images for containers often forbid Python to keep what it has compiled. Then each of the many processes of the tests
# compiles all that it imports, 20 s of CPU for the tests and their libraries alone.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
tempfile.tempdir = None


class ByServers(LoadFileScheduling):
    """A file after the other to who is free; those of tests/e2e, which share a stack, as if they were one."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/e2e" if nodeid.startswith("tests/e2e/") else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    return ByServers(config, log)


@contextmanager
def own_home() -> Iterator[Path]:
    """A folder for one test session: the first that no living session holds, cleared of what a killed one left."""
    for home in HOMES:
        with ExitStack() as held:
            try:
                held.enter_context(_held(home))
            except BlockingIOError:
                continue
            _end(home)
            shutil.rmtree(home, ignore_errors=True)
            yield home
            return
    raise RuntimeError(f"{len(HOMES)} test sessions at once hold {TEST_HOMES}")


def end_left_behind() -> None:
    """What sessions that were killed left running."""
    for home in HOMES:
        if home.is_dir():
            with suppress(BlockingIOError), _held(home):
                _end(home)


@contextmanager
def _held(home: Path) -> Iterator[None]:
    """Raises BlockingIOError where a living session holds it."""
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _end(home: Path) -> None:
    Supervisor(Layout(home)).shutdown()
    kill_leftovers(home)
