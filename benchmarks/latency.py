"""From a device's publish to the receiver's webhook: how long an alert takes, and where the time goes.

    make bench-latency            or  python benchmarks/latency.py [--rates 100,1000,5000] [--seconds 60]

Starts a stack of its own: Mosquitto, Kafka, PostgreSQL, and the bridge, the alert service and the dispatcher as they
run, exactly once on. 997 devices publish over MQTT at QoS 1; about 20 times a second one of them crosses its limit, up
or, a second later, down again: one in a hundred is over it at any time.
The clock runs from before that message is handed to the client to when the webhook's request is read.
As a peer, the field's usual way on the same bridge and broker, at the same rates: a Spark Structured Streaming job that
filters by the threshold and writes to Kafka, timed to when a consumer has its record (no exactly once, no webhook).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import msgspec
from kafka import TopicPartition

from connections import kafka
from connections.mqtt_publisher import BulkPublisher
from connections.spark_kafka import kafka_options
from fleet.channels import TRANSITIONS
from fleet.settings import Settings
from fleet.transition import decode_transition
from stack.ports import Ports
from stack.stack import Stack

HERE = Path(__file__).resolve().parent
TYPES = HERE / "latency_types"
TOPIC, OUTPUT = "readings.bench", "bench.hot"
DEVICES = 997
HOT = 10
"""Of them, at a time."""
CROSSINGS_A_SECOND = 20
TICK_SECONDS = 0.002
SETTLE_SECONDS = 15.0
WARM_UP_SECONDS = 45
"""At the highest rate. The broker takes a core to compile itself in its first minute."""
RECEIVERS = """
receivers:
  bench: {{kind: webhook, url: "{url}"}}
default: [bench]
storm: {{more_than: 1000}}
"""

Crossing = tuple[str, int]
"""Device and event time in milliseconds."""
Seen = dict[Crossing, float]
"""When, in epoch seconds."""


def publish(settings: Settings, rate: int, seconds: float, answer: Any) -> None:
    """At an even pace; when each crossing was published. Then every device cools down, or the next to be measured would
    begin with their alerts' ends all at once; how many those are."""
    publisher = BulkPublisher(settings, max_in_flight=5000)
    every = max(2, rate // CROSSINGS_A_SECOND)
    hot: deque[int] = deque()
    at: Seen = {}
    cold, warm = {"temperature": 21.5, "humidity": 55.25, "wind_speed": 9.93}, {"temperature": 36.5}

    def say(device: int, now: float) -> None:
        payload = {"device_id": f"d{device}", "event_time": int(now * 1000)}
        payload["values"] = cold | warm if device in hot else cold
        publisher.publish(f"dt/bench/site-{device % 50}/probe/d{device}", msgspec.json.encode(payload))

    begun, sent, total = time.time(), 0, int(rate * seconds)
    while sent < total:
        due = min(total, int((time.time() - begun) * rate) + 1)
        for n in range(sent, due):
            device = n % DEVICES
            now = time.time()
            if n % every == 0:
                if len(hot) == HOT:
                    device = hot.popleft()
                else:
                    hot.append(device)
                at[f"d{device}", int(now * 1000)] = now
            say(device, now)
        sent = due
        publisher.poll(0)
        time.sleep(TICK_SECONDS)
    took = time.time() - begun
    cooling = len(hot)
    while hot:
        say(hot.popleft(), time.time())
        publisher.poll(0)
        time.sleep(1 / CROSSINGS_A_SECOND)
    publisher.close(60)
    answer.put((at, total / took, cooling))


def published(settings: Settings, rate: int, seconds: float) -> tuple[Seen, float, int]:
    """By a process of its own: (when each crossing was published, messages a second, devices that cooled down)."""
    context = get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=publish, args=(settings, rate, seconds, answer))
    process.start()
    found = answer.get(timeout=seconds + 300)
    process.join()
    return found  # type: ignore[no-any-return]


class Webhook(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    arrivals: list[tuple[float, bytes]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.arrivals.append((time.time(), body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def arrived(arrivals: list[tuple[float, bytes]]) -> Seen:
    """First arrivals of what the webhook was told, by the crossing that each alert is about."""
    from datetime import datetime

    seen: Seen = {}
    for at, body in arrivals:
        for alert in json.loads(body)["alerts"]:
            if alert["labels"]["alertname"] != "high_temperature":
                continue
            moment = alert["startsAt"] if alert["status"] == "firing" else alert["endsAt"]
            crossing = alert["labels"]["device"], round(datetime.fromisoformat(moment).timestamp() * 1000)
            seen.setdefault(crossing, at)
    return seen


def all_records(settings: Settings, topic: str, start: dict[TopicPartition, int]) -> Iterator[Any]:
    consumer = kafka.consumer(settings, "bench", isolation_level="read_committed")
    places = kafka.partitions(consumer, [topic])
    ends = consumer.end_offsets(places)
    consumer.assign(places)
    for place in places:
        consumer.seek(place, start.get(place, 0))
    while any(consumer.position(place) < ends[place] for place in places):
        for records in consumer.poll(timeout_ms=500, max_records=5000).values():
            yield from records
    consumer.close()


def on_kafka(settings: Settings, start: dict[TopicPartition, int]) -> tuple[Seen, Seen]:
    """When the broker took each crossing's reading and its transition, by its clock (milliseconds)."""
    transitions, sources = dict[Crossing, float](), dict[tuple[int, int], Crossing]()
    for record in all_records(settings, TRANSITIONS, start):
        said = decode_transition(record.value)
        if said.rule == "high_temperature":
            crossing = said.device, said.event_time_us // 1000
            transitions.setdefault(crossing, record.timestamp / 1000)
            sources[said.partition, said.offset] = crossing
    readings = {
        sources[record.partition, record.offset]: record.timestamp / 1000
        for record in all_records(settings, TOPIC, start)
        if (record.partition, record.offset) in sources
    }
    return readings, transitions


def spread(seconds: list[float]) -> dict[str, float]:
    """Milliseconds."""
    ordered = sorted(seconds)
    if not ordered:
        return {"p50": 0.0, "p99": 0.0, "max": 0.0}
    at = {"p50": ordered[len(ordered) // 2], "p99": ordered[int(len(ordered) * 0.99)], "max": ordered[-1]}
    return {name: round(value * 1000, 1) for name, value in at.items()}


def between(before: Seen, after: Seen) -> list[float]:
    return [after[crossing] - at for crossing, at in before.items() if crossing in after]


def until_quiet(count: Callable[[], int], wanted: int, seconds: float = SETTLE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while count() < wanted and time.monotonic() < deadline:
        time.sleep(0.1)


def weir(stack: Stack, rate: int, seconds: float) -> dict[str, Any]:
    operator = stack.settings("operator")
    consumer = kafka.consumer(operator, "bench")
    start = kafka.end_offsets(consumer, [TOPIC, TRANSITIONS])
    consumer.close()
    Webhook.arrivals.clear()
    at, paced, cooled = published(stack.settings("simulator"), rate, seconds)
    until_quiet(lambda: len(Webhook.arrivals), len(at) + cooled)
    told = arrived(list(Webhook.arrivals))
    readings, transitions = on_kafka(operator, start)
    return {
        "messages_per_second": round(paced), "crossings": len(at), "told": len(told.keys() & at.keys()),
        **spread(between(at, told)),
        "where": {
            "publish_to_kafka": spread(between(at, readings)),
            "rule_to_transition": spread(between(readings, transitions)),
            "transition_to_webhook": spread(between(transitions, told)),
        },
    }  # fmt: skip


class Peer:
    """The Spark job, and a consumer of what it writes."""

    def __init__(self, stack: Stack, folder: Path):
        batch = stack.settings("batch")
        admin = Settings.load({
            "WEIR_HOME": str(folder), "WEIR_KAFKA_BOOTSTRAP": batch.kafka_bootstrap, "WEIR_KAFKA_USER": "admin",
            "WEIR_KAFKA_PASSWORD": stack.secrets["KAFKA_ADMIN"],
        })  # fmt: skip
        client = kafka.admin(admin)
        client.create_topics({OUTPUT: {"num_partitions": 4, "replication_factor": 1, "configs": {}}})
        client.close()
        asked = {
            "topic": TOPIC, "output": OUTPUT, "folder": str(folder / "checkpoint"), "client": kafka_options(admin),
        }  # fmt: skip
        environment = {**os.environ, "WEIR_ENV_FILE": str(batch.env_file), "WEIR_SPARK_REMOTE": ""}
        self._process = subprocess.Popen(
            [sys.executable, HERE / "peers" / "spark_threshold.py", json.dumps(asked)],
            env=environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise SystemExit("the Spark job did not start")
        self.seen: Seen = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(admin,))
        self._thread.start()

    def _read(self, settings: Settings) -> None:
        consumer = kafka.consumer(settings, "bench-peer")
        places = kafka.partitions(consumer, [OUTPUT])
        consumer.assign(places)
        consumer.seek_to_end(*places)
        while not self._end.is_set():
            for records in consumer.poll(timeout_ms=100).values():
                now = time.time()
                for record in records:
                    reading = json.loads(record.value)
                    self.seen.setdefault((reading["device_id"], reading["event_time"]), now)
        consumer.close()

    def measure(self, stack: Stack, rate: int, seconds: float) -> dict[str, Any]:
        self.seen.clear()
        at, paced, _ = published(stack.settings("simulator"), rate, seconds)
        until_quiet(lambda: len(self.seen.keys() & at.keys()), len(at) // 2)
        found = between(at, dict(self.seen))  # crossings back are not of the filter
        return {"messages_per_second": round(paced), "crossings": len(found), **spread(found)}

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        self._process.kill()
        self._process.wait()


@contextmanager
def webhook() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", default="100,1000,5000")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only", default="weir,spark")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "latency.json")
    options = parser.parse_args()
    rates = [int(rate) for rate in options.rates.split(",")]
    found: dict[str, dict[str, Any]] = {}
    programs = ("mosquitto", "kafka", "postgres", "bridge", "alerts", "dispatcher")
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder, webhook() as url:
        receivers = Path(folder) / "receivers.yaml"
        receivers.write_text(RECEIVERS.format(url=url))
        environ = {"WEIR_TYPES_DIR": str(TYPES), "WEIR_RECEIVERS_FILE": str(receivers)}
        stack = Stack(Path(folder) / "home", Ports.free(), programs, environ=environ)
        stack.up()
        try:
            at, _, cooled = published(stack.settings("simulator"), max(rates), WARM_UP_SECONDS)
            until_quiet(lambda: len(Webhook.arrivals), len(at) + cooled)  # a cold start is not measured
            if "weir" in options.only:
                found["weir"] = {str(rate): weir(stack, rate, options.seconds) for rate in rates}
            stack.supervisor.stop_together(["alerts", "dispatcher"])
            if "spark" in options.only:
                peer = Peer(stack, Path(folder))
                published(stack.settings("simulator"), max(rates), WARM_UP_SECONDS)
                found["spark"] = {str(rate): peer.measure(stack, rate, options.seconds) for rate in rates}
                peer.close()
        finally:
            stack.down()
    about = {"seconds": options.seconds, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    print(f"{about}\n{'milliseconds':34}{'msg/s':>8}{'crossings':>11}{'p50':>9}{'p99':>9}{'max':>9}")
    for name, by_rate in found.items():
        for figures in by_rate.values():
            line(name, figures, figures["messages_per_second"], figures["crossings"])
            for part, times in figures.get("where", {}).items():
                line(f"  {part.replace('_', ' ')}", times)
    if len(found) < 2:
        return  # a look at one of them is no result
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps({"about": about, **found}, indent=1) + "\n")


def line(name: str, times: dict[str, Any], rate: object = "", crossings: object = "") -> None:
    print(f"{name:34}{rate:>8}{crossings:>11}{times['p50']:>9}{times['p99']:>9}{times['max']:>9}")


if __name__ == "__main__":
    main()
