"""Alerts on a stream: how many readings a second Weir takes from Kafka, beside Quix Streams, Bytewax, and a plain loop.

    make bench-alerts            or  python benchmarks/alerts.py [--messages 4000000] [--runs 5] [--only weir,plain]

Starts a Kafka broker of its own and fills four partitions with readings of 40,000 devices. All contenders read the
same topic on the same broker.
- weir: the alert service as it runs: 20 rules of all kinds, transactions, a snapshot of each partition every 10 s
- quix, bytewax, plain: one rule with hysteresis, state per device. quix: exactly once, RocksDB and changelog;
  bytewax: in memory, no recovery, no transactions; plain: kafka-python and json, in memory
`per_core`: readings for a second of the client's CPU, one worker. `two_cores`: readings for a second of the clock, with
two workers and the broker on this machine's cores. Medians. The peers live in an environment of their own.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from connections import kafka
from fleet.channels import HEARTBEAT, MARK_HEADER, state_topic
from fleet.control import Spec, encode_control
from fleet.settings import Settings
from stack.ports import Ports
from stack.stack import Stack

HERE = Path(__file__).resolve().parent
TYPES = HERE / "alerts_types"
TOPIC, OUTPUT, PARTITIONS, DEVICES = "readings.bench", "bench.transitions", 4, 40_000
PATIENCE_SECONDS = 400
WARNINGS = {"PYTHONWARNINGS": "ignore"}
"""The peers' libraries have many, of each other."""


class Contender:
    """Workers of one kind, started together; what they report until they have taken so many messages."""

    def __init__(self, commands: list[list[str]], environment: dict[str, str], goal: int):
        self.goal = goal
        self.first: dict[int, dict[str, float]] = {}
        """By worker, the last report before it took any message."""
        self.last: dict[int, dict[str, float]] = {}
        self.ready: dict[str, float] | None = None
        self._lock = threading.Lock()
        self._processes = [
            subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **WARNINGS, **environment}, text=True)
            for command in commands
        ]
        for number, process in enumerate(self._processes):
            threading.Thread(target=self._listen, args=(number, process), daemon=True).start()

    def _listen(self, number: int, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                said = json.loads(line)
                with self._lock:
                    self.last[number] = said
                    if not said["n"]:
                        self.first[number] = said
            elif line.startswith("ready "):
                self.ready = json.loads(line[6:])

    def taken(self) -> int:
        with self._lock:
            return int(sum(said["n"] for said in self.last.values()))

    def run(self) -> tuple[float, float, float]:
        """(readings a second of CPU, readings a second of the clock, MiB of the largest worker)"""
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            while self.taken() < self.goal:
                if time.monotonic() > deadline or any(p.poll() is not None for p in self._processes):
                    raise SystemExit(f"only {self.taken():,} of {self.goal:,} messages were taken")
                time.sleep(0.02)
            with self._lock:
                taken = sum(said["n"] for said in self.last.values())
                cpu = sum(said["cpu"] - self.first[n]["cpu"] for n, said in self.last.items() if n in self.first)
                begun = min(said["at"] for said in self.first.values())
                ended = max(said["at"] for said in self.last.values())
                return taken / cpu, taken / (ended - begun), max(said["rss"] for said in self.last.values())
        finally:
            self.end()

    def wait_for_ready(self) -> dict[str, float]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            while self.ready is None:
                if time.monotonic() > deadline or any(p.poll() is not None for p in self._processes):
                    raise SystemExit("the worker does not come back")
                time.sleep(0.01)
            return self.ready
        finally:
            self.end()

    def end(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
            process.wait()


# Workers: each is a process, `alerts.py worker NAME '{…}'`


def weir_worker(asked: dict[str, Any]) -> None:
    """The service, under a group and with snapshots of this run's own."""
    from reports import report

    from streaming import alerts
    from streaming.service import log_lines

    log_lines("ERROR")
    alerts.ALERTS_GROUP = asked["group"]
    service = alerts.Alerts(Settings.load())
    service.systems = {TOPIC: asked["group"]}
    report(lambda: sum(service._committed.values()))
    if asked.get("ready"):
        threading.Thread(target=tell_when_ready, args=(service,), daemon=True).start()
    service.run(threading.Event())


def tell_when_ready(service: Any) -> None:
    begun = time.monotonic()
    while service.problem() or len(service._shards) < PARTITIONS:
        time.sleep(0.005)
    devices = sum(len(type_.devices) for s in service._shards.values() for type_ in s.engine.known.types.values())
    said = {"seconds": round(time.monotonic() - begun, 2), "devices": devices, "state_bytes": sum(
        0 if s.snapshot is None else len(s.snapshot.state) for s in service._shards.values())}  # fmt: skip
    print(f"ready {json.dumps(said)}", flush=True)


def plain_worker(asked: dict[str, Any]) -> None:
    from reports import report

    consumer = kafka.consumer(Settings.load(), "bench-plain", asked["group"])
    consumer.subscribe([TOPIC])
    firing: set[str] = set()
    taken = transitions = 0
    report(lambda: taken)
    while True:
        for records in consumer.poll(timeout_ms=200).values():
            for record in records:
                taken += 1
                reading = json.loads(record.value)
                temperature = reading.get("values", {}).get("temperature")
                if temperature is None:
                    continue
                device = reading["device_id"]
                if device not in firing and temperature > 35:
                    firing.add(device)
                    transitions += 1
                elif device in firing and temperature < 34:
                    firing.discard(device)
                    transitions += 1
            consumer.commit()


WORKERS = {"weir": weir_worker, "plain": plain_worker}


class Bench:
    def __init__(self, stack: Stack, python: Path, folder: Path, options: argparse.Namespace):
        self.python, self.folder, self.options = python, folder, options
        # Each run has a group and topics of its own, to which the stack's users have no rights: its admin has.
        bootstrap = stack.settings("alerts").kafka_bootstrap
        self.environment = {
            "WEIR_HOME": str(folder), "WEIR_KAFKA_BOOTSTRAP": bootstrap, "WEIR_KAFKA_USER": "admin",
            "WEIR_KAFKA_PASSWORD": stack.secrets["KAFKA_ADMIN"], "WEIR_TYPES_DIR": str(TYPES),
            "WEIR_ALERTS_SNAPSHOT_SECONDS": "10",
        }  # fmt: skip
        self.settings = Settings.load(self.environment)
        self.turn = 0

    @property
    def client(self) -> dict[str, str]:
        """The broker, as librdkafka's clients are told."""
        s = self.settings
        return {
            "bootstrap.servers": s.kafka_bootstrap, "security.protocol": s.kafka_protocol,
            "sasl.mechanism": s.kafka_mechanism, "sasl.username": s.kafka_user,
            "sasl.password": s.kafka_password.get_secret_value(),
        }  # fmt: skip

    def fill(self) -> None:
        producer = kafka.producer(self.settings, "bench")
        text = (TYPES / "station.yaml").read_text()
        record = encode_control(Spec(revision=1, at=1, type="station", version=1, text=text))
        for partition in range(PARTITIONS):
            producer.send(TOPIC, record, partition=partition, headers=[(MARK_HEADER, b"control")])
        kafka.close(producer, 30)
        asked = {
            "client": self.client, "topic": TOPIC, "devices": DEVICES, "messages": self.options.messages,
            "partitions": PARTITIONS, "heartbeat": [MARK_HEADER, HEARTBEAT.decode()],
        }  # fmt: skip
        done = subprocess.run([self.python, HERE / "peers" / "publish.py", json.dumps(asked)], check=True,
                              stdout=subprocess.PIPE, text=True)  # fmt: skip
        print(f"published {json.loads(done.stdout.splitlines()[-1])}", flush=True)

    def contend(self, name: str, workers: int, **more: Any) -> Contender:
        self.turn += 1
        group = more.get("group") or f"bench-{name}-{self.turn}"
        if name == "weir" and "group" not in more:
            self.make_topic(state_topic(group), {"cleanup.policy": "compact"})
        asked = {
            "client": self.client, "group": group, "topic": TOPIC, "output": OUTPUT, "addresses": [], "number": 0,
            "folder": str(self.folder / group), **more,
        }  # fmt: skip
        if name == "bytewax" and workers > 1:
            asked["addresses"] = [f"127.0.0.1:{port}" for port in free_ports(workers)]
        script = {"quix": "quix.py", "bytewax": "bytewax_flow.py"}.get(name)
        commands = []
        for number in range(workers):
            told = json.dumps({**asked, "number": number, "folder": f"{asked['folder']}-{number}"})
            start = [str(self.python), str(HERE / "peers" / script)] if script else [
                "/usr/bin/env", f"WEIR_SERVICE_INSTANCE={number}", sys.executable, __file__, "worker", name,
            ]  # fmt: skip
            commands.append([*start, told])
        goal = self.options.messages if name == "weir" else min(self.options.peer_messages, self.options.messages)
        return Contender(commands, self.environment, goal)

    def make_topic(self, name: str, config: dict[str, str]) -> None:
        client = kafka.admin(self.settings)
        client.create_topics({name: {"num_partitions": PARTITIONS, "replication_factor": 1, "configs": config}})
        client.close()

    def measure(self, names: list[str], runs: int) -> dict[str, dict[str, Any]]:
        """In turns, so that what else the machine does meets all of them."""
        found: dict[str, dict[str, list[float]]] = {
            name: {"per_core": [], "two_cores": [], "mib": []} for name in names
        }
        for name in names * runs:
            per_core, _, mib = self.contend(name, 1).run()
            _, by_clock, _ = self.contend(name, 2).run()
            for key, value in zip(found[name], (per_core, by_clock, mib), strict=True):
                found[name][key].append(value)
            print(f"  {name}: {per_core:,.0f} a second of CPU, {by_clock:,.0f} a second with two workers; load "
                  f"{os.getloadavg()[0]:.1f}", flush=True)  # fmt: skip
        return {
            name: {key: round(statistics.median(values)) for key, values in of.items()} for name, of in found.items()
        }

    def restart(self) -> dict[str, float]:
        """A worker that was killed comes back: seconds until all partitions are where they were, and what it holds."""
        self.contend("weir", 1).run()
        group = f"bench-weir-{self.turn}"
        contender = self.contend("weir", 1, group=group, ready=True)
        return contender.wait_for_ready()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


@contextmanager
def bench(options: argparse.Namespace) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
        stack = Stack(Path(folder) / "home", Ports.free(), ("kafka",), environ={"WEIR_TYPES_DIR": str(TYPES)})
        stack.up()
        try:
            yield Bench(stack, options.peers_python, Path(folder), options)
        finally:
            stack.down()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=4_000_000)
    parser.add_argument("--peer-messages", type=int, default=600_000, help="of these, how many the peers take")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="weir,quix,bytewax,plain")
    parser.add_argument("--peers-python", type=Path, default=HERE.parent / "var" / "bench-peers" / "bin" / "python")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "alerts.json")
    options = parser.parse_args()
    with bench(options) as run:
        run.make_topic(OUTPUT, {})
        run.fill()
        found = run.measure(options.only.split(","), options.runs)
        if "weir" in found:
            found["weir"]["restart"] = run.restart()
    about = {"messages": options.messages, "peer_messages": options.peer_messages, "runs": options.runs,
             "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}  # fmt: skip
    print(f"{about}\n{'':10}{'readings/s per core':>22}{'with two workers':>18}{'MiB':>6}{'of plain':>10}")
    base = found.get("plain", next(iter(found.values())))["per_core"]
    for name, figures in found.items():
        print(f"{name:10}{figures['per_core']:22,}{figures['two_cores']:18,}{figures['mib']:6}"
              f"{figures['per_core'] / base:10.1f}")  # fmt: skip
    print(f"restart: {found.get('weir', {}).get('restart')}")
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps({"about": about, **found}, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        WORKERS[sys.argv[2]](json.loads(sys.argv[3]))
    else:
        main()
