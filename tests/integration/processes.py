"""A service of Weir as a process of its own, to be started, asked whether it is ready, and killed."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from fleet.settings import Settings
from tests.integration.forks import Child, Parent

PATIENCE = 4
"""Tests say how long something may take on a machine of its own; with ten busy processes on two cores all takes longer,
and a deadline costs nothing where it is not reached."""


def wait_for(reached: Callable[[], object], seconds: float, what: str | Callable[[], str], every: float = 0.05) -> None:
    """Looks `every` so many seconds; fails with `what` after PATIENCE times `seconds`."""
    limit = PATIENCE * seconds
    deadline = time.monotonic() + limit
    while not reached():
        assert time.monotonic() < deadline, f"after {limit:.0f} s: {what if isinstance(what, str) else what()}"
        time.sleep(every)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_parents: dict[str, Parent] = {}
"""By the home of the stack with which their children end."""


def parent_of(home: str) -> Parent:
    if home not in _parents or not _parents[home].alive():
        environment = {k: v for k, v in os.environ.items() if not k.startswith("WEIR_")}
        _parents[home] = Parent({**environment, "STACK_OF_WEIR": home})
    return _parents[home]


class Process:
    """`weir service NAME`, or another `command` of weir; `changes` are settings, such as WEIR_LANDING_MAX_ROWS; `words`
    stand before the command. `module` is run in place of weir's own."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        log: Path,
        words: Sequence[str] = (),
        command: Sequence[str] = (),
        module: str = "weir.main",
        **changes: object,
    ):
        self.name, self.log, self.port, self._words = name, log, free_port(), words
        self._module, self._command = module, (*(command or ("service", name)),)
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("WEIR_")},
            "WEIR_ENV_FILE": str(settings.env_file),
            "STACK_OF_WEIR": str(Path(str(settings.env_file)).parents[1]),  # it ends with the stack, at the latest
            f"WEIR_{name.upper()}_METRICS_PORT": str(self.port),
            **{k: str(v) for k, v in changes.items()},
        }
        self._process: subprocess.Popen[bytes] | Child | None = None

    def start(self) -> "Process":
        self.log.touch()  # it can be read from now on
        if not self._words:
            parent = parent_of(self._environment["STACK_OF_WEIR"])
            self._process = parent.start(self._module, self._command, self._environment, self.log)
            return self
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._words, sys.executable, "-m", self._module, *self._command],
                env=self._environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        return self

    def readiness(self) -> str:
        """`ready`, or what the service says is wrong."""
        try:
            return self._get("/ready")
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except OSError as error:
            return str(error)

    def metric(self, line: str) -> float:
        """The value of a line such as `weir_bridge_received_total{worker="unrouted"}`; 0 where it is not there."""
        for found in self._get("/metrics").splitlines():
            if found.startswith(line + " "):
                return float(found.rsplit(" ", 1)[1])
        return 0.0

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def ready(self, seconds: float = 30) -> "Process":
        def reached() -> bool:
            assert self.alive(), f"{self.name} ended:\n{self.log.read_text()[-3000:]}"
            return self.readiness().strip() == "ready"

        wait_for(reached, seconds, lambda: f"{self.name}: {self.readiness()}\n{self.log.read_text()[-3000:]}")
        return self

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: int) -> None:
        """To one that runs; SIGSTOP and SIGCONT, for a worker that others think dead."""
        if self._process is not None and self.alive():
            self._process.send_signal(number)

    def kill(self) -> None:
        self.end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit code. Fails where that takes more than 15 s, with the usual patience."""
        return self.end(signal.SIGTERM)

    def end(self, number: int) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(15 * PATIENCE)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGUSR1)  # where each of its threads is
            time.sleep(1)
            process.kill()
            process.wait()
            raise AssertionError(f"{self.name} did not stop:\n{self.log.read_text()[-9000:]}") from None

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
