"""How many readings a second the gateway takes by HTTP and CoAP, and whether Kafka has every one that it answered for.

    make bench-gateway        or  python benchmarks/gateway.py [--seconds 10] [--rounds 3] [--clients 32]

Starts a stack of its own (Kafka and PostgreSQL) and a gateway in a temporary folder; beside it the peers of
peers/bare_gateway.py: an endpoint that checks nothing, and a CoAP server that only answers. They take turns under the
same load. Clients, in a process of their own, each wait for an answer before they send the next; they share the
machine's cores with all the rest, so that readings per core, by the CPU time of the measured process alone, say more
than readings a second. Figures are medians of the rounds. Loss is counted from Kafka's log, by device and seq:
answered for and not there, or there twice. That the peers lose nothing is counted too; the CoAP server writes nowhere.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from connections import kafka
from connections.credentials import Credentials
from connections.kafka_batches import Batches
from connections.registry import Registry
from connections.warehouse import Warehouse
from fleet.catalog import load_catalog
from fleet.channels import mark_of
from fleet.registry import new_entry
from fleet.settings import CHECKOUT, Settings
from stack.ports import Ports
from stack.stack import Stack

TYPE, DEVICES = "smart_plug", 200
BATCH = 100
START_SECONDS = 60
WARM_UP_SECONDS = 10
"""The broker compiles itself meanwhile."""
HERE = Path(__file__).resolve().parent
ACCEPTED, CHANGED, EMPTY, CON, ACK = b"HTTP/1.1 202", 0x44, 0, 0, 2
Sent = tuple[str, int]
"""Device and seq."""
Ask = Callable[[str, int], Awaitable[bool]]
"""(device, first seq) → whether the answer was that all is there."""


def reading(device: str, seq: int) -> str:
    return (
        f'{{"device_id":"{device}","event_time":{time.time_ns() // 1_000_000},"seq":{seq},'
        '"values":{"on":1,"power":1840.5,"energy":52310.4}}'
    )


def tokens(stack: Stack) -> dict[str, str]:
    """Device → token, of as many registered devices."""
    settings = stack.settings("registry")
    spec, names = load_catalog(settings.types_dir).type(TYPE), [f"plug-{n}" for n in range(DEVICES)]
    warehouse = Warehouse.of(settings)
    with Registry(warehouse).changes() as changes:
        for name in names:
            changes.put(spec, None, new_entry(spec, name, "home-1", changes.at))
    with Credentials.of(settings).changes() as changes_:
        issued = changes_.issue(spec, [(name, None) for name in names])
    warehouse.close()
    return {one.credential.device_id: one.token for one in issued}


async def http_client(port: int, secrets: dict[str, str], batch: int) -> Ask:
    """On one connection that is kept."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def ask(device: str, seq: int) -> bool:
        found = [reading(device, seq + n) for n in range(batch)]
        body = f"[{','.join(found)}]" if batch > 1 else found[0]
        writer.write(
            f"POST /v1/readings HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {secrets[device]}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        return head.startswith(ACCEPTED)

    return ask


class Datagrams(asyncio.DatagramProtocol):
    """The answer to the message under way, by its token: at once, or after an empty acknowledgement."""

    transport: asyncio.DatagramTransport

    def __init__(self) -> None:
        self.token, self.answer = b"", asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        kind, code = data[0] >> 4 & 3, data[1]
        if code == EMPTY:
            return
        if kind == CON:
            self.transport.sendto(bytes([0x40 | ACK << 4, EMPTY]) + data[2:4])
        if data[4:6] == self.token and not self.answer.done():
            self.answer.set_result(code)


async def coap_client(port: int, secrets: dict[str, str], batch: int) -> Ask:
    """On a socket of its own; a confirmable message is sent again after 2 s without an answer, as the standard says."""
    loop = asyncio.get_running_loop()
    transport, of = await loop.create_datagram_endpoint(Datagrams, remote_addr=("127.0.0.1", port))
    number = 0

    async def ask(device: str, seq: int) -> bool:
        nonlocal number
        number = (number + 1) % 65_536
        query, of.token, of.answer = (
            f"token={secrets[device]}".encode(),
            number.to_bytes(2, "big"),
            loop.create_future(),
        )
        # A confirmable POST with a token of two bytes; Uri-Path (11) twice, Content-Format (12), Uri-Query (15).
        head = bytes([0x42, 0x02]) + of.token * 2
        options = b"\xb2v1\x08readings\x11\x32" + bytes([0x3D, len(query) - 13]) + query
        datagram = head + options + b"\xff" + reading(device, seq).encode()
        for _ in range(5):
            transport.sendto(datagram)
            try:
                return bool(await asyncio.wait_for(asyncio.shield(of.answer), 2) == CHANGED)
            except TimeoutError:
                continue
        return False

    return ask


CASES: dict[str, tuple[Any, int]] = {
    "http single": (http_client, 1),
    f"http batch of {BATCH}": (http_client, BATCH),
    "coap single": (coap_client, 1),
}


def load(case: str, port: int, secrets: dict[str, str], clients: int, seconds: float, first: int, answer: Any) -> None:
    """Puts ((device, seq) that were answered for, refused requests, milliseconds of each request, seconds in all)."""
    make, batch = CASES[case]
    names = list(secrets)

    async def one(number: int, until: float) -> tuple[list[Sent], int, list[float]]:
        ask, device = await make(port, secrets, batch), names[number % len(names)]
        seq, refused = first + number * 1_000_000, 0
        taken: list[Sent] = []
        took: list[float] = []
        while (begun := time.perf_counter()) < until:
            if await ask(device, seq):
                taken += [(device, seq + n) for n in range(batch)]
            else:
                refused += 1
            took.append((time.perf_counter() - begun) * 1000)
            seq += batch
        return taken, refused, took

    async def everybody() -> list[tuple[list[Sent], int, list[float]]]:
        until = time.perf_counter() + seconds
        return await asyncio.gather(*(one(number, until) for number in range(clients)))

    begun = time.perf_counter()
    found = asyncio.run(everybody())
    lasted = time.perf_counter() - begun
    answer.put(
        (
            [t for one in found for t in one[0]],
            sum(one[1] for one in found),
            [t for one in found for t in one[2]],
            lasted,
        )
    )


def in_kafka(settings: Settings, topic: str) -> Counter[tuple[str, int | None]]:
    consumer = kafka.consumer(settings, "bench")
    places = kafka.partitions(consumer, [topic])
    ends = consumer.end_offsets(places)
    consumer.assign(places)
    consumer.seek_to_beginning()
    batches, found = Batches(consumer), Counter[tuple[str, int | None]]()
    while any(consumer.position(place) < end for place, end in ends.items()):
        for batch in batches.poll(500):
            for record in batch.records():
                if mark_of(record.headers) is None:
                    one = json.loads(record.value)  # the peer's records are what its clients said
                    found[one["device_id"], one.get("seq")] += 1
    consumer.close(autocommit=False)
    return found


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Bench:
    def __init__(self, stack: Stack, options: argparse.Namespace):
        settings = stack.settings("gateway")
        self.stack, self.options = stack, options
        self.topic = load_catalog(settings.types_dir).type(TYPE).topic
        self.secrets = tokens(stack)
        free = Ports.free()
        self.ports = {
            "weir": {"http": settings.gateway_http_port, "coap": settings.gateway_coap_port},
            "bare": {"http": free.gateway_http, "coap": free.gateway_coap},
        }
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith("WEIR_")} | {
            "WEIR_ENV_FILE": str(stack.layout.env_file("gateway")),
            "WEIR_GATEWAY_READINGS_PER_SECOND": "1000000",
        }
        self.acknowledged: list[Sent] = []
        self.runs = 0

    @contextmanager
    def process(self, who: str, protocol: str) -> Iterator[int]:
        """Its pid, once it takes readings."""
        arguments = {
            "weir": ["-m", "weir.main", "service", "gateway"],
            "bare": [str(HERE / "peers" / "bare_gateway.py"), protocol, str(self.ports["bare"][protocol]), self.topic],
        }  # fmt: skip
        command = [sys.executable, *arguments[who]]
        with subprocess.Popen(command, env=self.environ, cwd=CHECKOUT, stdout=subprocess.DEVNULL) as running:
            try:
                deadline = time.monotonic() + START_SECONDS
                while not self.takes(who, protocol):
                    if running.poll() is not None or time.monotonic() > deadline:
                        raise SystemExit(f"{who} {protocol} takes nothing; see above")
                    time.sleep(0.2)
                yield running.pid
            finally:
                running.terminate()

    def takes(self, who: str, protocol: str) -> bool:
        """Whether it took a reading of the device whose token was issued last."""
        self.runs += 1
        device, seq = next(reversed(self.secrets)), self.runs * 1_000_000_000
        make = http_client if protocol == "http" else coap_client

        async def ask() -> bool:
            return await (await make(self.ports[who][protocol], self.secrets, 1))(device, seq)

        try:
            is_taken = asyncio.run(ask())
        except OSError:
            return False
        self.acknowledged += [(device, seq)] * (is_taken and (who, protocol) != ("bare", "coap"))
        return is_taken

    def run(self, who: str, pid: int, case: str, seconds: float) -> dict[str, Any]:
        self.runs += 1
        answer = get_context("spawn").Queue()
        port = self.ports[who][case[:4]]
        given = (case, port, self.secrets, self.options.clients, seconds, self.runs * 1_000_000_000, answer)
        process = get_context("spawn").Process(target=load, args=given)
        cpu = cpu_seconds(pid)
        process.start()
        taken, refused, took, lasted = answer.get(timeout=seconds + 120)
        process.join()
        cpu = cpu_seconds(pid) - cpu
        if (who, case[:4]) != ("bare", "coap"):
            self.acknowledged += taken
        found = statistics.quantiles(took, n=100)
        return {
            "readings_per_second": len(taken) / lasted,
            "readings_per_core_second": len(taken) / cpu,
            "p50_ms": found[49],
            "p99_ms": found[98],
            "refused": refused,
        }

    def measured(self) -> dict[str, dict[str, dict[str, float]]]:
        """Who → case → medians."""
        rounds: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        with self.process("weir", "http") as weir, self.process("bare", "http") as http, self.process(
            "bare", "coap"
        ) as coap:  # fmt: skip
            for who, pid in (("weir", weir), ("bare", http)):
                self.run(who, pid, "http single", WARM_UP_SECONDS)
            for _ in range(self.options.rounds):
                for case in CASES:
                    for who, pid in (("weir", weir), ("bare", http if case.startswith("http") else coap)):
                        rounds[who, case].append(self.run(who, pid, case, self.options.seconds))
        found: dict[str, dict[str, dict[str, float]]] = {"weir": {}, "bare": {}}
        for (who, case), several in rounds.items():
            found[who][case] = {name: statistics.median(one[name] for one in several) for name in several[0]}
            found[who][case]["refused"] = sum(one["refused"] for one in several)
        return found

    def loss(self) -> dict[str, int]:
        there = in_kafka(self.stack.settings("operator"), self.topic)
        return {
            "acknowledged": len(self.acknowledged),
            "lost": sum(there[one] == 0 for one in self.acknowledged),
            "twice": sum(n - 1 for n in there.values() if n > 1),
        }


def rounded(of: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 1) if name.endswith("_ms") else round(value) for name, value in of.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "gateway.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
        stack = Stack(Path(folder) / "home", Ports.free(), ("kafka", "postgres"), environ={})
        stack.up()
        try:
            bench = Bench(stack, options)
            found = bench.measured()
            loss = bench.loss()
        finally:
            stack.down()
    ratios = {
        case: {
            name: round(found["weir"][case][name] / found["bare"][case][name], 2)
            for name in ("readings_per_second", "readings_per_core_second")
        }
        for case in CASES
    }
    about = {
        "seconds": options.seconds, "rounds": options.rounds, "clients": options.clients, "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip
    print(f"{about}\n{loss}\n{'':26}{'readings/s':>12}{'per core':>12}{'p50 ms':>9}{'p99 ms':>9}{'refused':>9}")
    for case in CASES:
        for who in found:
            figures = zip(rounded(found[who][case]).values(), (12, 12, 9, 9, 9), strict=True)
            print(f"{f'{who} {case}':26}" + "".join(f"{value:>{width},}" for value, width in figures))
        print(f"{'  ratio':26}{ratios[case]['readings_per_second']:>12}{ratios[case]['readings_per_core_second']:>12}")
    results = {who: {case: rounded(of) for case, of in cases.items()} for who, cases in found.items()}
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps({"about": about, **results, "ratios": ratios, "loss": loss}, indent=1) + "\n")
    if loss["lost"] or loss["twice"]:
        raise SystemExit("readings were lost or doubled")


if __name__ == "__main__":
    main()
