"""Processes that run a module as `python -m` does, made from one that has the libraries loaded: nearly all of the 1 to
5 s of CPU of a start are imports.

That one, the parent, reads a line of JSON for each request and answers with one. A child leaves it for good, with an
environment and a log of its own.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import weir
from fleet.settings import CHECKOUT

SERVICES = (
    "streaming.alerts", "streaming.bridge_service", "streaming.commander", "streaming.dispatcher",
    "streaming.gateway_service", "streaming.history", "streaming.landing", "streaming.live", "streaming.service",
    *(f"weir.{module.name}" for module in iter_modules(weir.__path__) if module.name != "main"),
)  # fmt: skip


class Child:
    """As far as tests need it, a subprocess.Popen."""

    def __init__(self, parent: "Parent", pid: int):
        self.pid, self._parent = pid, parent
        self._ended = os.pidfd_open(pid)
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, minus the signal that killed it; None while it lives."""
        if self._code is None:
            ready, _, _ = select.select([self._ended], [], [], 0)
            if ready:
                self._reap()
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        if self._code is None:
            ready, _, _ = select.select([self._ended], [], [], timeout)
            if not ready:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self._reap()
        assert self._code is not None
        return self._code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _reap(self) -> None:
        self._code = int(self._parent.ask({"wait": self.pid})["code"])
        os.close(self._ended)


class Parent:
    """`loads`: the modules that children find loaded. Its own environment is what /proc says of all of them: a stack
    finds them by its mark there, and ends them with itself."""

    def __init__(self, environment: Mapping[str, str], loads: Sequence[str] = SERVICES):
        self._turn, self._children = threading.Lock(), list[Child]()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.forks", *loads],
            env=dict(environment), cwd=CHECKOUT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip

    def alive(self) -> bool:
        return self._process.poll() is None

    def start(self, module: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Child:
        request = {"module": module, "arguments": arguments, "environment": dict(environment), "log": str(log)}
        self._children.append(Child(self, int(self.ask(request)["pid"])))
        return self._children[-1]

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        with self._turn:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        assert answer, "the process that makes others is gone"
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        for child in self._children:
            child.kill()
        self._process.kill()
        self._process.wait()


def serve() -> dict[str, Any] | None:
    """In a child: what it is to be. None at the end."""
    with os.fdopen(os.dup(1), "w") as answers, os.fdopen(os.dup(0)) as requests:
        for line in requests:
            request: dict[str, Any] = json.loads(line)
            if "wait" in request:
                _, status = os.waitpid(request["wait"], 0)
                told = {"code": os.waitstatus_to_exitcode(status)}
            elif pid := os.fork():
                told = {"pid": pid}
            else:
                return request
            answers.write(json.dumps(told) + "\n")
            answers.flush()
    return None


def become(request: dict[str, Any]) -> None:
    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, opened in enumerate((nothing, log, log)):
        os.dup2(opened, number)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = [request["module"], *request["arguments"]]
    code: Any = 0
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    # As Python ends, but for taking apart all modules: touched, the parent's pages are copied, 2 to 7 s of CPU.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.freeze()
    if (asked := serve()) is not None:
        become(asked)
