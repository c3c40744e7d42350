"""How many messages a second the bridge takes from MQTT to Kafka at QoS 1, beside a subscriber that only acknowledges.

    python benchmarks/bridge.py [--messages 40000] [--publishers 2]

Starts a stack of its own (Mosquitto, Kafka and PostgreSQL) in a temporary folder. For each of three contenders the
messages are first queued in Mosquitto, in its persistent session, and then timed from the contender's start of reading
to its last acknowledgement, so that the publishers' own cost is left out; a last run times publishers and bridge
together.
Rates per core count the CPU time of the contender's process alone, with its client libraries.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from connections.mqtt import Subscriber, session_id
from connections.mqtt_publisher import BulkPublisher
from fleet.catalog import load_catalog
from fleet.settings import Settings
from stack.ports import Ports
from stack.stack import Stack
from streaming.admission import Admission
from streaming.bridge import Worker, workers_of
from streaming.registrar import Registrar
from streaming.rejections import Rejections

ROUTE = "weather_station"
SUBSCRIPTION = "dt/weather/+/weather_station/+"


def payload(seq: int) -> bytes:
    return json.dumps(
        {
            "sensor_id": seq % 100 + 1, "temperature": 34.92, "humidity": 69.01, "rainfall": 33.04,
            "wind_speed": 9.93, "UV_index": 4.69, "timestamp": round(time.time(), 3), "seq": seq,
        }
    ).encode()  # fmt: skip


def publish(settings: Settings, first: int, count: int) -> None:
    publisher = BulkPublisher(settings)
    for seq in range(first, first + count):
        publisher.publish(f"dt/weather/field/weather_station/{seq % 100 + 1}", payload(seq))
    publisher.close(600)


def publish_all(settings: Settings, count: int, publishers: int) -> None:
    share = count // publishers
    processes = [
        get_context("spawn").Process(target=publish, args=(settings, n * share, share)) for n in range(publishers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def plain_paho(settings: Settings, count: int, client_id: str) -> None:
    """paho as it comes: its own loop, a callback, an acknowledgement when the callback returns."""
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5)
    client.username_pw_set(settings.mqtt_user, settings.mqtt_password.get_secret_value())
    got, done = 0, threading.Event()

    def on_message(*_: Any) -> None:
        nonlocal got
        got += 1
        if got >= count:
            done.set()

    client.on_message = on_message
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 3600
    properties.ReceiveMaximum = 2000
    client.connect(settings.mqtt_host, settings.mqtt_port, clean_start=False, properties=properties)
    client.loop_start()
    done.wait(300)
    client.disconnect()
    client.loop_stop()


def acknowledge_only(settings: Settings, count: int, client_id: str) -> None:
    """Weir's subscriber without Kafka: what MQTT alone allows."""
    subscriber = Subscriber(settings, client_id, [SUBSCRIPTION], max_in_flight=2000)
    got = 0
    while got < count:
        deliveries = subscriber.poll(0.2)
        subscriber.ack([d.mid for d in deliveries])
        got += len(deliveries)
    subscriber.flush(5)
    subscriber.close()


def bridge(settings: Settings, count: int, client_id: str) -> None:
    """One worker of the bridge: contract, registry, Kafka (acks=all, idempotent), acknowledgement after that."""
    catalog = load_catalog(settings.types_dir)
    admission = Admission(catalog)
    (worker,) = workers_of(settings, catalog, admission, Rejections(settings), [ROUTE])
    stop = threading.Event()
    registrar = threading.Thread(target=Registrar(settings, catalog, admission).run, args=(stop,))
    registrar.start()
    run_worker(worker, count)
    stop.set()
    registrar.join()


def run_worker(worker: Worker, count: int) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    while worker.tallies.acknowledged < count and thread.is_alive():
        time.sleep(0.005)
    stop.set()
    thread.join()
    if worker.tallies.bridged < count:
        raise SystemExit(f"{worker.tallies.bridged} of {count} bridged")


CONTENDERS: dict[str, tuple[str, Callable[[Settings, int, str], None]]] = {
    "plain paho, acknowledges": ("bench-paho", plain_paho),
    "Weir's subscriber, acknowledges": ("bench-subscriber", acknowledge_only),
    "bridge: contract, Kafka, acknowledges": (f"weir-bridge-{ROUTE}", bridge),
}


def timed(name: str, settings: Settings, count: int, answer: Any) -> None:
    name, run = CONTENDERS[name]
    cpu, wall = cpu_seconds(), time.perf_counter()
    run(settings, count, session_id(settings, name))
    answer.put((time.perf_counter() - wall, cpu_seconds() - cpu))


def contend(name: str, settings: Settings, count: int) -> tuple[float, float]:
    """(messages a second, messages a second of CPU), in a process of its own."""
    context = get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=timed, args=(name, settings, count, answer))
    process.start()
    wall, cpu = answer.get(timeout=600)
    process.join()
    return count / wall, count / cpu


def end_to_end(bridge_settings: Settings, simulator: Settings, count: int, publishers: int) -> tuple[float, float]:
    """Publishers and bridge at once: (messages a second, bridge's messages a second of its CPU)."""
    context = get_context("spawn")
    answer = context.Queue()
    name = "bridge: contract, Kafka, acknowledges"
    process = context.Process(target=timed, args=(name, bridge_settings, count, answer))
    process.start()
    time.sleep(3)  # connected; the idle wait costs no CPU
    began = time.perf_counter()
    publish_all(simulator, count, publishers)
    _, cpu = answer.get(timeout=600)
    process.join()
    return count / (time.perf_counter() - began), count / cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=40_000)
    parser.add_argument("--publishers", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
        stack = Stack(Path(folder) / "home", Ports.free(), ("mosquitto", "kafka", "postgres"), environ={})
        stack.up()
        try:
            measure(stack, options)
        finally:
            stack.down()


def measure(stack: Stack, options: argparse.Namespace) -> None:
    settings, simulator = stack.settings("bridge"), stack.settings("simulator")
    for client_id, _ in CONTENDERS.values():
        Subscriber(settings, session_id(settings, client_id), [SUBSCRIPTION]).close()
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
    together = []
    for _ in range(options.runs):
        publish_all(simulator, options.messages, options.publishers)
        for name in CONTENDERS:
            rates[name].append(contend(name, settings, options.messages))
        together.append(end_to_end(settings, simulator, options.messages, options.publishers))
        for name in list(CONTENDERS)[:2]:  # they got these too
            contend(name, settings, options.messages)
    print(f"{options.messages:,} messages of {len(payload(1))} bytes, QoS 1, median of {options.runs};"
          f" {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    print(f"{'':40}{'msg/s':>10}{'msg/s per core':>16}{'of plain paho':>15}")
    base = statistics.median(rate for rate, _ in next(iter(rates.values())))
    for name, found in [*rates.items(), ("publishers and bridge at once", together)]:
        rate, per_core = (statistics.median(part) for part in zip(*found, strict=True))
        print(f"{name:40}{rate:10,.0f}{per_core:16,.0f}{rate / base:15.2f}")


if __name__ == "__main__":
    main()
