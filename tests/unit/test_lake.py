"""The lake on a local disk: whole files only, one winner, and what a crash at each step leaves behind."""

import os
import pickle
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from connections.lake import Lake, arrow_schema
from connections.store import TEMPORARY
from fleet.errors import ConfigurationError, DataError, Unavailable
from fleet.lake_layout import REJECTED_COLUMNS, manifest_path
from fleet.manifest import DataFile, Manifest


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(f"file://{tmp_path}/lake")


def manifest(first: int, last: int, **changes: object) -> Manifest:
    counts = {"rows": last - first + 1, "unreadable": 0, "heartbeats": 0, "controls": 0, "missing": 0, **changes}
    files = [DataFile("raw/x.parquet", "weather/weather_station/2026-11-22T03", 1, last - first + 1, 10)]
    return Manifest("sensor", 2, first, last, first_append_ms=1, last_append_ms=2, files=files, **counts)  # type: ignore[arg-type]


def test_of_many_writers_of_one_name_one_wins(lake: Lake) -> None:
    outcomes: list[tuple[bytes, bool]] = []
    start = threading.Barrier(8)

    def write(data: bytes) -> None:
        start.wait()
        outcomes.append((data, lake.put_if_absent("_landed/t/0/x.json", data)))

    threads = [threading.Thread(target=write, args=(bytes([n]) * 1000,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [data for data, won in outcomes if won]
    assert len(winners) == 1
    assert lake.read("_landed/t/0/x.json") == winners[0]
    assert lake.names("_landed/t/0") == ["x.json"]


def test_manifests_come_in_order_and_after_a_given_one(lake: Lake) -> None:
    assert_manifests_in_order(lake)


def assert_manifests_in_order(lake: Lake) -> None:
    """Of a lake that has none, on any store."""
    for first in (100, 0, 1_000_000_000_000, 9):
        assert lake.commit(manifest(first, first + 8))
    assert not lake.commit(manifest(100, 120))
    assert [m.first_offset for m in lake.manifests("sensor", 2)] == [0, 9, 100, 1_000_000_000_000]
    assert [m.first_offset for m in lake.manifests("sensor", 2, after=9)] == [100, 1_000_000_000_000]
    last = lake.last_manifest("sensor", 2)
    assert last is not None and last.last_offset == 1_000_000_000_008
    assert lake.last_manifest("sensor", 0) is None
    assert lake.landed_partitions() == [("sensor", 2)]


def test_a_manifest_that_does_not_add_up_is_refused(lake: Lake) -> None:
    with pytest.raises(DataError, match="off by"):
        lake.commit(manifest(0, 9, heartbeats=1))
    lake.write(manifest_path("sensor", 2, 0), b"{}")
    with pytest.raises(DataError, match="no manifest"):
        lake.last_manifest("sensor", 2)


def test_tables_come_back_with_their_types(lake: Lake) -> None:
    from pyarrow import parquet

    table = pa.Table.from_pylist(
        [{"reason": "x", "payload": b"\xff", "kafka_offset": 3}], arrow_schema(REJECTED_COLUMNS)
    )
    size = lake.write_table("rejected/date=2026-11-22/hour=03/a.parquet", table)
    found = parquet.read_table(lake.path("rejected/date=2026-11-22/hour=03/a.parquet"), partitioning=None)
    assert found == table
    assert Path(lake.path("rejected/date=2026-11-22/hour=03/a.parquet")).stat().st_size == size
    assert lake.files("rejected") == ["rejected/date=2026-11-22/hour=03/a.parquet"]
    assert lake.sweep(lake.files("rejected")) == 1
    assert lake.files("rejected") == []


@pytest.mark.parametrize("step", ["fsync", "link", "replace"])
def test_a_failure_at_any_step_leaves_nothing_that_counts(
    lake: Lake, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    lake.put_if_absent("_landed/t/0/before.json", b"1")
    with monkeypatch.context() as patch:
        patch.setattr(Path if step == "replace" else os, step, full)
        write = lake.write if step == "replace" else lake.put_if_absent
        with pytest.raises(Unavailable, match="No space left"):
            write("_landed/t/0/x.json", b"2")
    assert [n for n in lake.names("_landed/t/0") if not n.startswith(TEMPORARY)] == ["before.json"]
    assert lake.put_if_absent("_landed/t/0/x.json", b"3")


def test_other_schemes_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="ftp"):
        Lake("ftp://somewhere/lake")


@pytest.mark.parametrize("uri", ["file:///x", "hdfs://me@host:8020/x", "s3://bucket/x"])
def test_another_process_opens_it_for_itself(uri: str) -> None:
    again = pickle.loads(pickle.dumps(Lake(uri, 9871)))
    assert again._opened == (uri, 9871)
    assert again.url("a") == Lake(uri).url("a")
