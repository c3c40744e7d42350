"""Landing's bookkeeping: every offset counted once, whatever the records are, and what each failure leaves behind."""

import json
import os
import random
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka import TopicPartition
from pyarrow import parquet

from connections.lake import TEMPORARY, Lake
from etl.lake_index import read_index
from fleet.catalog import load_catalog
from fleet.channels import CONTROL, HEARTBEAT, MARK_HEADER, REJECTED, RETURNED, TRANSITIONS
from fleet.contract import Intake, Reject
from fleet.dead_letter import dead_letter_of_message, encode_dead_letter
from fleet.errors import Unavailable
from fleet.reading import Reading, encode_reading
from fleet.settings import CHECKOUT, Settings
from fleet.transition import Transition, encode_transition
from streaming.flush import Buffer
from streaming.group import resume, seek
from streaming.landing import Landing, flush, write_files
from streaming.sweep import sweep

INTAKE = Intake(load_catalog(CHECKOUT / "fleet" / "types"))
APPEND_MS = 1_732_985_800_000


class Record(NamedTuple):
    """As much of kafka-python's record as landing looks at."""

    offset: int
    value: bytes | None
    headers: list[tuple[str, bytes]] = []
    timestamp: int = APPEND_MS
    topic: str = "sensor"
    partition: int = 0


def reading(seq: int, hour: int = 0, **values: float | None) -> bytes:
    event_time_us = (APPEND_MS + hour * 3_600_000) * 1000 + 250
    return encode_reading(Reading("7", "weather_station", "field", event_time_us, values or {"humidity": 50.0}, seq))


def buffer(topic: str = "sensor", first: int = 0) -> Buffer:
    return Buffer(topic, 0, first, INTAKE)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(f"file://{tmp_path}/lake")


def rows(lake: Lake, paths: list[str]) -> list[dict[str, Any]]:
    found = []
    for path in paths:
        found += parquet.read_table(lake.path(path), partitioning=None).to_pylist()
    return sorted(found, key=lambda row: row["kafka_offset"])


kinds = st.sampled_from(
    ["reading", "late", "returned", "heartbeat", "control", "strange mark", "garbage", "null", "gap", "again"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(kinds, min_size=1, max_size=60))
def test_whatever_comes_the_manifest_adds_up(kinds: list[str]) -> None:
    held, offset, expected = buffer(first=10), 10, 0
    for kind in kinds:
        if kind == "gap":
            offset += 3
            continue
        if kind == "again" and expected:
            held.take(Record(expected - 1, reading(0)), 0.0)
            continue
        marks = {"heartbeat": HEARTBEAT, "control": CONTROL, "returned": RETURNED, "strange mark": b"?"}
        headers = [(MARK_HEADER, marks[kind])] if kind in marks else []
        value = {"garbage": b"\xff{", "null": None, "late": reading(offset, -30)}.get(kind, reading(offset))
        held.take(Record(offset, value, headers), 0.0)
        offset += 1
        expected = offset
    if not expected:
        return
    files = list(held.files())
    manifest = held.manifest([])
    assert (manifest.first_offset, manifest.last_offset) == (10, expected - 1)
    counted = manifest.rows + manifest.unreadable + manifest.heartbeats + manifest.controls + manifest.missing
    assert counted == manifest.offsets
    assert manifest.unreadable == sum(kind in ("strange mark", "garbage", "null") for kind in kinds)
    cells = [offset for file in files for offset in file.cells["kafka_offset"]]
    assert len(cells) == len(set(cells)) == manifest.rows + manifest.unreadable
    for file in files:
        assert {len(column) for column in file.cells.values()} == {len(file.cells["kafka_offset"])}
        assert set(file.cells) == set(file.columns)


def test_a_flush_writes_what_came(lake: Lake) -> None:
    held = buffer()
    records = [
        Record(0, reading(1, temperature=20.5, humidity=None)),
        Record(1, b"{}", [(MARK_HEADER, HEARTBEAT)]),
        Record(2, b"\xffnot json"),
        Record(3, reading(2, hour=-2)),
    ]
    for record in records:
        held.take(record, 0.0)
    assert flush(lake, held)
    manifest = lake.last_manifest("sensor", 0)
    assert manifest is not None
    assert [(f.path, f.partition, f.rows) for f in manifest.files] == [
        ("rejected/date=2024-11-30/hour=16/sensor-0-0-3.parquet", "rejected/rejected/2024-11-30T16", 1),
        (
            "raw/system=weather/type=weather_station/v=1/date=2024-11-30/hour=14/sensor-0-0-3.parquet",
            "weather/weather_station/2024-11-30T14", 1,
        ),
        (
            "raw/system=weather/type=weather_station/v=1/date=2024-11-30/hour=16/sensor-0-0-3.parquet",
            "weather/weather_station/2024-11-30T16", 1,
        ),
    ]  # fmt: skip
    (unreadable,) = rows(lake, [manifest.files[0].path])
    assert (unreadable["reason"], unreadable["payload"]) == ("unreadable", b"\xffnot json")
    assert (unreadable["source_topic"], unreadable["source_partition"], unreadable["source_offset"]) == ("sensor", 0, 2)
    (row,) = rows(lake, [manifest.files[2].path])
    assert (row["temperature"], row["humidity"], row["rainfall"]) == (20.5, None, None)
    assert row["carried"] == ["temperature", "humidity"]
    assert (row["seq"], row["kafka_offset"], row["event_time"].microsecond) == (1, 0, 250)


def test_a_manifest_says_what_rules_pass_over(lake: Lake) -> None:
    """What came back from quarantine and old rows of files, as stretches of offsets."""
    held, back = buffer(), [(MARK_HEADER, RETURNED)]
    for offset, headers in enumerate([back, back, [], back, [(MARK_HEADER, HEARTBEAT)], back, back]):
        held.take(Record(offset, reading(offset), headers), 0.0)
    assert flush(lake, held)
    manifest = lake.last_manifest("sensor", 0)
    assert manifest is not None
    assert manifest.returned == [(0, 1), (3, 3), (5, 6)]
    assert manifest.passed_over == {0, 1, 3, 5, 6}


LETTER = {"reason": "r", "detail": "d", "system": "s", "device_type": "t", "version": 1, "received_at": 1}
BROKEN_LETTERS = {
    "no JSON": b"\xff",
    "no base64": json.dumps({**LETTER, "payload_base64": "a"}).encode(),
    "huge version": json.dumps({**LETTER, "payload_base64": "", "version": 2**32}).encode(),
    "huge time": json.dumps({**LETTER, "payload_base64": "", "received_at": 2**63}).encode(),
}


def test_dead_letters_land_and_broken_ones_are_unreadable(lake: Lake) -> None:
    held = buffer(REJECTED)
    good = dead_letter_of_message(Reject("wrong_type", "d", "weather", "weather_station", 1), "dt/x", b"\x00", 1_000)
    values = [encode_dead_letter(good), *BROKEN_LETTERS.values()]
    for offset, value in enumerate(values):
        held.take(Record(offset, value, topic=REJECTED), 0.0)
    assert flush(lake, held)
    manifest = lake.last_manifest(REJECTED, 0)
    assert manifest is not None and (manifest.rows, manifest.unreadable) == (1, len(BROKEN_LETTERS))
    found = rows(lake, [f.path for f in manifest.files])
    assert [row["reason"] for row in found] == ["wrong_type"] + ["unreadable"] * len(BROKEN_LETTERS)
    assert [row["payload"] for row in found] == [b"\x00", *BROKEN_LETTERS.values()]


def transition(n: int, **changes: Any) -> bytes:
    said: dict[str, Any] = {
        "transition_id": f"a{n}-2", "alert_id": f"a{n}", "rule": "high", "device": "7", "site": "roof",
        "to": "resolved",
        "type": "weather_station", "system": "weather", "severity": "warning", "reason": "recovered",
        "values": {"temperature": 35.5, "humidity": None}, "spec_version": 3, "flapping": False, "title": "hot",
        "annotations": {"why": "sun"}, "labels": {}, "event_time_us": APPEND_MS * 1000 + 250, "partition": 2,
        "detected_at_us": APPEND_MS * 1000, "since_us": APPEND_MS * 1000, "starts_at_us": APPEND_MS * 1000, "offset": n,
    }  # fmt: skip
    return encode_transition(Transition(**(said | changes)))


NO_TRANSITIONS = {
    "no JSON": b"\xff",
    "a reading": reading(1),
    "a time that is none": transition(1, event_time_us=2**62),
    "no number": transition(1, transition_id="a1"),
    "a number beyond its column": transition(1, transition_id=f"a1-{2**31}"),
    "a version beyond its column": transition(1, spec_version=2**31),
}


def test_transitions_land_by_system_and_day_and_what_is_none_is_unreadable(lake: Lake) -> None:
    held = buffer(TRANSITIONS)
    values = [
        transition(0), transition(1, system="occupancy"),
        transition(2, event_time_us=APPEND_MS * 1000 - 86_400_000_000), *NO_TRANSITIONS.values(),
    ]  # fmt: skip
    for n, value in enumerate(values):
        held.take(Record(2 * n, value, topic=TRANSITIONS), 0.0)  # after each, the mark of its transaction
    assert flush(lake, held)
    manifest = lake.last_manifest(TRANSITIONS, 0)
    assert manifest is not None
    assert (manifest.rows, manifest.unreadable, manifest.unseen, manifest.missing) == (3, len(NO_TRANSITIONS), 8, 0)
    landed = [f.path for f in manifest.files if f.path.startswith("alerts/")]
    assert landed == [
        "alerts/system=occupancy/date=2024-11-30/alerts.transitions-0-0-16.parquet",
        "alerts/system=weather/date=2024-11-29/alerts.transitions-0-0-16.parquet",
        "alerts/system=weather/date=2024-11-30/alerts.transitions-0-0-16.parquet",
    ]
    (row,) = rows(lake, landed[2:])
    assert (row["transition_id"], row["number"], row["device_id"], row["source_offset"]) == ("a0-2", 2, "7", 0)
    assert json.loads(row["values"]) == {"temperature": 35.5, "humidity": None}
    assert (row["event_time"], row["event_time"].microsecond) == (row["event_time"].astimezone(UTC), 250)
    refused = rows(lake, [f.path for f in manifest.files if f.path.startswith("rejected/")])
    assert [row["payload"] for row in refused] == [*NO_TRANSITIONS.values()]
    assert read_index(lake).partitions == {}, "the batch job takes readings and dead letters alone"
    orphan = buffer(TRANSITIONS, first=held.next_offset)
    orphan.take(Record(held.next_offset, transition(9), topic=TRANSITIONS), 0.0)
    (left,) = write_files(lake, orphan.files())
    assert sweep(lake, datetime.now(UTC) + timedelta(hours=2)) == [left.path]


@pytest.mark.parametrize(
    ("begin", "unseen", "missing"), [(0, 4, 0), (7, 2, 2), (50, 0, 4)],
    ids=["the log is whole", "its beginning is gone", "all of the gap is gone"],
)  # fmt: skip
def test_a_gap_among_transitions_is_a_loss_only_before_the_logs_beginning(
    tmp_path: Path, begin: int, unseen: int, missing: int
) -> None:
    landing, consumer, place = Landing(Settings(home=tmp_path)), Consumer(), TopicPartition(TRANSITIONS, 0)
    held = landing._buffers[place] = buffer(TRANSITIONS, first=5)
    consumer.begin = begin
    assert not landing._is_real(consumer, place, 9)
    assert consumer.at == 5, "read again: it may have been a stale fetch"
    assert landing._is_real(consumer, place, 9)
    landing._take(consumer, place, [Record(9, transition(9), topic=TRANSITIONS)], 0.0)
    assert (held.unseen, held.missing, held.rows, held.offsets) == (unseen, missing, 1, 5)


def test_what_the_log_no_longer_has_is_missing(lake: Lake) -> None:
    held = buffer(first=5)
    held.skip_to(8, 0.0)
    held.take(Record(9, reading(1)), 0.0)
    assert (held.missing, held.offsets, held.rows) == (4, 5, 1)
    assert flush(lake, held)


class Crash(BaseException):
    """Stands for a kill -9 at that call."""


@pytest.mark.parametrize("seed", range(12))
def test_killed_or_refused_at_any_write_it_lands_each_record_once(lake: Lake, seed: int) -> None:
    """Every call by which the lake changes may be the last one, before or after it took effect."""
    chance, calls = random.Random(seed), 0
    kind: type[BaseException] = Crash if seed % 2 else Unavailable

    class Failing(Lake):
        def write(self, relative: str, data: bytes | memoryview) -> None:
            fail(lambda: super(Failing, self).write(relative, data))

        def put_if_absent(self, relative: str, data: bytes) -> bool:
            return bool(fail(lambda: super(Failing, self).put_if_absent(relative, data)))

    def fail(act: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls < 200 and chance.random() < 0.2:
            raise kind("before")
        result = act()
        if calls < 200 and chance.random() < 0.2:
            raise kind("after")
        return result

    log = [Record(n, reading(n, hour=-(n % 3)) if n % 5 else b"junk") for n in range(400)]
    failing = Failing(lake.uri)
    position, held = 0, None
    while position < len(log):
        if held is None:  # begun anew: only the lake knows how far it came
            last = lake.last_manifest("sensor", 0)
            position = 0 if last is None else last.last_offset + 1
            held = buffer(first=position)
        for record in log[held.next_offset : held.next_offset + chance.randint(1, 60)]:
            held.take(record, 0.0)
        if not held.offsets:
            break
        try:
            won = flush(failing, held)
        except Unavailable:
            continue  # keeps its buffer and tries again, as landing does
        except Crash:
            held = None
            continue
        held = buffer(first=held.next_offset) if won else None
    manifests = lake.manifests("sensor", 0)
    assert [m.first_offset for m in manifests] == [0, *(m.last_offset + 1 for m in manifests[:-1])]
    assert manifests[-1].last_offset == 399
    found = rows(lake, [file.path for m in manifests for file in m.files])
    assert [row["kafka_offset"] for row in found] == list(range(400))
    assert not [path for path in lake.files("_landed") if TEMPORARY in path]


def test_a_full_disk_pauses_the_partition_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    landing = Landing(Settings(home=tmp_path, landing_max_rows=10, landing_max_seconds=3600))
    consumer, place = Consumer(), Consumer.place
    landing._adopt(consumer, place)
    held = landing._buffers[place]
    for n in range(10):
        held.take(Record(n, reading(n)), 0.0)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        landing._flush_due(consumer, 0.0)
    assert consumer.paused == {place}
    assert landing._buffers[place] is held
    assert "No space left" in landing._problem
    landing._flush_due(consumer, 0.0)  # not yet
    assert landing.lake.last_manifest(*place) is None
    landing._flush_due(consumer, 1e12)
    manifest = landing.lake.last_manifest(*place)
    assert manifest is not None and manifest.rows == 10
    assert consumer.paused == set()


def test_a_topic_made_anew_is_not_mixed_with_the_old_one(tmp_path: Path) -> None:
    landing = Landing(Settings(home=tmp_path))
    consumer, place = Consumer(end=5), Consumer.place
    held = buffer()
    for n in range(10):
        held.take(Record(n, reading(n)), 0.0)
    assert flush(landing.lake, held)
    landing._adopt(consumer, place)
    assert place not in landing._buffers
    assert "made anew" in landing._problem
    assert landing.figures().states == {"blocked": 1}
    assert consumer.paused == {place}


def test_a_manifest_of_another_worker_makes_it_begin_again(tmp_path: Path) -> None:
    landing = Landing(Settings(home=tmp_path, landing_max_rows=5))
    consumer, place = Consumer(), Consumer.place
    landing._adopt(consumer, place)
    other = buffer()
    for n in range(8):
        other.take(Record(n, reading(n)), 0.0)
        landing._buffers[place].take(Record(n, reading(n)), 0.0)
    assert flush(landing.lake, other)
    landing._flush_due(consumer, 0.0)
    assert landing.zombies == 1
    assert consumer.at == 8
    assert landing._buffers[place].next_offset == 8


def ahead(seq: int) -> bytes:
    """What a bridge with version 2 of the spec writes: a metric more."""
    return encode_reading(
        Reading("7", "weather_station", "field", APPEND_MS * 1000, {"humidity": 50.0, "pressure": 1013.0}, seq, 2)
    )


def newer_spec(folder: Path) -> None:
    text = (CHECKOUT / "fleet" / "types" / "weather_station.yaml").read_text(encoding="utf-8")
    newer = text.replace("version: 1", "version: 2").replace(
        "metrics:\n", "metrics:\n  pressure: {unit: hectopascal}\n"
    )
    (folder / "weather_station.yaml").write_text(newer, encoding="utf-8")


@pytest.fixture
def types_dir(tmp_path: Path) -> Path:
    shutil.copytree(CHECKOUT / "fleet" / "types", tmp_path / "types")
    return tmp_path / "types"


@pytest.mark.parametrize("when", ["before the record", "while it waits"])
def test_a_newer_spec_than_landings_loses_nothing(tmp_path: Path, types_dir: Path, when: str) -> None:
    landing = Landing(Settings(home=tmp_path, types_dir=types_dir, landing_max_rows=2))
    consumer, place = Consumer(), Consumer.place
    landing._adopt(consumer, place)
    log = [Record(0, reading(0)), Record(1, b"junk"), Record(2, ahead(2)), Record(3, reading(3)), Record(4, ahead(4))]
    if when == "before the record":
        newer_spec(types_dir)
    landing._take(consumer, place, log, 0.0)
    assert consumer.at == 2
    if when == "while it waits":
        assert consumer.paused == {place}
        assert "sensor-0 stands at offset 2: weather_station version 2 is not known" in landing.problem()
        landing._flush_due(consumer, 0.1)  # what came before the record lands all the same
        last = landing.lake.last_manifest(*place)
        assert last is not None and (last.last_offset, last.rows, last.unreadable) == (1, 1, 1)
        assert consumer.paused == {place}
        (types_dir / "weather_station.yaml").write_text("half a spec", encoding="utf-8")
        landing._flush_due(consumer, 100.0)
        assert "weather_station.yaml:1" in landing.problem()
        newer_spec(types_dir)
        landing._flush_due(consumer, 200.0)
    assert landing._newcomers.problem == ""
    assert consumer.paused == set()
    landing._take(consumer, place, log[consumer.at :], 201.0)
    landing._flush_due(consumer, 201.0)
    manifests = landing.lake.manifests(*place)
    assert [m.last_offset for m in manifests] == [1, 4]
    assert sum(m.unreadable for m in manifests) == 1
    found = rows(landing.lake, [f.path for m in manifests for f in m.files])
    assert [(row["kafka_offset"], row.get("pressure")) for row in found] == [
        (0, None), (1, None), (2, 1013.0), (3, None), (4, 1013.0),
    ]  # fmt: skip


GROUPS = 20


def test_a_broken_clock_makes_no_flush_of_thousands_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.landing.MAX_GROUPS", GROUPS)
    landing = Landing(Settings(home=tmp_path, landing_max_seconds=3600))
    consumer, place = Consumer(end=10_000), Consumer.place
    landing._adopt(consumer, place)
    log = [Record(n, reading(n, hour=-n)) for n in range(2 * GROUPS + 10)]
    landing._take(consumer, place, log, 0.0)
    manifests = landing.lake.manifests(*place)
    assert [(m.first_offset, m.rows, len(m.files)) for m in manifests] == [
        (0, GROUPS, GROUPS), (GROUPS, GROUPS, GROUPS),
    ]  # fmt: skip
    assert landing._buffers[place].offsets == 10


def test_a_full_disk_amid_a_broken_clock_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.landing.MAX_GROUPS", GROUPS)
    landing = Landing(Settings(home=tmp_path, landing_max_seconds=3600))
    consumer, place = Consumer(end=10_000), Consumer.place
    landing._adopt(consumer, place)
    log = [Record(n, reading(n, hour=-n)) for n in range(GROUPS + 10)]

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        landing._take(consumer, place, log, 0.0)
    assert (consumer.at, consumer.paused) == (GROUPS, {place})
    landing._flush_due(consumer, 1e12)
    assert consumer.paused == set()
    landing._take(consumer, place, log[consumer.at :], 0.0)
    assert [(m.first_offset, m.rows) for m in landing.lake.manifests(*place)] == [(0, GROUPS)]
    assert landing._buffers[place].next_offset == len(log)


def test_a_clock_that_runs_ahead_is_rejected_by_the_brokers_time() -> None:
    held = buffer()
    held.take(Record(0, reading(0, hour=1)), 0.0)
    (file,) = held.files()
    assert file.cells["reason"] == ["future_time"]
    assert (held.rows, held.unreadable) == (0, 1)


def test_a_partition_revoked_in_the_meantime_stops_nothing(tmp_path: Path) -> None:
    """kafka-python's own consumer, which nobody assigned the partition to: as after a revocation on its I/O thread."""
    from kafka import KafkaConsumer
    from kafka.consumer.subscription_state import SubscriptionState

    consumer = KafkaConsumer.__new__(KafkaConsumer)
    consumer._subscription = SubscriptionState()
    landing = Landing(Settings(home=tmp_path))
    with pytest.raises(KeyError):
        consumer.pause(Consumer.place)
    landing._put_off(consumer, Consumer.place, "the lake is away")
    resume(consumer, Consumer.place)
    seek(consumer, Consumer.place, 3)
    consumer._closed = True


def test_what_no_manifest_names_is_swept_when_it_is_old(lake: Lake) -> None:
    kept, killed = buffer(), buffer(first=2)
    for n in range(2):
        kept.take(Record(n, reading(n)), 0.0)
        killed.take(Record(n + 2, reading(n)), 0.0)
    assert flush(lake, kept)
    (orphan,) = write_files(lake, killed.files())
    lake.write("raw/notes.txt", b"not ours")
    lake.write(f"_landed/sensor/0/{TEMPORARY}1", b"half a manifest")
    now = datetime.now(UTC)
    assert sweep(lake, now) == []
    before = lake.files("")
    assert sweep(lake, now + timedelta(hours=2)) == [orphan.path, f"_landed/sensor/0/{TEMPORARY}1"]
    assert set(before) - set(lake.files("")) == {orphan.path, f"_landed/sensor/0/{TEMPORARY}1"}


class Consumer:
    """The few calls by which landing steers its consumer."""

    place = TopicPartition("sensor", 0)

    def __init__(self, end: int = 1000):
        self.begin, self.end, self.paused, self.at = 0, end, set(), -1

    def beginning_offsets(self, places: list[Any], timeout_ms: int) -> dict[Any, int]:
        return dict.fromkeys(places, self.begin)

    def end_offsets(self, places: list[Any], timeout_ms: int) -> dict[Any, int]:
        return dict.fromkeys(places, self.end)

    def seek(self, place: Any, offset: int) -> None:
        self.at = offset

    def pause(self, *places: Any) -> None:
        self.paused |= set(places)

    def resume(self, *places: Any) -> None:
        self.paused -= set(places)
