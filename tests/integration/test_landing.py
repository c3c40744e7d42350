"""Kafka → the lake, with the service killed at random moments: manifests hold every offset once."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from connections import kafka
from connections.lake import Lake
from fleet.channels import HEARTBEAT, MARK_HEADER, RETURNED, mark_of
from fleet.reading import Reading, decode_reading, encode_reading
from fleet.settings import Settings
from tests.integration.logs import records
from tests.integration.processes import Process, wait_for

pytestmark = pytest.mark.stack

SettingsFor = Callable[[str], Settings]
TOPICS = ("sensor", "readings.occupancy", "readings.rejected")
KILLS = 6


class Writer:
    """Readings, heartbeats and garbage into the weather topic, about 300 a second, until told to stop."""

    def __init__(self, settings: Settings, site: str):
        self.sent = 0
        self._stop = threading.Event()
        self._producer = kafka.producer(settings, "tests-writer")

        def run() -> None:
            while not self._stop.wait(0.01):
                for _ in range(3):
                    self._send(site)

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def _send(self, site: str) -> None:
        n, now_us = self.sent, time.time_ns() // 1000
        key = f"{n % 20}".encode()
        if n % 97 == 0:
            self._producer.send("sensor", b"\xff junk", key)
        elif n % 89 == 0:
            self._producer.send("sensor", b"{}", key, headers=[(MARK_HEADER, HEARTBEAT)])
        else:
            late_us = 3_600_000_000 * (n % 50 == 0)
            reading = Reading(key.decode(), "weather_station", site, now_us - late_us, {"humidity": n / 7}, n)
            self._producer.send("sensor", encode_reading(reading), key)
        self.sent += 1

    def end(self) -> int:
        self._stop.set()
        self._thread.join(10)
        self._producer.flush(20)
        self._producer.close(5)
        return self.sent


def ends(settings: Settings) -> dict[tuple[str, int], int]:
    consumer = kafka.consumer(settings, "tests")
    try:
        return {(p.topic, p.partition): end for p, end in kafka.end_offsets(consumer, TOPICS).items() if end}
    finally:
        consumer.close(autocommit=False)


def landed(lake: Lake) -> dict[tuple[str, int], int]:
    """Of the topics that the test writes: landing itself reports on another."""
    places = [place for place in lake.landed_partitions() if place[0] in TOPICS]
    return {place: last.last_offset + 1 for place in places if (last := lake.last_manifest(*place))}


def test_kill_9_at_random_moments(settings_for: SettingsFor, tmp_path: Path) -> None:
    lake, operator = Lake(f"file://{tmp_path}/lake"), settings_for("operator")
    writer = Writer(settings_for("simulator"), "landing-kills")
    chance = random.Random(4)
    landing = Process(
        "landing", settings_for("landing"), tmp_path / "landing.log",
        WEIR_LAKE_URI=lake.uri, WEIR_LANDING_MAX_ROWS=100, WEIR_LANDING_MAX_SECONDS=0.3,
    )  # fmt: skip
    with landing:
        for _ in range(KILLS):
            before = sum(landed(lake).values())
            landing.start()
            wait_for(lambda before=before: sum(landed(lake).values()) > before, 30, landing.log.read_text)
            time.sleep(chance.uniform(0, 0.6))  # flushes go on all the while: any moment of one may be hit
            landing.kill()
        writer.end()
        landing.start()
        wait_for(lambda: caught_up(lake, operator), 60, lambda: f"{landed(lake)} of {ends(operator)}", every=0.5)
        assert landing.stop() == 0
    check(lake, operator, ends(operator))


def caught_up(lake: Lake, settings: Settings, topics: Sequence[str] = TOPICS) -> bool:
    """All that makes a row; heartbeats alone wait for some minutes."""
    at = landed(lake)
    return all(at.get((r.topic, r.partition), 0) > r.offset for r in records(settings, *topics) if is_a_row(r))


def is_a_row(record: Any) -> bool:
    """A reading or a dead letter, such as other tests' too, which came back from quarantine or by a file."""
    return mark_of(record.headers) in (None, RETURNED)


def check(lake: Lake, operator: Settings, end: dict[tuple[str, int], int]) -> None:
    """After a clean stop: manifests without gap or overlap up to the log's end, and in their files the log itself."""
    log = {(r.topic, r.partition, r.offset): r for r in records(operator, *TOPICS)}
    assert landed(lake) == end
    in_files: Counter[tuple[str, int, int]] = Counter()
    rows: dict[tuple[str, int, int], dict[str, Any]] = {}
    for place in end:
        manifests = lake.manifests(*place)
        assert manifests[0].first_offset == 0
        for before, after in pairwise(manifests):
            assert after.first_offset == before.last_offset + 1
        for manifest in manifests:
            assert manifest.missing == 0
            for file in manifest.files:
                found = parquet.read_table(BytesIO(lake.read(file.path))).to_pylist()
                assert len(found) == file.rows
                for row in found:
                    at = (row["kafka_topic"], row["kafka_partition"], row["kafka_offset"])
                    in_files[at] += 1
                    rows[at] = row
        heartbeats = sum(m.heartbeats for m in manifests)
        assert heartbeats == sum(mark_of(r.headers) == HEARTBEAT for k, r in log.items() if k[:2] == place)
    assert in_files == Counter(at for at, record in log.items() if is_a_row(record))
    for at, row in rows.items():
        if "payload" in row and at[0] == "sensor":
            assert (row["reason"], row["payload"]) == ("unreadable", log[at].value)
        elif at[0] == "sensor":
            reading = decode_reading(log[at].value)
            assert {m: row[m] for m in row["carried"]} == reading.values
            assert (row["device_id"], row["seq"], row["event_time"]) == (
                reading.device_id, reading.seq, reading.event_time,
            )  # fmt: skip


def test_two_workers_share_the_partitions(settings_for: SettingsFor, tmp_path: Path) -> None:
    """A second worker takes over some of them in mid-stream, then dies: still each offset once."""
    lake, operator = Lake(f"file://{tmp_path}/lake"), settings_for("operator")
    changes = {"WEIR_LAKE_URI": lake.uri, "WEIR_LANDING_MAX_ROWS": 200, "WEIR_LANDING_MAX_SECONDS": 0.5}
    first = Process("landing", settings_for("landing"), tmp_path / "1.log", WEIR_SERVICE_INSTANCE="one", **changes)
    second = Process("landing", settings_for("landing"), tmp_path / "2.log", WEIR_SERVICE_INSTANCE="two", **changes)
    with first.start().ready(), second:
        writer = Writer(settings_for("simulator"), "landing-pair")
        second.start()
        wait_for(lambda: "flush partition" in second.log.read_text(), 40, lambda: second.log.read_text())
        second.kill()
        writer.end()
        wait_for(lambda: caught_up(lake, operator), 60, lambda: f"{landed(lake)} of {ends(operator)}", every=0.5)
        assert first.stop() == 0
    check(lake, operator, ends(operator))
