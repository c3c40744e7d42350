"""How many readings a second the gateway takes by HTTP and CoAP, and whether Kafka has every one that it answered for.

    python benchmarks/gateway.py [--seconds 20] [--clients 32]

Starts a stack of its own (Kafka and PostgreSQL) and a gateway in a temporary folder. Clients, in a process of their
own, each wait for an answer before they send the next; they share the machine's cores with all the rest. Readings per
core count the CPU time of the gateway's process alone. Loss is counted from Kafka's log: acknowledged and not there, or
there twice.
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
from collections import Counter
from collections.abc import Awaitable, Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from connections import kafka
from connections.credentials import Credentials
from connections.kafka_batches import Batches
from connections.registry import Registry
from connections.warehouse import Warehouse
from fleet.catalog import load_catalog
from fleet.channels import mark_of
from fleet.reading import decode_reading
from fleet.registry import new_entry
from fleet.settings import Settings
from stack.ports import Ports
from stack.stack import Stack

TYPE, DEVICES = "smart_plug", 200
BATCH = 100
RESULTS = Path(__file__).parent / "results" / "gateway.json"
Ask = Callable[[str, int], Awaitable[bool]]
"""(device, first seq) → whether the answer was that all is there."""


def reading(device: str, seq: int) -> dict[str, Any]:
    now = int(time.time() * 1000)
    return {"device_id": device, "event_time": now, "seq": seq, "values": {"on": 1, "power": 1840.5, "energy": 52310.4}}


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
        body = json.dumps(
            [reading(device, seq + n) for n in range(batch)] if batch > 1 else reading(device, seq)
        ).encode()
        writer.write(
            f"POST /v1/readings HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {secrets[device]}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        return head.startswith(b"HTTP/1.1 202")

    return ask


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] | None = None

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(data)


async def coap_client(port: int, secrets: dict[str, str], batch: int) -> Ask:
    """On a socket of its own; a confirmable message is sent again after 2 s without an answer, as the standard says."""
    from tests.integration.gateway_clients import coap_datagram

    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Datagrams, remote_addr=("127.0.0.1", port))
    ids = iter(range(1, 65_536))

    async def ask(device: str, seq: int) -> bool:
        datagram = coap_datagram(secrets[device], json.dumps(reading(device, seq)).encode(), next(ids))
        for _ in range(5):
            protocol.answer = loop.create_future()
            transport.sendto(datagram)
            try:
                return (await asyncio.wait_for(protocol.answer, 2))[1] == 0x44
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
    """Puts (acknowledged (device, seq) pairs, refused, latencies in ms)."""
    make, batch = CASES[case]
    names = list(secrets)

    async def one(number: int, until: float) -> tuple[list[tuple[str, int]], int, list[float]]:
        ask, device = await make(port, secrets, batch), names[number % len(names)]
        seq, taken, refused, took = first, [], 0, []
        while time.perf_counter() < until:
            begun = time.perf_counter()
            if await ask(device, seq):
                taken += [(device, seq + n) for n in range(batch)]
            else:
                refused += 1
            took.append((time.perf_counter() - begun) * 1000)
            seq += batch
        return taken, refused, took

    async def everybody() -> list[tuple[list[tuple[str, int]], int, list[float]]]:
        until = time.perf_counter() + seconds
        return await asyncio.gather(*(one(number, until) for number in range(clients)))

    found = asyncio.run(everybody())
    answer.put(
        ([t for one in found for t in one[0]], sum(one[1] for one in found), [t for one in found for t in one[2]])
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
                    one = decode_reading(record.value)
                    found[one.device_id, one.seq] += 1
    consumer.close(autocommit=False)
    return found


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(stack: Stack, gateway: "subprocess.Popen[bytes]", options: argparse.Namespace) -> dict[str, Any]:
    settings, secrets = stack.settings("gateway"), tokens(stack)
    time.sleep(3)  # the gateway asks for new credentials each second
    topic = load_catalog(settings.types_dir).type(TYPE).topic
    cases: dict[str, Any] = {}
    acknowledged: set[tuple[str, int]] = set()
    for place, case in enumerate(CASES):
        port = settings.gateway_coap_port if case.startswith("coap") else settings.gateway_http_port
        answer = get_context("spawn").Queue()
        given = (case, port, secrets, options.clients, options.seconds, (place + 1) * 100_000_000, answer)
        process = get_context("spawn").Process(target=load, args=given)
        cpu = cpu_seconds(gateway.pid)
        process.start()
        taken, refused, took = answer.get(timeout=options.seconds + 120)
        process.join()
        cpu = cpu_seconds(gateway.pid) - cpu
        acknowledged |= set(taken)
        found = statistics.quantiles(took, n=100)
        cases[case] = {
            "readings_per_second": round(len(taken) / options.seconds),
            "readings_per_core_second": round(len(taken) / cpu),
            "requests_refused": refused,
            "latency_ms": {"p50": round(found[49], 1), "p99": round(found[98], 1)},
            "acknowledged": len(taken),
        }
    there = in_kafka(stack.settings("operator"), topic)
    twice = sum(n - 1 for n in there.values() if n > 1)
    lost = len(acknowledged - there.keys())
    about = {
        "seconds": options.seconds,
        "clients": options.clients,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    return {"about": about, "cases": cases, "acknowledged": len(acknowledged), "lost": lost, "twice": twice}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--write", action="store_true", help=f"Write {RESULTS.name}.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
        stack = Stack(Path(folder) / "home", Ports.free(), ("kafka", "postgres"), environ={})
        stack.up()
        try:
            environ = {k: v for k, v in os.environ.items() if not k.startswith("WEIR_")} | {
                "WEIR_ENV_FILE": str(stack.layout.env_file("gateway")),
                "WEIR_GATEWAY_READINGS_PER_SECOND": "1000000",
            }
            command = [sys.executable, "-m", "weir.main", "service", "gateway"]
            with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL) as gateway:
                try:
                    found = measure(stack, gateway, options)
                finally:
                    gateway.terminate()
        finally:
            stack.down()
    if options.write:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
