"""A backtest says of what landing made of a log what the live shard said of the log itself."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connections.lake import Lake
from connections.record_batch import batch_of_records
from etl.backtest import Past, backtest, types_for
from etl.window import Window
from fleet.backtest import Episode, episodes
from fleet.catalog import Catalog, build_catalog
from fleet.channels import HEARTBEAT, MARK_HEADER, RETURNED
from fleet.columns import ColumnReader
from fleet.contract import Intake
from fleet.control import Device
from fleet.engine import Engine
from fleet.reading import Reading, encode_reading
from fleet.spec import DeviceType
from streaming.flush import Buffer
from streaming.landing import flush
from streaming.shard import Shard
from tests.unit.test_landing import Record

T0 = datetime(2026, 11, 22, 3, tzinfo=UTC)
T0_MS = round(T0.timestamp() * 1000)
HOURS = 2
SPEC = DeviceType.model_validate(
    {
        "type": "probe", "version": 1, "system": "weather", "kafka_topic": "sensor", "cadence": "10s",
        "examples": {"good": [{"payload": {}, "values": {}}], "bad": [{"payload": {}, "reason": "wrong_type"}]},
        "metrics": {"temperature": {"unit": "degC", "range": [-40, 60], "outside": "quarantine"}},
        "alerts": [
            {"id": "hot", "when": "temperature > 35", "clear": "temperature < 33", "for": "20s"},
            {"id": "mean", "when": "avg(temperature, 2m) > 31", "keep_firing_for": "30s"},
            {"id": "often", "when": "temperature > 34", "count": "3 of 5"},
            {"id": "silent", "no_data": "2m"},
        ],
    }
)  # fmt: skip
CATALOG = build_catalog([SPEC])


def log(seed: int) -> list[Record]:
    """Ten devices; one comes with its whole first hour an hour late, one is silent now and then, some records come
    twice, some late, some are given back from quarantine or are old rows of files."""
    rng = random.Random(seed)
    due: list[tuple[int, bytes, list[tuple[str, bytes]]]] = []
    for device in range(10):
        heat = 0.0
        for step in range(0, HOURS * 3600, 10):
            heat += rng.gauss(0, 1.5) - heat / 40
            if device == 3 and step % 1500 < 300:
                continue
            event_ms = T0_MS + step * 1000 + rng.randrange(900)
            values = {"temperature": 30 + heat if rng.random() > 0.01 else 99.0}
            seq = step // 10 if device % 2 else None
            value = encode_reading(Reading(str(device), "probe", "roof", event_ms * 1000, values, seq))
            late = 3_600_000 if device == 7 and step < 3600 else rng.choice([50] * 30 + [15_000, 90_000])
            headers = [(MARK_HEADER, RETURNED)] if device == 9 and step % 700 < 60 else []
            due += [(event_ms + late, value, headers)] * (2 if rng.random() < 0.02 else 1)
    beats = range(T0_MS, T0_MS + HOURS * 3_600_000 + 7_200_000, 10_000)
    due += [(at, b"{}", [(MARK_HEADER, HEARTBEAT)]) for at in beats]
    due.sort(key=lambda record: record[0])
    return [Record(offset, value, headers, at) for offset, (at, value, headers) in enumerate(due)]


def said_live(records: list[Record], catalog: Catalog = CATALOG) -> Iterator[Any]:
    shard = Shard(Engine(0, list(catalog)), 0, 0, ColumnReader(catalog, "sensor"))
    for begin in range(0, len(records), 500):
        some = [WithKey(*record) for record in records[begin : begin + 500]]
        yield from shard.take(batch_of_records("sensor", 0, some), 0)


class WithKey(Record):
    key = None


def landed(records: list[Record], folder: Path, catalog: Catalog = CATALOG) -> Lake:
    lake = Lake(f"file://{folder}/lake")
    for begin in range(0, len(records), 700):
        buffer = Buffer("sensor", 0, begin, Intake(catalog))
        for record in records[begin : begin + 700]:
            assert buffer.take(record, 0.0)
        assert flush(lake, buffer)
    return lake


def backtested(records: list[Record], folder: Path, window: Window, warm_up: timedelta) -> list[Episode]:
    past = Past(landed(records, folder), (SPEC,), {})
    return list(backtest(past, SPEC, window, warm_up).episodes)


@pytest.mark.parametrize("seed", range(2))
def test_a_backtest_is_what_was_said_live(tmp_path: Path, seed: int) -> None:
    records = log(seed)
    live = sorted(episodes(said_live(records)), key=lambda e: e.fired_us)
    assert {e.rule for e in live} == {"hot", "mean", "often", "silent"}
    found = backtested(records, tmp_path, Window(T0, T0 + timedelta(hours=HOURS + 2)), timedelta(0))
    assert found == live


def test_a_warm_up_is_as_good_as_the_whole_log(tmp_path: Path) -> None:
    records = log(9)
    window = Window(T0 + timedelta(minutes=90), T0 + timedelta(hours=HOURS + 2))
    live = [e for e in sorted(episodes(said_live(records)), key=lambda e: e.fired_us)
            if e.fired_us >= T0_MS * 1000 + 5_400_000_000]  # fmt: skip
    assert live
    assert backtested(records, tmp_path, window, timedelta(hours=1)) == live


def test_changes_are_told_where_they_are_asked_for(tmp_path: Path) -> None:
    asked = Past(landed(log(5), tmp_path), (SPEC,), {}), SPEC, Window(T0, T0 + timedelta(hours=1)), timedelta(0)
    found = backtest(*asked, True)
    assert len(found.changes) > len(found.episodes) > 0
    assert backtest(*asked).changes == ()


def test_rules_that_are_compared_see_the_same(tmp_path: Path) -> None:
    """Whatever lands between them."""
    records, window = log(5), Window(T0, T0 + timedelta(hours=HOURS + 2))
    lake = landed(records[:2800], tmp_path)
    past = Past(lake, (SPEC,), {})
    first = backtest(past, SPEC, window, timedelta(0))
    buffer = Buffer("sensor", 0, 2800, Intake(CATALOG))
    for record in records[2800:3500]:
        assert buffer.take(record, 0.0)
    assert flush(lake, buffer)
    assert backtest(past, SPEC, window, timedelta(0)) == first
    assert backtest(Past(lake, (SPEC,), {}), SPEC, window, timedelta(0)).readings > first.readings


def test_a_device_is_silent_where_nothing_of_its_partition_landed(tmp_path: Path) -> None:
    lake = landed(log(5), tmp_path)
    landed_before = lake.manifest(lake.manifest_names("sensor", 0)[0])
    days = round(timedelta(days=3).total_seconds() * 1000)
    before = {"first_append_ms": T0_MS - days, "last_append_ms": T0_MS - days, "kafka_partition": 1, "files": []}
    empty = {"rows": 0, "unreadable": 0, "heartbeats": landed_before.offsets, "returned": []}
    lake.commit(msgspec.structs.replace(landed_before, **before, **empty))
    dumb = Device(revision=0, at=T0_MS, type="probe", device="dumb", site="roof", registered_at=T0_MS)
    found = backtest(Past(lake, (SPEC,), {1: [dumb]}), SPEC, Window(T0, T0 + timedelta(hours=1)), timedelta(0))
    assert [e.rule for e in found.episodes if e.device == "dumb"] == ["silent"]


def test_a_rule_that_looks_at_another_type_of_its_site(tmp_path: Path) -> None:
    by_site = {"partition_by": "site", "alerts": []}
    meter = SPEC.model_copy(update={**by_site, "type": "meter"})
    looks = {**SPEC.model_dump(), "partition_by": "site",
             "alerts": [{"id": "both", "when": "temperature > 30 and site_max(meter.temperature) > 33"}]}  # fmt: skip
    probe = DeviceType.model_validate(looks)
    catalog = build_catalog([meter, probe])
    records = [
        record._replace(value=(record.value or b"").replace(b'"probe"', b'"meter"')) if record.offset % 3 else record
        for record in log(7)
    ]
    live = sorted(episodes(said_live(records, catalog)), key=lambda e: e.fired_us)
    assert {e.rule for e in live} == {"both"}
    types = types_for(catalog, probe, probe)
    assert [spec.type for spec in types] == ["probe", "meter"]
    past = Past(landed(records, tmp_path, catalog), types, {})
    found = backtest(past, probe, Window(T0, T0 + timedelta(hours=HOURS + 2)), timedelta(0))
    assert list(found.episodes) == live
