"""Kafka → live rollups by Structured Streaming: killed, cut off from its servers, with a spec that changes meanwhile.
The table equals what the batch's kernel makes of the same log."""

import json
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import SecretStr

from connections import kafka
from connections.lake import arrow_schema
from connections.spark import session
from connections.warehouse import Warehouse
from etl import kernel
from etl.derive import metrics
from etl.live_frames import readings
from fleet.catalog import Catalog, load_catalog
from fleet.channels import CONTROL, HEARTBEAT, MARK_HEADER, RETURNED, is_reading, mark_of
from fleet.contract import Intake
from fleet.lake_layout import columns
from fleet.reading import Reading, encode_reading, to_datetime
from fleet.settings import Settings
from stack.provision import provision_kafka
from stack.stack import Stack
from tests.integration.logs import records
from tests.integration.processes import Process, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

SYSTEM, TYPE, TOPIC = "streamed", "stream_station", "readings.streamed"
SPEC = """\
type: stream_station
version: {version}
system: streamed
cadence: 1s
partitions: 2
metrics:
  temperature: {{unit: degC, range: [-40, 60], outside: quarantine}}
  humidity: {{unit: percent, range: [0, 100]}}
{more}
examples:
  good: [{{payload: {{device_id: s1, event_time: 1732985789000, values: {{humidity: 9}}}}, values: {{humidity: 9}}}}]
  bad: [{{payload: {{device_id: s1, event_time: 1732985789000, values: {{humidity: high}}}}, reason: wrong_type}}]
"""
MORE = "  pressure: {unit: hectopascal, range: [0, 2000], outside: fail}"
DEVICES = ("s1", "s2", "s3", "s4")
MINUTE_US, SECOND_US = 60_000_000, 1_000_000
TRIGGER_SECONDS = 0.5


@pytest.fixture(scope="module")
def types(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streamed") / "types"
    folder.mkdir()
    (folder / f"{TYPE}.yaml").write_text(SPEC.format(version=1, more=""))
    provision_kafka(f"127.0.0.1:{stack.ports.kafka}", stack.secrets, load_catalog(folder))
    return folder


@pytest.fixture
def catalog(types: Path) -> Catalog:
    return load_catalog(types)


@pytest.fixture
def warehouse(settings_for: Callable[[str], Settings]) -> Iterator[Warehouse]:
    found = Warehouse.of(settings_for("operator"))
    yield found
    found.close()


class Writer:
    """One reading a second of each device, with all that befalls readings; `second` is how far they are."""

    def __init__(self, settings: Settings, begin_us: int):
        self.second, self.unreadable = 0, 0
        self._begin_us = begin_us
        self._chance = random.Random(7)
        self._producer = kafka.producer(settings, "tests-writer")

    def write(self, seconds: int, version: int = 1) -> None:
        for _ in range(seconds):
            for device in DEVICES:
                self._one(device, version)
            for n in range(2):  # every partition has them
                self._producer.send(TOPIC, b"{}", f"{n}".encode(), headers=[(MARK_HEADER, (HEARTBEAT, CONTROL)[n])])
            self._producer.flush(20)
            self.second += 1
            assert self._begin_us + self.second * SECOND_US < time.time_ns() // 1000, "the readings have reached now"

    def _one(self, device: str, version: int) -> None:
        chance, values = self._chance, dict[str, float | None]()
        for name in ("temperature", "humidity") if version == 1 else ("temperature", "humidity", "pressure"):
            if chance.random() < 0.9:
                values[name] = chance.choice([None, 99.0, -0.0, *(round(chance.uniform(10, 120), 2) for _ in range(9))])
        values = values or {"humidity": 50.0}
        seq = self.second if device != "s4" else None
        back_us = chance.choice([0, 0, 0, 3]) * SECOND_US  # out of order, and never late
        event_us = self._begin_us + self.second * SECOND_US - back_us + chance.randrange(1000)
        reading = Reading(device, TYPE, "roof", event_us, values, seq, version)
        self.send(reading, *([] if chance.random() < 0.95 else [(MARK_HEADER, RETURNED)]))
        if chance.random() < 0.1:
            self.send(reading)
        if chance.random() < 0.05:
            self.send_raw(
                chance.choice([b"\xff junk", b"{}", encode_reading(reading).replace(b"roof", b"a roof")]), device
            )

    def send(self, reading: Reading, *headers: tuple[str, bytes]) -> None:
        self._producer.send(TOPIC, encode_reading(reading), reading.device_id.encode(), headers=list(headers))

    def send_raw(self, value: bytes, device: str) -> None:
        self.unreadable += 1
        self._producer.send(TOPIC, value, device.encode())

    def flush(self) -> None:
        self._producer.flush(20)

    def close(self) -> None:
        self._producer.flush(20)
        self._producer.close(5)


def by_the_kernel(settings: Settings, catalog: Catalog, without: set[str]) -> dict[tuple[object, ...], dict[str, Any]]:
    """(device, metric, bucket) → figures: what the batch makes of all readings in the log."""
    spec, intake = catalog.type(TYPE), Intake(catalog)
    rows = []
    for record in records(settings, TOPIC):
        reading = intake.read_record(TOPIC, record.value or b"", record.timestamp)
        if is_reading(mark_of(record.headers)) and isinstance(reading, Reading) and reading.device_id not in without:
            rows.append(
                {
                    "device_id": reading.device_id, "site": reading.site, "event_time": reading.event_time,
                    "seq": reading.seq, "carried": list(reading.values), **reading.values, "kafka_topic": TOPIC,
                    "kafka_partition": record.partition, "kafka_offset": record.offset,
                    "kafka_timestamp": to_datetime(record.timestamp * 1000), "spec_version": reading.version,
                }
            )  # fmt: skip
    schema = arrow_schema(columns(spec)).append(pa.field("spec_version", pa.int32()))
    found = kernel.derive(pa.Table.from_pylist(rows, schema), metrics(spec), spec.folder_grain)["rollups"]
    return {(r["device_id"], r["metric"], r["bucket"]): r for r in found.to_pylist() if r["grain"] == "1m"}


def in_table(warehouse: Warehouse) -> dict[tuple[object, ...], dict[str, Any]]:
    rows = warehouse.rows(
        "SELECT * FROM rollups_live WHERE system = :system AND type = :type", system=SYSTEM, type=TYPE
    )
    return {(r["device_id"], r["metric"], r["bucket"]): r for r in rows}


def progress(warehouse: Warehouse) -> dict[str, Any]:
    return next(
        iter(warehouse.rows("SELECT * FROM stream_progress WHERE system = :system", system=SYSTEM)), {"batch": -1}
    )


def test_killed_cut_off_and_with_a_new_spec_it_equals_the_batch(
    settings_for: Callable[[str], Settings], stack: Stack, types: Path, warehouse: Warehouse, tmp_path: Path
) -> None:
    now_us = time.time_ns() // 1000
    writer = Writer(settings_for("simulator"), now_us - now_us % MINUTE_US - 45 * MINUTE_US)
    job = Process(
        "stream", settings_for("stream"), tmp_path / "stream.log",
        command=("etl", "stream", "--system", SYSTEM, "--trigger-seconds", str(TRIGGER_SECONDS)),
        WEIR_TYPES_DIR=types, WEIR_HOME=tmp_path,
    )  # fmt: skip
    with job:
        job.start()
        wait_for(lambda: [writer.write(3), progress(warehouse)["batch"] > 1][1], 60, job.log.read_text, every=0.3)
        job.kill()
        writer.write(20)
        job.start().ready(90)
        stack.restart("postgres")
        writer.write(60)
        (types / f"{TYPE}.yaml").write_text(SPEC.format(version=2, more=MORE))
        writer.write(120, version=2)
        catalog = load_catalog(types)
        expected = by_the_kernel(settings_for("operator"), catalog, set())
        total = sum(row["count"] for row in expected.values())
        wait_for(lambda: sum(r["count"] for r in in_table(warehouse).values()) >= total, 60, job.log.read_text)
        stack.restart("kafka")

        # Two that say what the watermark does: one device is late, another's clock is ahead and makes nobody late.
        late_us = now_us - 50 * MINUTE_US
        for n in range(3):
            writer.send(Reading("sloth", TYPE, "roof", late_us + n, {"humidity": 50.0}, n, 2))
        writer.flush()
        wait_for(lambda: progress(warehouse)["late"] >= 3, 60, job.log.read_text)
        ahead_us = time.time_ns() // 1000 + 200 * SECOND_US
        writer.send(Reading("hare", TYPE, "roof", ahead_us, {"humidity": 50.0}, 1, 2))
        writer.flush()
        wait_for(lambda: ("hare", "humidity") in {k[:2] for k in in_table(warehouse)}, 60, job.log.read_text)
        writer.send(Reading("s1", TYPE, "roof", time.time_ns() // 1000, {"humidity": 50.0}, 10**6, 2))
        writer.close()
        expected = by_the_kernel(settings_for("operator"), catalog, {"sloth"})
        wait_for(lambda: set(in_table(warehouse)) >= set(expected), 60, job.log.read_text)
        assert job.stop() == 0
    found = in_table(warehouse)
    assert set(found) == set(expected)
    assert {key[1] for key in found} == {"temperature", "humidity", "pressure"}
    for key, row in expected.items():
        exact = ("count", "min", "max", "last", "site")
        assert {name: found[key][name] for name in exact} == {name: row[name] for name in exact}, key
        for name in ("mean", "stddev"):
            known = None if row[name] is None else pytest.approx(row[name], rel=1e-9, abs=1e-9)
            assert found[key][name] == known, (key, name)
    said = progress(warehouse)
    assert (said["late"], said["lost"]) == (3, 0)
    assert 0 < said["unreadable"] <= writer.unreadable  # a kill may lose counts, and adds none
    assert said["duplicate"] > 0


NOW_MS = int(datetime(2026, 11, 22, 3, tzinfo=UTC).timestamp() * 1000)
GOOD = {
    "device_id": "s1",
    "device_type": TYPE,
    "site": "roof",
    "event_time": NOW_MS,
    "values": {"humidity": 9.5},
    "version": 1,
}
ODD: dict[str, Any] = {
    "good": GOOD,
    "a whole number": GOOD | {"values": {"humidity": 9}},
    "an exponent": json.dumps(GOOD).replace("9.5", "9.5e0"),
    "many digits": json.dumps(GOOD).replace("9.5", "9.123456789012345678"),
    "too large": json.dumps(GOOD).replace("9.5", "1e400"),
    "a null value": GOOD | {"values": {"humidity": None}},
    "microseconds": GOOD | {"event_time": NOW_MS + 0.001},
    "half a microsecond": GOOD | {"event_time": NOW_MS + 0.0625},
    "seq": GOOD | {"seq": 7},
    "seq null": GOOD | {"seq": None},
    "seq a fraction": GOOD | {"seq": 7.5},
    "seq too large": GOOD | {"seq": 2**63},
    "seq a text": GOOD | {"seq": "7"},
    "a text for a number": GOOD | {"values": {"humidity": "9.5"}},
    "NaN as a text": GOOD | {"values": {"humidity": "NaN"}},
    "NaN": json.dumps(GOOD).replace("9.5", "NaN"),
    "true for a number": GOOD | {"values": {"humidity": True}},
    "no values": GOOD | {"values": {}},
    "values a list": GOOD | {"values": [1]},
    "values null": GOOD | {"values": None},
    "an unknown metric": GOOD | {"values": {"humidity": 1, "pH": 7}},
    "an unknown type": GOOD | {"device_type": "other"},
    "a newer version": GOOD | {"version": 99},
    "version 0": GOOD | {"version": 0},
    "version a fraction": GOOD | {"version": 1.5},
    "an unknown key": GOOD | {"extra": 1},
    "no site": {k: v for k, v in GOOD.items() if k != "site"},
    "site null": GOOD | {"site": None},
    "site a number": GOOD | {"site": 5},
    "a site with a space": GOOD | {"site": "a b"},
    "a site with a line's end": GOOD | {"site": "roof\n"},
    "an id that is a number": GOOD | {"device_id": 5},
    "an id that is empty": GOOD | {"device_id": ""},
    "before 2000": GOOD | {"event_time": 1000},
    "beyond 9999": GOOD | {"event_time": 1e15},
    "ahead": GOOD | {"event_time": NOW_MS + 300_000},
    "too far ahead": GOOD | {"event_time": NOW_MS + 300_001},
    "time a text": GOOD | {"event_time": "2026-11-22T03:00:00Z"},
    "a list": [GOOD],
    "null": None,
    "a number": 5,
    "half of it": json.dumps(GOOD)[:-5],
    "two": json.dumps(GOOD) * 2,
    "something after it": json.dumps(GOOD) + " x",
    "blanks around": f" {json.dumps(GOOD)} \n",
    "empty": b"",
    "not UTF-8": json.dumps(GOOD).encode().replace(b"roof", b"r\xff"),
    "UTF-16": json.dumps(GOOD).encode("utf-16"),
    "deep": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "a zero byte": GOOD | {"site": "ro\0of"},
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
}  # fmt: skip


def test_one_opinion_of_every_record(settings_for: Callable[[str], Settings], tmp_path: Path) -> None:
    """Spark's expressions and the contract's code."""
    (tmp_path / f"{TYPE}.yaml").write_text(SPEC.format(version=1, more=""))
    catalog = load_catalog(tmp_path)
    payloads = [
        v if isinstance(v, bytes) else (v if isinstance(v, str) else json.dumps(v)).encode() for v in ODD.values()
    ]
    marks = {"none": [], "reading": [(MARK_HEADER, b"reading")], "returned": [("a", b"b"), (MARK_HEADER, RETURNED)],
             "heartbeat": [(MARK_HEADER, HEARTBEAT)], "empty": [(MARK_HEADER, None)]}  # fmt: skip
    at = datetime.fromtimestamp(NOW_MS / 1000, UTC)
    rows = [(value, at, 0, n, list[tuple[str, bytes | None]]()) for n, value in enumerate(payloads)]
    rows += [(payloads[0], at, 1, n, headers) for n, headers in enumerate(marks.values())]
    schema = (
        "value binary, timestamp timestamp, partition int, offset long, headers array<struct<key string, value binary>>"
    )
    from pyspark.sql import functions as F

    with session(settings_for("batch").model_copy(update={"spark_remote": SecretStr(""), "home": tmp_path})) as spark:
        table = readings(spark.createDataFrame(rows, schema), catalog.system(SYSTEM))
        for name in ("event_time", "clock"):  # of what is none it may be a time that Python has not
            table = table.withColumn(name, F.when(F.col("kind") == "reading", F.col(name)))
        found = {(row["partition"], row["offset"]): row for row in table.collect()}
    intake, names = Intake(catalog), [*ODD]
    for value, _, place, offset, headers in rows:
        row, name = found[place, offset], names[offset] if place == 0 else [*marks][offset]
        if not is_reading(mark_of(headers)):
            assert row["kind"] == "mark", name
            continue
        reading = intake.read_record(TOPIC, value, NOW_MS)
        if not isinstance(reading, Reading):
            assert row["kind"] == "unreadable", name
            continue
        assert row["kind"] == "reading", name
        told = (row["device_id"], row["site"], row["values"], row["version"], row["event_time"].astimezone(UTC))
        assert told == (reading.device_id, reading.site, reading.values, reading.version, reading.event_time), name
        assert row["event_time"] - row["clock"] == max(timedelta(0), reading.event_time - at), name
