"""The alert service under kill -9, frozen workers, workers that come and go, and a broker that restarts.

    python -m tests.chaos.run --kills 300 --seed 7

Afterwards what stands on alerts.transitions must equal, as a list per device, what the evaluator says of the same log:
none lost, none twice, none in another order.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgspec

from connections import kafka
from fleet.channels import TRANSITIONS
from fleet.settings import Settings
from stack.ports import Ports
from stack.stack import Stack
from tests.chaos.ground import TOPIC, Feed, comparable, expected, log_of, published
from tests.conftest import JVM, own_home
from tests.integration.processes import Process, wait_for

TYPES = Path(__file__).parent / "types"
WORKERS = 2
KILLS_A_RESTART = 10
"""Of the broker."""
SETTLE_SECONDS = 120
FREEZES_WHILE_IT_JOINS = 0.1
FROZEN_SECONDS = 12.0
"""Longer than the group's session timeout: the worker's partitions are another's when it wakes up."""


@dataclass
class Result:
    kills: int = 0
    frozen: int = 0
    added: int = 0
    removed: int = 0
    broker_restarts: int = 0
    readings: int = 0
    transitions: int = 0
    seconds: float = 0.0
    differences: list[str] = field(default_factory=list)


class Chaos:
    def __init__(self, stack: Stack, folder: Path, seed: int, say: Callable[[str], None]):
        self.stack, self.folder, self.say = stack, folder, say
        self.settings: Settings = stack.settings("alerts")
        self.chance = random.Random(seed)
        self.result = Result()
        self.workers: dict[int, Process] = {}
        for number in range(1, WORKERS + 1):
            self._add(number)

    def _add(self, number: int) -> None:
        self.workers[number] = Process(
            "alerts", self.settings, self.folder / f"alerts-{number}.log",
            WEIR_SERVICE_INSTANCE=number, WEIR_TYPES_DIR=TYPES, WEIR_ALERTS_SNAPSHOT_SECONDS=1,
        ).start()  # fmt: skip

    def run(self, kills: int) -> None:
        """Until that many kills; everything else happens in between."""
        while self.result.kills < kills:
            time.sleep(self.chance.uniform(0.3, 2.5))
            number, worker = self.chance.choice(sorted(self.workers.items()))
            roll = self.chance.random()
            if roll < 0.04:
                self._freeze(worker)
            elif roll < 0.10 and len(self.workers) < 3:
                self._add(max(self.workers) + 1)
                self.result.added += 1
            elif roll < 0.16 and len(self.workers) > 1:
                self.workers.pop(number).stop()
                self.result.removed += 1
            else:
                worker.kill()
                worker.start()
                self.result.kills += 1
                if self.chance.random() < FREEZES_WHILE_IT_JOINS:
                    time.sleep(self.chance.uniform(0.2, 2.0))
                    self._freeze(worker)
                if self.result.kills % KILLS_A_RESTART == 0:
                    self._restart_broker()
                if self.result.kills % 20 == 0:
                    self.say(f"{self.result.kills} kills")

    def _restart_broker(self) -> None:
        """Every other time it is killed first."""
        if self.result.broker_restarts % 2:
            os.kill(self.stack.supervisor.programs()["kafka"]["pid"], signal.SIGKILL)
        self.stack.restart("kafka")
        self.result.broker_restarts += 1

    def _freeze(self, worker: Process) -> None:
        worker.signal(signal.SIGSTOP)
        time.sleep(FROZEN_SECONDS)
        worker.signal(signal.SIGCONT)
        self.result.frozen += 1

    def settle(self) -> None:
        """Every worker that ended by itself (fenced, say) is started again, until all partitions are committed."""
        begun = time.monotonic()

        def done() -> bool:
            for worker in self.workers.values():
                if not worker.alive():
                    worker.start()
            return not self._behind()

        wait_for(done, SETTLE_SECONDS, lambda: f"not committed: {self._behind()}\n{self._logs()}", every=0.5)
        self.say(f"all committed {time.monotonic() - begun:.1f} s after the feed's end")

    def _behind(self) -> dict[int, tuple[int, int]]:
        """Partition → (committed, end), where they differ."""
        consumer = kafka.consumer(self.settings, "chaos-position", "alerts")
        try:
            places = kafka.partitions(consumer, [TOPIC])
            ends = consumer.end_offsets(places)
            at = {place: consumer.committed(place) or 0 for place in places}
            return {p.partition: (at[p], ends[p]) for p in places if at[p] < ends[p]}
        finally:
            consumer.close(autocommit=False)

    def _logs(self) -> str:
        """Their ends, with where each thread is, and what the worker says of itself."""
        for worker in self.workers.values():
            worker.signal(signal.SIGUSR1)
            with worker.log.open("a") as log:
                log.write(f"\nready: {worker.readiness()}\n")
        time.sleep(2)
        return "\n".join(f"{w.log.name}\n{w.log.read_text()[-9000:]}" for w in self.workers.values())

    def end(self) -> None:
        for worker in self.workers.values():
            worker.kill()


def compare(stack: Stack, result: Result) -> None:
    operator = stack.settings("operator")
    truth = expected(log_of(operator, TOPIC))
    said = published(log_of(operator, TRANSITIONS))
    result.transitions = sum(map(len, truth.values()))
    for device in sorted({*truth, *said}):
        wanted, found = comparable(truth.get(device, [])), comparable(said.get(device, []))
        if wanted != found:
            shorter = min(len(wanted), len(found))
            place = next((i for i in range(shorter) if wanted[i] != found[i]), shorter)
            a, b = (lines[place] if place < len(lines) else None for lines in (wanted, found))
            result.differences.append(
                f"{device}: {len(wanted)} expected, {len(found)} published; transition {place}:\n  expected {a}\n"
                f"  found    {b}"
            )


def kept_in(seed: int) -> Path:
    """What is left of a run that failed."""
    return Path(os.environ.get("CHAOS_LOGS", "/tmp")) / f"chaos-{seed}"


def chaos(kills: int, seed: int, say: Callable[[str], None] = print, devices: int = 60) -> Result:
    begun, done = time.monotonic(), False
    with own_home() as home:
        stack = Stack(home, Ports.free(), ("kafka",), environ={**JVM, "WEIR_TYPES_DIR": str(TYPES)})
        stack.up()
        logs = home / "chaos"
        logs.mkdir()
        try:
            run = Chaos(stack, logs, seed, say)
            try:
                feed = Feed(stack.settings("simulator"), (TYPES / "machine.yaml").read_text(), seed, devices)
                run.run(kills)
                run.result.readings = feed.end()
                run.settle()
                compare(stack, run.result)
                done = not run.result.differences
            finally:
                run.end()
                if not done:
                    kept = kept_in(seed)
                    shutil.copytree(logs, kept, dirs_exist_ok=True)
                    say(f"the workers' logs and Kafka's data are in {kept}")
        finally:
            stack.down()
            if not done:
                with suppress(OSError):
                    shutil.copytree(home / "data" / "kafka", kept_in(seed) / "kafka", dirs_exist_ok=True)
    run.result.seconds = time.monotonic() - begun
    return run.result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    result = chaos(given.kills, given.seed)
    figures = {name: value for name, value in asdict(result).items() if name != "differences"}
    print(msgspec.json.encode(figures).decode())
    for difference in result.differences[:5]:
        print(difference)
    differ = f"{len(result.differences)} devices differ"
    print(differ if result.differences else "equal as a list per device: none lost, none twice")
    sys.exit(1 if result.differences else 0)


if __name__ == "__main__":
    main()
