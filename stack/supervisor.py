"""supervisord, reached through its socket whatever the length of the path to it."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fleet.errors import ConfigurationError, Unavailable
from stack.layout import Layout

SOCKET = "run/supervisor.sock"


class _Connection(http.client.HTTPConnection):
    def __init__(self, home: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._home = home

    def connect(self) -> None:
        # A Unix socket's path ends at 107 bytes and a checkout may be deeper: go through the open folder instead.
        folder = os.open(self._home, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(f"/proc/self/fd/{folder}/{SOCKET}")
        finally:
            os.close(folder)


class _Transport(xmlrpc.client.Transport):
    def __init__(self, home: Path) -> None:
        super().__init__()
        self._home = home

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return _Connection(self._home)


class Supervisor:
    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def _rpc(self) -> Any:
        return xmlrpc.client.ServerProxy("http://localhost", transport=_Transport(self.layout.home)).supervisor

    def running(self) -> bool:
        try:
            self._rpc().getState()
        except (OSError, http.client.HTTPException):
            return False
        return True

    def start(self) -> None:
        """Start supervisord with nothing running in it yet."""
        (self.layout.home / SOCKET).unlink(missing_ok=True)
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.layout.config / "supervisord.conf")]
        environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "STACK_OF_WEIR": str(self.layout.home)}
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *command[1:]],
            cwd=self.layout.home, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise ConfigurationError(f"supervisord did not start:\n{(done.stdout + done.stderr).strip()}")
        deadline = time.monotonic() + 10
        while not self.running():
            if time.monotonic() > deadline:
                raise Unavailable(f"supervisord does not answer; see {self.layout.logs}/supervisord.log")
            time.sleep(0.05)

    def programs(self) -> dict[str, dict[str, Any]]:
        """Program → what supervisord knows of it; empty when it is not running."""
        try:
            return {info["name"]: info for info in self._rpc().getAllProcessInfo()}
        except (OSError, http.client.HTTPException):
            return {}

    def start_program(self, name: str) -> None:
        with self._faults(name):
            self._rpc().startProcess(name, False)

    def stop_program(self, name: str) -> None:
        with self._faults(name):
            self._rpc().stopProcess(name, True)

    def stop_together(self, names: Iterable[str], seconds: float = 45) -> None:
        """Stop these at the same time (supervisord by itself takes one after the other), and wait."""
        wanted = set(names) & set(self.programs())
        for name in wanted:
            with contextlib.suppress(xmlrpc.client.Fault, OSError, http.client.HTTPException):
                self._rpc().stopProcess(name, False)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            states = self.programs()
            if not any(states[n]["statename"] in ("RUNNING", "STOPPING", "STARTING") for n in wanted if n in states):
                return
            time.sleep(0.1)

    def shutdown(self, seconds: float = 60) -> None:
        """Stop every program, then supervisord, and wait until it is gone."""
        try:
            pid = self._rpc().getPID()
            self._rpc().shutdown()
        except (OSError, http.client.HTTPException):
            return
        deadline = time.monotonic() + seconds
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)

    @contextlib.contextmanager
    def _faults(self, name: str) -> Iterator[None]:
        try:
            yield
        except xmlrpc.client.Fault as fault:
            if "ALREADY_STARTED" in fault.faultString or "NOT_RUNNING" in fault.faultString:
                return
            if "BAD_NAME" in fault.faultString:
                there = ", ".join(sorted(self.programs()))
                raise ConfigurationError(f"{name} is not one of this stack's programs: {there}") from None
            raise Unavailable(f"{name}: {fault.faultString}") from None
        except (OSError, http.client.HTTPException):
            raise Unavailable("the stack is not up: `make up` starts it") from None


def marked(home: Path) -> list[int]:
    """Every process of the stack with this home, found by the mark in its environment (this process aside)."""
    mark = b"STACK_OF_WEIR=" + os.fsencode(str(home))
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


def kill_leftovers(home: Path, seconds: float = 5) -> list[int]:
    """End what an earlier, killed run of this stack left behind; returns the pids."""
    left = marked(home)
    for wanted in (signal.SIGTERM, signal.SIGKILL):
        for pid in marked(home):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, wanted)
        deadline = time.monotonic() + seconds
        while marked(home) and time.monotonic() < deadline:
            time.sleep(0.05)
    return left
