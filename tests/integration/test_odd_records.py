"""A record whose header has a name that is no text, which kafka-python's own parser cannot read past: everybody who
reads the log goes on, and takes the record for what its bytes say."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kafka import TopicPartition
from kafka.errors import CorruptRecordError
from pyarrow import parquet

from connections import kafka
from connections.lake import Lake
from connections.warehouse import Warehouse
from fleet.reading import Reading, encode_reading
from fleet.settings import Settings
from tests.integration.processes import Process, wait_for

pytestmark = pytest.mark.stack

SITE = "odd-header"
JUNK = b"\xff junk with an odd header"


class NoText(str):
    """A name that is sent as other bytes than it says."""

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe"


def test_landing_and_live_go_on(settings_for: Callable[[str], Settings], tmp_path: Path) -> None:
    lake, warehouse = Lake(f"file://{tmp_path}/lake"), Warehouse.of(settings_for("operator"))
    producer = kafka.producer(settings_for("simulator"), "tests")
    now_us, odd = time.time_ns() // 1000, [(NoText("odd"), b"1")]
    for n in range(30):
        reading = encode_reading(Reading("1", "weather_station", SITE, now_us, {"humidity": float(n)}, n))
        producer.send("sensor", reading, b"1", headers=odd if n % 10 == 5 else [])
    junk = producer.send("sensor", JUNK, b"1", headers=odd).get(20)
    producer.close(5)
    assert kafkas_own_parser_fails(settings_for("operator"), TopicPartition("sensor", junk.partition), junk.offset)
    changes = {"WEIR_LAKE_URI": lake.uri, "WEIR_LANDING_MAX_SECONDS": 0.3}
    landing = Process("landing", settings_for("landing"), tmp_path / "landing.log", **changes)
    live = Process("live", settings_for("live"), tmp_path / "live.log")

    def landed_to() -> int:
        last = lake.last_manifest("sensor", junk.partition)
        return last.last_offset if last else -1

    with landing.start(), live.start():
        query = "SELECT DISTINCT seq FROM readings WHERE site = :site ORDER BY seq"
        wait_for(lambda: len(warehouse.rows(query, site=SITE)) == 30, 30, live.log.read_text)
        wait_for(lambda: landed_to() >= junk.offset, 30, landing.log.read_text)
        assert landing.stop() == live.stop() == 0
    warehouse.close()
    files = [f.path for m in lake.manifests("sensor", junk.partition) for f in m.files]
    rows = [row for path in files for row in parquet.read_table(lake.path(path), partitioning=None).to_pylist()]
    assert sorted(row["seq"] for row in rows if row.get("site") == SITE) == list(range(30))
    (letter,) = [row for row in rows if row.get("payload") == JUNK]
    assert (letter["reason"], letter["source_offset"]) == ("unreadable", junk.offset)


def kafkas_own_parser_fails(settings: Settings, place: TopicPartition, offset: int) -> bool:
    consumer = kafka.consumer(settings, "tests")
    try:
        consumer.assign([place])
        consumer.seek(place, offset)
        with pytest.raises(CorruptRecordError):
            for _ in range(100):
                consumer.poll(timeout_ms=200)
        return True
    finally:
        consumer.close(autocommit=False)
