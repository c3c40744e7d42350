"""The whole stack once for all end-to-end tests: every server and service, on ports and in a home of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import pytest

from fleet.settings import CHECKOUT, Settings
from stack.ports import Ports
from stack.programs import ALL
from stack.stack import Stack
from stack.supervisor import marked
from tests.command import Weir
from tests.command import command as in_this_process
from tests.conftest import JVM, own_home

# Each test triggers the runs it wants: one by the clock takes their turn, and their partitions. A backfill needs a
# schedule all the same.
SETTINGS = {"WEIR_LANDING_MAX_SECONDS": "3", "WEIR_ETL_SCHEDULE": "0 0 * * *"}


@pytest.fixture(scope="package")
def whole_stack() -> Iterator[Stack]:
    with own_home() as home:
        running = Stack(home, Ports.free(), ALL, environ={**JVM, **SETTINGS})
        running.up()
        try:
            yield running
        finally:
            running.down()
        assert marked(home) == []


@pytest.fixture
def operator(whole_stack: Stack) -> Settings:
    return whole_stack.settings("operator")


@pytest.fixture
def weir(whole_stack: Stack) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `weir …` as a person would, against the tests' stack; fails the test unless it exits as it should."""

    def command(
        *arguments: str,
        code: int = 0,
        seconds: float = 300,
        python: Sequence[str] = ("-m", "weir.main"),
        **settings: str,
    ) -> subprocess.CompletedProcess[str]:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("WEIR_")} | settings
        with subprocess.Popen(
            [sys.executable, "-X", "faulthandler", *python, *arguments],
            cwd=CHECKOUT,
            env={**environ, "WEIR_HOME": str(whole_stack.layout.home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)  # it says where it is
                out, err = process.communicate()
                err += f"\nit had not ended after {seconds:.0f} s"
            except BaseException:
                process.kill()
                raise
        assert process.returncode == code, f"weir {' '.join(arguments)}\n{out[-5000:]}\n{err[-5000:]}"
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return command


@pytest.fixture
def at_once(whole_stack: Stack) -> Weir:
    """`weir …` in this process, for what a test prepares, and asks again and again. Not for what needs Spark: a process
    that has been a client of Spark Connect cannot start a Spark of its own, as other tests do."""
    return in_this_process(WEIR_HOME=whole_stack.layout.home)
