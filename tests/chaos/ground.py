"""What the chaos run feeds the alert service, and what it must have said: the evaluator run over the same log."""

import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from connections import kafka
from fleet.catalog import Catalog
from fleet.channels import CONTROL, HEARTBEAT, MARK_HEADER, RETURNED, mark_of
from fleet.columns import ColumnReader
from fleet.control import Control, Device, Resolve, Retire, Spec, encode_control
from fleet.engine import Engine
from fleet.reading import Reading, encode_reading
from fleet.settings import Settings
from fleet.transition import Transition, decode_transition
from streaming.shard import Shard
from tests.integration.logs import records

TYPE, SYSTEM, TOPIC, SITE = "machine", "chaos", "readings.chaos", "hall"
RULES = ("hot", "hot_for_long", "often_hot", "average", "leap", "by_level", "silent", "nervous")


class Feed:
    """Readings, some of which rules pass over, heartbeats and control records into the topic, until it is ended. The
    seed decides what is sent, not when: the log is the truth, whatever came to be in it."""

    def __init__(self, settings: Settings, spec_text: str, seed: int, devices: int = 60, rate: float = 400.0):
        self.sent = 0
        self._settings, self._text, self._devices, self._rate = settings, spec_text, devices, rate
        self._chance = random.Random(seed)
        self._revision = 0
        self._end = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._guarded, name="feed", daemon=True)
        self._thread.start()

    def end(self) -> int:
        self._end.set()
        self._thread.join(120)
        assert not self._thread.is_alive(), "the feed does not end"
        if self._failure is not None:
            raise self._failure
        return self.sent

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self._failure = error

    def _run(self) -> None:
        producer = kafka.producer(self._settings, "chaos-feed")
        try:
            partitions = sorted(producer.partitions_for(TOPIC))
            for partition in partitions:
                record = Spec(revision=1, at=_now_ms(), type=TYPE, version=1, text=self._text)
                self._control(producer, record, partition=partition)
            self._revision = 1
            heat = {f"m{n}": 50.0 for n in range(self._devices)}
            beat = begun = time.monotonic()
            while not self._end.is_set():
                now = time.monotonic()
                if now >= beat:
                    beat += 0.5
                    for partition in partitions:
                        producer.send(TOPIC, b'{"at":0}', partition=partition, headers=[(MARK_HEADER, HEARTBEAT)])
                while self.sent < (now - begun) * self._rate:
                    self._one(producer, heat)
                self._end.wait(0.02)
            for _ in range(8):  # what is still pending comes due
                for partition in partitions:
                    producer.send(TOPIC, b'{"at":0}', partition=partition, headers=[(MARK_HEADER, HEARTBEAT)])
                producer.flush(60)
                time.sleep(0.5)
        finally:
            kafka.close(producer, 60)

    def _one(self, producer: Any, heat: dict[str, float]) -> None:
        chance = self._chance
        self.sent += 1
        device = f"m{chance.randrange(self._devices)}"
        roll = chance.random()
        if roll < 0.002:
            self._revision += 1
            common: dict[str, Any] = {"revision": self._revision, "at": _now_ms(), "type": TYPE, "device": device}
            what: Control = chance.choice([
                Resolve(**common, rule=chance.choice(RULES), by="chaos"),
                Retire(**common),
                Device(**common, site=SITE, registered_at=_now_ms()),
            ])  # fmt: skip
            self._control(producer, what, key=device.encode())
            return
        heat[device] = min(120.0, max(0.0, heat[device] + chance.uniform(-25, 25)))
        values: dict[str, float | None] = {"heat": None if roll < 0.02 else round(heat[device], 1)}
        if roll > 0.3:
            values["speed"] = chance.random()
        late = chance.expovariate(1.0) * 1e6 if roll > 0.95 else 0.0
        at_us = (time.time_ns() // 1_000_000) * 1000 - int(late)
        value = encode_reading(Reading(device, TYPE, SITE, at_us, values, self.sent if roll < 0.5 else None))
        headers = [(MARK_HEADER, RETURNED)] if 0.02 < roll < 0.05 else []  # as an old row of a file
        for _ in range(2 if roll > 0.99 else 1):
            producer.send(TOPIC, value, device.encode(), headers)

    def _control(self, producer: Any, record: Control, **where: Any) -> None:
        producer.send(TOPIC, encode_control(record), headers=[(MARK_HEADER, CONTROL)], **where)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def log_of(settings: Settings, topic: str) -> dict[int, list[Any]]:
    """Every committed record of each partition, from the beginning to the end that it has now."""
    found: dict[int, list[Any]] = defaultdict(list)
    for record in records(settings, topic, isolation_level="read_committed"):
        found[record.partition].append(record)
    return found


def expected(log: dict[int, list[Any]]) -> dict[str, list[Transition]]:
    """By device, what the evaluator says of the log without any service."""
    said: dict[str, list[Transition]] = defaultdict(list)
    for partition, of_partition in log.items():
        shard = Shard(Engine(partition, []), 0, 0, ColumnReader(Catalog({}), TOPIC))
        for record in of_partition:  # through the scalar form: the service's is the columnar one
            mark = mark_of(record.headers)
            for transition in shard.take_one(record.offset, record.timestamp, mark, record.value, 0):
                said[transition.device].append(transition)
    return said


def published(log: dict[int, list[Any]]) -> dict[str, list[Transition]]:
    """By device, what stands on alerts.transitions."""
    said: dict[str, list[Transition]] = defaultdict(list)
    for of_partition in log.values():
        for record in of_partition:
            transition = decode_transition(record.value)
            if transition.system == SYSTEM:
                said[transition.device].append(transition)
    return said


def comparable(transitions: Iterable[Transition]) -> list[dict[str, Any]]:
    """All of each but when it was detected."""
    return [
        {name: getattr(t, name) for name in t.__struct_fields__ if name != "detected_at_us"} for t in transitions
    ]  # fmt: skip
