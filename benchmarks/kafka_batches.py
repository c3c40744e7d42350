"""How many readings a second a core reads from Kafka: kafka-python as it comes, and in batches and columns.

    python benchmarks/kafka_batches.py [--readings 400000] [--runs 5]

Starts a Kafka of its own, with the stack's configuration, in a temporary folder, and writes readings of 139 bytes from
40,000 devices (lz4, four partitions). Each contender reads them all from the start in a process of its own. The first
quarter warms it up; of the rest, readings a second of CPU count that process's time alone, in all its threads.
"""

import argparse
import json
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kafka import KafkaConsumer
from kafka.admin import NewTopic
from pydantic import SecretStr

from connections import kafka
from connections.kafka_batches import Batches
from fleet.catalog import build_catalog
from fleet.columns import ColumnReader
from fleet.reading import Reading, decode_reading, encode_reading
from fleet.settings import Settings
from fleet.spec_file import load_spec
from stack.ports import Ports
from stack.stack import Stack

TOPIC, PARTITIONS, DEVICES = "bench.meters", 4, 40_000
SPEC = f"""
type: meter
version: 1
system: bench
kafka_topic: {TOPIC}
cadence: 2s
metrics: {{amps: {{unit: count}}, volt: {{unit: volt}}}}
examples: {{good: [{{payload: {{}}, values: {{}}}}], bad: [{{payload: 1, reason: wrong_type}}]}}
"""


def write(settings: Settings, count: int) -> int:
    """Returns the length of a reading."""
    chance, lengths = random.Random(1), []  # noqa: S311
    producer = kafka.producer(settings, "bench-writer")
    now_us = time.time_ns() // 1000
    for number in range(count):
        device = f"{chance.randrange(DEVICES) + 10_000}"
        values: dict[str, float | None] = {
            "amps": round(chance.uniform(1, 9), 2), "volt": round(chance.uniform(210, 240) / 10, 1),
        }  # fmt: skip
        time_us = (now_us + number * 10) // 1000 * 1000
        value = encode_reading(Reading(device, "meter", "1", time_us, values, 1_000 + number % 9_000))
        lengths.append(len(value))
        producer.send(TOPIC, value, device.encode())
    producer.flush()
    producer.close()
    return round(statistics.mean(lengths))


def stock_json(consumer: KafkaConsumer) -> Callable[[], int]:
    def poll() -> int:
        records = [r for part in consumer.poll(timeout_ms=200).values() for r in part]
        return len([json.loads(r.value) for r in records])

    return poll


def stock_msgspec(consumer: KafkaConsumer) -> Callable[[], int]:
    def poll() -> int:
        records = [r for part in consumer.poll(timeout_ms=200).values() for r in part]
        return len([decode_reading(r.value) for r in records])

    return poll


def batches_counted(consumer: KafkaConsumer) -> Callable[[], int]:
    batches = Batches(consumer)
    return lambda: sum(len(batch.readings) for batch in batches.poll(timeout_ms=200))


def batches_msgspec(consumer: KafkaConsumer) -> Callable[[], int]:
    batches = Batches(consumer)

    def poll() -> int:
        return sum(
            len([decode_reading(value or b"") for value in batch.values(batch.readings)])
            for batch in batches.poll(timeout_ms=200)
        )

    return poll


def batches_columns(consumer: KafkaConsumer) -> Callable[[], int]:
    batches, reader = Batches(consumer), ColumnReader(build_catalog([load_spec(SPEC, "meter.yaml")]), TOPIC)

    def poll() -> int:
        count = 0
        for batch in batches.poll(timeout_ms=200):
            places = batch.readings
            columns, left = reader.read(
                batch.buffer, batch.value_starts[places], batch.value_lengths[places], batch.timestamps_ms[places]
            )
            assert not len(left)
            count += sum(len(of_type) for of_type in columns)
        return count

    return poll


CONTENDERS: dict[str, Callable[[KafkaConsumer], Callable[[], int]]] = {
    "kafka-python, json": stock_json,
    "kafka-python, msgspec": stock_msgspec,
    "batches, counted": batches_counted,
    "batches, msgspec one by one": batches_msgspec,
    "batches, columns": batches_columns,
}


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def timed(name: str, settings: Settings, count: int, answer: Any) -> None:
    consumer = kafka.consumer(settings, "bench")
    consumer.assign(kafka.partitions(consumer, [TOPIC]))
    poll = CONTENDERS[name](consumer)
    got = 0
    while got < count // 4:
        got += poll()
    cpu, wall, first = cpu_seconds(), time.perf_counter(), got
    while got < count:
        got += poll()
    answer.put(((got - first) / (time.perf_counter() - wall), (got - first) / (cpu_seconds() - cpu)))
    consumer.close(autocommit=False)
    if got != count:
        raise SystemExit(f"{name}: {got} of {count}")


def contend(name: str, settings: Settings, count: int) -> tuple[float, float]:
    """(readings a second, readings a second of CPU), in a process of its own."""
    context = get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=timed, args=(name, settings, count, answer))
    process.start()
    rate, per_core = answer.get(timeout=600)
    process.join()
    return rate, per_core


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readings", type=int, default=400_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
        stack = Stack(Path(folder) / "home", Ports.free(), ("kafka",), environ={})
        stack.up()
        try:
            changes = {"kafka_user": "admin", "kafka_password": SecretStr(stack.secrets["KAFKA_ADMIN"])}
            measure(stack.settings("operator").model_copy(update=changes), options)
        finally:
            stack.down()


def measure(settings: Settings, options: argparse.Namespace) -> None:
    client = kafka.admin(settings)
    client.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])
    client.close()
    length = write(settings, options.readings)
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
    load = []
    for _ in range(options.runs):
        for name in CONTENDERS:
            rates[name].append(contend(name, settings, options.readings))
            load.append(os.getloadavg()[0])
    print(f"{options.readings:,} readings of {length} bytes, {DEVICES:,} devices, lz4, median of {options.runs};"
          f" {os.cpu_count()} cores, load {min(load):.1f}-{max(load):.1f}")  # fmt: skip
    print(f"{'':32}{'readings/s':>12}{'per core':>12}{'of the first':>14}")
    base = statistics.median(per_core for _, per_core in next(iter(rates.values())))
    for name, found in rates.items():
        rate, per_core = (statistics.median(part) for part in zip(*found, strict=True))
        print(f"{name:32}{rate:12,.0f}{per_core:12,.0f}{per_core / base:14.1f}")


if __name__ == "__main__":
    main()
