"""`weir …` in processes that stop, or are killed, at a point of the batch job: nothing in the job knows of it.

One process has the libraries loaded, 5 s of CPU, and makes a child for each command. It reads a line of JSON for each
request and answers with one.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from fleet.settings import CHECKOUT


class Point(NamedTuple):
    """Before, after or during the call of that number of a function (`module:name`), in one process."""

    when: str
    function: str
    call: int = 1


POINTS = {
    "before it began": Point("before", "etl.run:Job.begin"),
    "begun": Point("after", "etl.run:Job.begin"),
    "validated, unwritten": Point("after", "etl.run:validate"),
    "validated": Point("after", "etl.run:Job.validate"),
    "before Spark": Point("before", "etl.derive:_tables"),
    "in Spark": Point("during", "etl.derive:_tables"),
    "after Spark": Point("after", "etl.derive:_tables"),
    "before the lock": Point("before", "etl.load:_replace"),
    "old rows deleted": Point("after", "etl.load:_replace"),
    "rollups copied": Point("after", "etl.load:_copy_table"),
    "anomalies copied": Point("after", "etl.load:_copy_table", 2),
    "quarantine copied": Point("after", "etl.load:_copy_table", 4),
    "ledger written": Point("after", "etl.load:_write_ledger"),
    "all written": Point("after", "etl.load:copy_rows"),
    "first loaded": Point("after", "etl.run:load_readings"),
    "second deleted": Point("after", "etl.load:_replace", 2),
    "second loaded": Point("after", "etl.run:load_readings", 2),
    "batch loaded": Point("after", "etl.run:Job.load"),
    "dead letters written": Point("after", "etl.load:_write_ledger", 3),
    "dead letters loaded": Point("after", "etl.run:load_rejects"),
    "before the books": Point("before", "etl.run:reconcile"),
    "topics written": Point("after", "etl.run:write_topics"),
    "end written": Point("after", "etl.run:_write_end"),
    "over": Point("after", "etl.run:Job.finish"),
}
DURING_SECONDS = 0.3


class Started(NamedTuple):
    pid: int
    log: Path


class Commands:
    """The side of the tests."""

    def __init__(self, environment: Mapping[str, str], folder: Path):
        self._folder, self._count = folder, 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.broken_off"],
            env={**os.environ, **environ_without_weir(environment)}, cwd=CHECKOUT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def start(self, *arguments: str, point: str | Point = "", number: int = signal.SIGKILL) -> Started:
        """`number`: the signal that it sends itself at the point; of POINTS by its name."""
        self._count += 1
        log = self._folder / f"command-{self._count}.log"
        where = POINTS[point] if isinstance(point, str) and point else point
        request = {"arguments": arguments, "point": where, "signal": int(number), "log": str(log)}
        return Started(self._ask(request)["pid"], log)

    def end(self, started: Started) -> int:
        """Its exit code; minus the signal that killed it."""
        return int(self._ask({"wait": started.pid})["code"])

    def run(self, *arguments: str, point: str | Point = "") -> tuple[int, str]:
        started = self.start(*arguments, point=point)
        return self.end(started), started.log.read_text()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the process that makes the commands is gone"
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def environ_without_weir(changes: Mapping[str, str]) -> dict[str, str]:
    return {k: "" for k in os.environ if k.startswith("WEIR_")} | dict(changes)


def serve() -> None:
    """The side of the commands."""
    answers = os.fdopen(os.dup(1), "w")
    from connections import spark  # noqa: F401
    from etl import derive, run, validate  # noqa: F401
    from etl.great_expectations_site import Validator
    from weir import main

    Validator(Path(os.environ["WEIR_HOME"]))
    import pyspark.sql.connect.session  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            told: dict[str, int] = {"code": os.waitstatus_to_exitcode(status)}
        elif pid := os.fork():
            told = {"pid": pid}
        else:
            _become(main.main, request)
        answers.write(json.dumps(told) + "\n")
        answers.flush()


def _become(main: Callable[[], None], request: dict[str, Any]) -> None:
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if request["point"]:
        break_off(Point(*request["point"]), request["signal"])
    sys.argv = ["weir", *request["arguments"]]
    code: Any = 1
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else 1)


def break_off(point: Point, number: int) -> None:
    """From here on this process sends itself the signal at that point."""
    module, _, path = point.function.partition(":")
    *owners, name = path.split(".")
    owner: Any = import_module(module)
    for one in owners:
        owner = getattr(owner, one)
    original, calls = getattr(owner, name), [0]

    def now() -> None:
        os.kill(os.getpid(), number)

    def instead(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] != point.call:
            return original(*arguments, **named)
        if point.when == "before":
            now()
        if point.when == "during":
            threading.Timer(DURING_SECONDS, now).start()
        result = original(*arguments, **named)
        if point.when == "after":
            now()
        return result

    setattr(owner, name, instead)


if __name__ == "__main__":
    serve()
