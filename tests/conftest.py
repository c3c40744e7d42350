"""What tests share: a stack of their own, on ports of their own, with nothing of the user's stack touched."""

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet.settings import CHECKOUT, Settings
from stack.layout import Layout
from stack.ports import Ports
from stack.stack import Stack
from stack.supervisor import Supervisor, kill_leftovers

TEST_HOMES = CHECKOUT / "var" / "test"


@contextmanager
def own_home() -> Iterator[Path]:
    """A folder for one test session: the first that no living session holds, cleared of what a killed one left."""
    TEST_HOMES.mkdir(parents=True, exist_ok=True)
    for number in range(20):
        home = TEST_HOMES / str(number)
        with home.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            Supervisor(Layout(home)).shutdown()
            kill_leftovers(home)
            shutil.rmtree(home, ignore_errors=True)
            yield home
            return
    raise RuntimeError(f"20 test sessions at once hold {TEST_HOMES}")


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Mosquitto, Kafka and TimescaleDB, fresh, with Weir's topics, users and tables; down at the end."""
    with own_home() as home:
        running = Stack(home, Ports.free(), ("mosquitto", "kafka", "postgres"), environ={})
        running.up()
        try:
            yield running
        finally:
            running.down()


@pytest.fixture(scope="session")
def settings_for(stack: Stack) -> Callable[[str], Settings]:
    """The settings of a role (operator, bridge, landing, live, batch, simulator) on the tests' stack."""
    return stack.settings
