"""Compaction killed at each point of its work, and the batch job over what was compacted or has expired."""

import multiprocessing
import shutil
import signal
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import etl.compaction
from connections.lake import Lake
from etl.books import read_books
from etl.compaction import compact
from etl.lake_index import read_index
from etl.lake_tidy import Tidied, tidy
from etl.landed_log import LandedLog
from etl.retention import expire, expire_lake
from etl.run import Job
from fleet.catalog import load_catalog
from fleet.compaction import GRACE
from fleet.settings import CHECKOUT
from streaming.sweep import sweep
from tests.integration.batch_runs import KEY, at, contents, keys, run
from tests.integration.broken_off import Point, break_off
from tests.integration.small_lake import T0, SmallLake, still

pytestmark = pytest.mark.timeout(600)
NOW = T0 + timedelta(days=2)
LATE_IMPORTS = ("pyarrow.dataset", "pyarrow.fs", "pandas")
"""By Arrow, a second in each process."""
POINTS = {
    "nothing written": Point("before", "connections.lake:Lake.write_table"),
    "half a file": Point("before", "pathlib:Path.replace"),
    "one file": Point("after", "connections.lake:Lake.write_table"),
    "read back": Point("before", "connections.compactions:Compactions.commit"),
    "half a record": Point("before", "os:link"),
    "committed": Point("after", "connections.lake:Lake.put_if_absent"),
    "two files": Point("after", "connections.lake:Lake.write_table", 2),
    "both committed": Point("after", "connections.compactions:Compactions.commit", 2),
}
DELETIONS = {
    "nothing deleted": Point("before", "connections.lake:Lake.sweep"),
    "a record deleted": Point("after", "connections.lake:Lake.sweep"),
    "one file deleted": Point("after", "connections.local_store:LocalStore.remove", 2),
    "some files deleted": Point("after", "connections.local_store:LocalStore.remove", 8),
    "landed files deleted": Point("after", "connections.lake:Lake.sweep", 4),
    "all deleted": Point("after", "connections.lake:Lake.sweep", 5),
}


def _compact(uri: str, now: datetime) -> None:
    [*compact(Lake(uri), still(now))]


def _tidy(uri: str, now: datetime) -> None:
    tidy(Lake(uri), now)


def _work(name: str, uri: str, now: datetime, point: Point) -> None:
    """The side of the process that is killed."""
    break_off(point, signal.SIGKILL)
    globals()[name](uri, now)


def killed(name: str, lake: Lake, now: datetime, point: Point) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.integration.test_compaction", *LATE_IMPORTS])
    process = processes.Process(target=_work, args=(name, lake.uri, now, point))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL, point


def seen(lake: Lake) -> Any:
    """All readings in order of arrival; of each partition what it is, and how many rows would be read."""
    holes: list[Any] = []
    logs = [list(LandedLog(lake, "sensor", number).arrivals(0, 100, holes)) for number in (0, 1)]
    assert len(holes) == 2, "what lies beyond the end"
    index = read_index(lake)
    return logs, {key: (p.digest, p.rows, sum(f.rows for f in p.to_read)) for key, p in index.partitions.items()}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of 10 flushes of two hours."""
    path = tmp_path_factory.mktemp("compaction")
    small = SmallLake(Lake(f"file://{path}"))
    spec = load_catalog(CHECKOUT / "fleet" / "types").type("weather_station")
    for n in range(10):
        rows = [{"device_id": f"{n % 3}", **at(n * 9 + hour), "temperature": 20.0 + n} for hour in (0, 0.5, 3600)]
        small.land(spec, rows, kafka_partition=n % 2)
    return path


@pytest.fixture
def own(first: Path, tmp_path: Path) -> Lake:
    """One's own copy of it."""
    shutil.copytree(first, tmp_path / "own")
    return Lake(f"file://{tmp_path}/own")


def is_clean(lake: Lake) -> bool:
    """Of each partition there is its one file and its one record, and nothing else."""
    (one, two), records = lake.files("raw"), lake.files("_compacted")
    return "compacted-" in one and "compacted-" in two and len(records) == 2


@pytest.mark.parametrize("point", POINTS)
def test_killed_while_compacting(own: Lake, point: str) -> None:
    lake, whole = own, seen(own)
    killed("_compact", lake, NOW, POINTS[point])
    assert seen(lake) == whole
    assert not [o for o in compact(lake, still(NOW)) if o.left], "the next one finishes"
    assert seen(lake) == whole
    tidy(lake, NOW + GRACE)
    sweep(lake, datetime.now(NOW.tzinfo) + timedelta(hours=2))
    assert is_clean(lake)
    assert seen(lake) == whole


@pytest.mark.parametrize("point", DELETIONS)
def test_killed_while_deleting(own: Lake, point: str) -> None:
    """Of a lake whose first partition was compacted twice, with a file that no record names."""
    lake = own
    [*compact(lake, still(NOW))]
    small = SmallLake(lake, {("sensor", 0): 15, ("sensor", 1): 15})
    spec = load_catalog(CHECKOUT / "fleet" / "types").type("weather_station")
    for n in range(8):
        small.land(spec, [{"device_id": "9", **at(n), "temperature": 1.0}], kafka_partition=1)
    killed("_compact", lake, NOW, POINTS["one file"])
    [*compact(lake, still(NOW))]
    whole = seen(lake)
    killed("_tidy", lake, NOW + GRACE, DELETIONS[point])
    assert seen(lake) == whole
    tidy(lake, NOW + GRACE)
    assert seen(lake) == whole
    assert is_clean(lake)
    assert tidy(lake, NOW + GRACE) == Tidied()


# The batch job


@pytest.fixture
def hours(job: Job, lake: SmallLake) -> Iterator[SmallLake]:
    """20 flushes of two hours and of dead letters, with duplicates and bad values; loaded."""
    weather = job.catalog.type("weather_station")
    for n in range(20):
        readings = [
            {"device_id": f"{d}", **at(n * 60 + d + hour), "temperature": 20 + n / 7 + d / 3, "humidity": 101.0 + d}
            for d in range(7) for hour in (0, 3600)
        ]  # fmt: skip
        lake.land(weather, [*readings, readings[0]], kafka_partition=n % 3, heartbeats=1)
        lake.land_rejects([{"reason": f"bad_{n % 3}", "payload": bytes([n])}])
    run(job, "r1")
    yield lake


@pytest.mark.stack
def test_the_batch_finds_nothing_changed_and_computes_the_same_bits(
    job: Job, hours: SmallLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etl.compaction, "GROUP_ROWS", 50)
    before = contents(job)
    assert len([*compact(hours.lake, still(NOW))]) == 3
    assert run(job, "r2")[0] == []
    assert str(read_books(job.settings, None, NOW).verdict) == "the books balance"
    assert len(keys(run(job, "r3", force=True)[0])) == 3
    assert contents(job) == before
    assert tidy(hours.lake, NOW + GRACE).landed == 60
    run(job, "r4", force=True)
    assert contents(job) == before
    assert read_books(job.settings, None, NOW).seq == {}
    weather = job.catalog.type("weather_station")
    hours.land(weather, [{"device_id": "1", **at(1800), "temperature": 5.0}])
    batches, figures = run(job, "r5")
    assert keys(batches) == {KEY}
    assert (figures["landed"], figures["problems"]) == (161, [])


@pytest.mark.stack
def test_compacted_while_a_run_is_at_it(job: Job, hours: SmallLake) -> None:
    """With a late file that the run has not seen, and that is compacted with the others."""
    weather, before = job.catalog.type("weather_station"), contents(job)
    from etl.run import Request

    batches = job.begin("r2", Request(force=True))
    hours.land(weather, [{"device_id": "1", **at(1800), "temperature": 5.0}])
    [*compact(hours.lake, still(NOW))]
    other = Job(job.settings)  # each step may be a process of its own
    for batch in batches:
        other.validate("r2", batch)
        other.load("r2", batch)
    assert other.finish("r2")["problems"] == []
    assert contents(job) == before
    assert keys(run(job, "r3")[0]) == {KEY}
    other.warehouse.close()


@pytest.mark.stack
def test_the_lake_forgets_by_spec(job: Job, hours: SmallLake) -> None:
    path = job.settings.types_dir / "weather_station.yaml"
    path.write_text(path.read_text() + "\nretention: {readings: 7d, rollups: 30d, lake: 30d}\n")
    job = Job(job.settings)
    [*compact(hours.lake, still(NOW))]
    gone = T0 + timedelta(days=30, hours=1)
    assert expire_lake(hours.lake, job.warehouse, job.catalog, gone - timedelta(seconds=1)) == {}
    expire(job.warehouse, job.catalog, gone)
    found = expire_lake(hours.lake, job.warehouse, job.catalog, gone)
    assert found == {"weather_station": {"partitions": 1, "files": 20, "rows": 160}}
    assert run(job, "r2")[0] == []
    assert str(read_books(job.settings, None, T0).verdict) == "the books balance"
    assert expire_lake(hours.lake, job.warehouse, job.catalog, gone) == {}

    weather = job.catalog.type("weather_station")
    hours.land(weather, [{"device_id": "1", **at(1800), "temperature": 5.0}])  # late: a partition of its own
    batches, figures = run(job, "r3")
    assert keys(batches) == {KEY}
    assert (figures["landed"], figures["problems"]) == (1, [])
    expire(job.warehouse, job.catalog, gone)
    assert expire_lake(hours.lake, job.warehouse, job.catalog, gone)["weather_station"]["rows"] == 1
    assert run(job, "r4", force=True)[1]["problems"] == []
    tidied = tidy(hours.lake, gone + GRACE)
    assert (tidied.landed, tidied.compacted) == (61, 1)  # the other hour's originals, and the dead letters'
    assert not [p for p in hours.lake.files("raw") if "hour=03" in p]
    assert run(job, "r5", force=True)[1]["problems"] == []
