"""`weir …` in processes that stop, or are killed, at a point of the batch job: nothing in the job knows of it."""

import os
import signal
import threading
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from tests.integration.forks import Child, Parent


class Point(NamedTuple):
    """Before, after or during the call of that number of a function (`module:name`), in one process."""

    when: str
    function: str
    call: int = 1


POINTS = {
    "before it began": Point("before", "etl.run:Job.begin"),
    "begun": Point("after", "etl.run:Job.begin"),
    "late alerts written": Point("after", "etl.late_alerts:write_late_alerts"),
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
LOADS = (
    "connections.spark", "etl.derive", "etl.run", "etl.validate", "pyspark.sql.connect.session",
    "tests.integration.batch_libraries",
)  # fmt: skip


class Started(NamedTuple):
    child: Child
    log: Path

    @property
    def pid(self) -> int:
        return self.child.pid


class Commands:
    """`weir …`, one after the other or beside each other, with an environment."""

    def __init__(self, environment: Mapping[str, str], folder: Path):
        self._folder, self._count = folder, 0
        self._environment = {**{k: v for k, v in os.environ.items() if not k.startswith("WEIR_")}, **environment}
        self._parent = Parent(self._environment, LOADS)

    def start(self, *arguments: str, point: str | Point = "", number: int = signal.SIGKILL) -> Started:
        """`number`: the signal that it sends itself at the point; of POINTS by its name."""
        self._count += 1
        log = self._folder / f"command-{self._count}.log"
        module, words = "weir.main", list(arguments)
        if point:
            where = POINTS[point] if isinstance(point, str) else point
            module, words = "tests.integration.killed_at", [*map(str, where), str(int(number)), *arguments]
        return Started(self._parent.start(module, words, self._environment, log), log)

    def end(self, started: Started) -> int:
        """Its exit code; minus the signal that killed it."""
        return started.child.wait()

    def run(self, *arguments: str, point: str | Point = "") -> tuple[int, str]:
        started = self.start(*arguments, point=point)
        return self.end(started), started.log.read_text()

    def close(self) -> None:
        self._parent.close()


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
