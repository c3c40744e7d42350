"""What the batch may find, and what it then says and does: each with an outcome that has a name. One bad partition
holds back no other; the run says what, where and how to put it right, and so does the ledger."""

import io
import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from etl.run import Job, Request
from fleet.errors import DataError
from fleet.spec import DeviceType
from tests.integration.batch_runs import KEY, at, contents, keys, run
from tests.integration.small_lake import T0, SmallLake
from weir.etl import run_through

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
OTHERS = {"weather/weather_station/2026-11-22T04", "plant/boiler/2026-11-22T04", "rejected/rejected/2026-11-22T03"}


def through(job: Job, run_id: str, **request: object) -> str:
    """What a run says, its error at the end."""
    said: list[str] = []
    try:
        run_through(job, run_id, Request(**request), said.append)  # type: ignore[arg-type]
    except DataError as error:
        said.append(str(error))
    return "\n".join(said)


def ledger(job: Job) -> dict[str, str]:
    return {row["partition"]: row["status"] for row in job.warehouse.rows("SELECT partition, status FROM ledger")}


def mend(job: Job, name: str, old: str, new: str) -> Job:
    path = job.settings.types_dir / f"{name}.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    return Job(job.settings)


def flip(data: bytes) -> bytes:
    """One bit of a page: the last of the first column."""
    column = pq.read_metadata(io.BytesIO(data)).row_group(0).column(0)
    place = (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size - 1
    return data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda data: b"no Parquet", "is no Parquet file that can be read"),
        (lambda data: data[:-9], "is no Parquet file that can be read"),
        (flip, "is no Parquet file that can be read: .*(CRC|checksum|[Cc]orrupt)"),
        (lambda data: b"", "is no Parquet file that can be read"),
        (None, "is in a manifest and not in the lake"),
    ],
    ids=["no Parquet", "cut off", "one bit", "empty", "gone"],
)
def test_a_damaged_file(job: Job, lake: SmallLake, damage: Callable[[bytes], bytes] | None, told: str) -> None:
    weather, boiler = job.catalog.type("weather_station"), job.catalog.type("boiler")
    for hour in (0, 3600):
        lake.land(weather, [{"device_id": "1", **at(hour + i), "humidity": 50.0 + i} for i in range(50)])
    lake.land(boiler, [{"device_id": "b", **at(3600), "pressure": 900.0}])
    lake.land_rejects([{"reason": "bad_id"}])
    (path,) = lake.lake.files("raw/system=weather/type=weather_station/v=1/date=2026-11-22/hour=03")
    file = Path(lake.lake.path(path))
    whole = file.read_bytes()
    file.write_bytes(damage(whole)) if damage else file.unlink()
    said = through(job, "r1")
    (row,) = job.warehouse.rows("SELECT failure FROM ledger WHERE status = 'failed'")
    for text in (said, row["failure"]):
        assert re.search(told, text), text
        assert path in text
        assert "put the file back from a copy of the lake" in text
    assert ledger(job) == {KEY: "failed", **dict.fromkeys(OTHERS, "loaded")}
    file.write_bytes(whole)
    assert keys(run(job, "r2")[0]) == {KEY}
    assert set(ledger(job).values()) == {"loaded"}


@pytest.mark.parametrize(
    ("damage", "told"),
    [(lambda data: b"no Parquet", "Spark cannot compute it: "), (None, "Spark cannot compute it: ")],
    ids=["no Parquet", "gone"],
)
def test_a_file_that_goes_bad_after_it_was_validated(
    job: Job, lake: SmallLake, damage: Callable[[bytes], bytes] | None, told: str
) -> None:
    """Spark computes a batch in one go; where that fails, each partition alone."""
    weather = job.catalog.type("weather_station")
    for hour in (0, 3600):
        lake.land(weather, [{"device_id": "1", **at(hour + i), "humidity": 50.0 + i} for i in range(50)])
    (batch,) = job.begin("r1", Request())
    job.validate("r1", batch)
    (path,) = lake.lake.files("raw/system=weather/type=weather_station/v=1/date=2026-11-22/hour=03")
    file = Path(lake.lake.path(path))
    whole = file.read_bytes()
    file.write_bytes(damage(whole)) if damage else file.unlink()
    with pytest.raises(DataError, match=f"^{KEY}: .*{told}"):
        job.load("r1", batch)
    assert ledger(job) == {KEY: "failed", "weather/weather_station/2026-11-22T04": "loaded"}
    file.write_bytes(whole)
    assert keys(run(job, "r2")[0]) == {KEY}


def test_a_file_that_is_gone_near_by_keeps_nobody_from_loading(job: Job, lake: SmallLake) -> None:
    """A spec was mended, and a late file lets a value come back: what it would have fired cannot be known without the
    readings of the hour before, and the run says so once it has loaded all."""
    weather = job.catalog.type("weather_station")
    for hour in (0, 3600):
        lake.land(weather, [{"device_id": "1", **at(hour), "temperature": 70.0}])
    run(job, "r1")
    (path,) = lake.lake.files("raw/system=weather/type=weather_station/v=1/date=2026-11-22/hour=03")
    Path(lake.lake.path(path)).unlink()
    again = mend(job, "weather_station", "range: [-40, 60]", "range: [-40, 80]")
    lake.land(weather, [{"device_id": "1", **at(3630), "temperature": 20.0}])
    with pytest.raises(DataError, match=f"(?s)^what would have fired, .* is not known:\n.*{path}"):
        run_through(again, "r2", Request(), lambda _: None)
    (row,) = again.warehouse.rows("SELECT partition, status, valid FROM ledger WHERE run_id = 'r2'")
    assert (row["partition"], row["status"], row["valid"]) == ("weather/weather_station/2026-11-22T04", "loaded", 2)
    (ended,) = again.warehouse.rows("SELECT status FROM etl_runs WHERE run_id = 'r2'")
    assert ended["status"] == "succeeded"


def test_a_version_that_is_gone(job: Job, lake: SmallLake) -> None:
    """A spec was put back to an older version: what newer readings carry, it does not know."""
    weather = job.catalog.type("weather_station")
    newer = weather.model_copy(
        update={"version": 2, "metrics": {**weather.metrics, "dust": weather.metrics["humidity"]}}
    )
    lake.land(newer, [{"device_id": "1", **at(0), "humidity": 50.0, "dust": 3.0}])
    lake.land(weather, [{"device_id": "1", **at(3600), "humidity": 50.0}])
    said = through(job, "r1")
    assert f"{KEY}: raw/" in said
    assert "is of version 2 of weather_station, and its spec is version 1 now; put back the spec that was" in said
    assert ledger(job) == {KEY: "failed", "weather/weather_station/2026-11-22T04": "loaded"}
    again = mend(job, "weather_station", "version: 1", "version: 3")
    assert keys(run(again, "r2")[0]) == {KEY}


def test_a_type_that_is_gone(job: Job, lake: SmallLake) -> None:
    boiler = job.catalog.type("boiler")
    lake.land(boiler, [{"device_id": "b", **at(0), "pressure": 900.0}])
    lake.land(job.catalog.type("weather_station"), [{"device_id": "1", **at(0), "humidity": 50.0}])
    path = job.settings.types_dir / "boiler.yaml"
    spec = path.read_text()
    path.unlink()
    said = through(Job(job.settings), "r1")
    assert "plant/boiler/2026-11-22T03: the lake has readings of boiler, and" in said
    assert "has no such type; put its file back" in said
    assert ledger(job) == {KEY: "loaded", "plant/boiler/2026-11-22T03": "failed"}
    path.write_text(spec)
    assert keys(run(Job(job.settings), "r2")[0]) == {"plant/boiler/2026-11-22T03"}


@pytest.mark.parametrize("version", ["version: 1", "version: 2"], ids=["in the same version", "in a new version"])
def test_a_type_that_changed_a_metrics_unit(job: Job, lake: SmallLake, version: str) -> None:
    """The hour in which it did has both: none is taken for the other. Hours before stay, hours after load."""
    boiler = job.catalog.type("boiler")
    for hour in (-3600, 0):
        lake.land(boiler, [{"device_id": "b", **at(hour), "pressure": 900.0}])
    run(job, "r0")
    before = contents(job)
    changed = mend(job, "boiler", "version: 1", version)
    changed = mend(changed, "boiler", "unit: hectopascal", "unit: count")
    for hour in (2, 3600):
        lake.land(changed.catalog.type("boiler"), [{"device_id": "b", **at(hour), "pressure": 0.9}])
    said = through(changed, "r1")
    assert "pressure is in hectopascal (version 1), and in count by the spec of boiler now; a metric keeps" in said
    states = {"plant/boiler/2026-11-22T02": "loaded", "plant/boiler/2026-11-22T03": "failed"}
    assert ledger(job) == {**states, "plant/boiler/2026-11-22T04": "loaded"}
    now = {tuple(r.values()) for r in job.warehouse.rows("SELECT bucket, mean FROM rollups WHERE grain = '1h'")}
    hours = timedelta(hours=1)
    assert now == {(T0 - hours, 900.0), (T0, 900.0), (T0 + hours, 0.9)}
    assert set(before["rollups"]) < set(contents(job)["rollups"])
    # Recomputing the past does not take it for something else either.
    assert "a metric keeps its unit" in through(changed, "r2", force=True)
    assert {tuple(r.values()) for r in job.warehouse.rows("SELECT bucket, mean FROM rollups WHERE grain = '1h'")} == now


def test_an_hour_without_readings(job: Job, lake: SmallLake) -> None:
    weather = job.catalog.type("weather_station")
    assert "partitions to process: 0" in through(job, "r0")
    lake.land(weather, [{"device_id": "1", **at(hour * 3600), "humidity": 50.0} for hour in (0, 2)])
    lake.land(weather, [], heartbeats=3)
    assert keys(run(job, "r1")[0]) == {KEY, "weather/weather_station/2026-11-22T05"}
    assert "partitions to process: 0" in through(job, "r2", start="2026-11-22T04", end="2026-11-22T05", force=True)
    assert set(ledger(job)) == {KEY, "weather/weather_station/2026-11-22T05"}
    assert [r["status"] for r in job.warehouse.rows("SELECT status FROM etl_runs")] == ["succeeded"] * 3


def test_an_hour_with_only_bad_rows(job: Job, lake: SmallLake) -> None:
    """Where bad values are quarantined it loads, with nothing in rollups; where they fail it, the others load."""
    weather, boiler = job.catalog.type("weather_station"), job.catalog.type("boiler")
    lake.land(weather, [{"device_id": "1", **at(i), "temperature": 900.0, "humidity": -3.0} for i in range(5)])
    lake.land(boiler, [{"device_id": "b", **at(i), "pressure": -1.0} for i in range(5)])
    lake.land(boiler, [{"device_id": "b", **at(3600), "pressure": 900.0}])
    said = through(job, "r1")
    assert "plant/boiler/2026-11-22T03: pressure: expect_column_values_to_be_between unmet, 5 values" in said
    assert "data-docs" in said
    assert ledger(job) == {
        KEY: "loaded",
        "plant/boiler/2026-11-22T03": "failed",
        "plant/boiler/2026-11-22T04": "loaded",
    }
    (row,) = job.warehouse.rows("SELECT landed, valid, quarantined, rollups FROM ledger WHERE partition = :k", k=KEY)
    assert tuple(row.values()) == (5, 0, 5, 0)
    assert len(job.warehouse.rows("SELECT 1 FROM quarantine WHERE partition = :k", k=KEY)) == 15


@pytest.fixture
def berlin() -> Iterator[None]:
    """A machine whose own clock has summer time."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    yield
    del os.environ["TZ"]
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


METER = """\
type: meter
version: 1
system: plant
cadence: 15m
metrics: {energy: {unit: watt_hour, kind: counter}}
examples:
  good: [{payload: {device_id: m, event_time: 1732985789000, values: {energy: 900}}, values: {energy: 900}}]
  bad: [{payload: {device_id: m, event_time: 1732985789000, values: {energy: high}}, reason: wrong_type}]
"""


def metered(job: Job) -> tuple[Job, DeviceType]:
    (job.settings.types_dir / "meter.yaml").write_text(METER)
    made = Job(job.settings)
    return made, made.catalog.type("meter")


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"], ids=["23 hours", "25 hours"])
def test_days_on_which_clocks_change(job: Job, lake: SmallLake, berlin: None, day: str) -> None:
    """Partitions and buckets are UTC's: 24 hours each, on any machine."""
    job, meter = metered(job)
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    quarters = [start + timedelta(minutes=15 * i) for i in range(96)]
    lake.land(
        job.catalog.type("weather_station"), [{"device_id": "1", "event_time": t, "humidity": 50.0} for t in quarters]
    )
    lake.land(meter, [{"device_id": "m", "event_time": t, "energy": float(i)} for i, t in enumerate(quarters)])
    batches, figures = run(job, "r1")
    hours = {f"weather/weather_station/{day}T{hour:02}" for hour in range(24)}
    assert keys(batches) == {*hours, f"plant/meter/{day}"}
    assert (figures["landed"], figures["valid"], figures["problems"]) == (192, 192, [])
    for type_name in ("weather_station", "meter"):
        rows = job.warehouse.rows(
            "SELECT bucket, count FROM rollups WHERE grain = '1h' AND type = :type ORDER BY 1", type=type_name
        )
        assert [(r["bucket"], r["count"]) for r in rows] == [(start + timedelta(hours=h), 4) for h in range(24)]


def test_a_year_of_one_device(job: Job, lake: SmallLake) -> None:
    job, meter = metered(job)
    start = datetime(2025, 1, 1, tzinfo=UTC)
    lake.land(meter, [{"device_id": "m", "event_time": start + timedelta(minutes=15 * i), "energy": float(i)}
                      for i in range(365 * 96)])  # fmt: skip
    batches, figures = run(job, "r1")
    assert (len(batches), len(keys(batches))) == (8, 365)
    assert (figures["landed"], figures["valid"], figures["problems"]) == (35_040, 35_040, [])
    (row,) = job.warehouse.rows("SELECT count(*) AS n, sum(count) AS values FROM rollups WHERE grain = '1h'")
    assert (row["n"], row["values"]) == (365 * 24, 35_040)


def test_ten_thousand_devices_for_a_minute(job: Job, lake: SmallLake) -> None:
    weather = job.catalog.type("weather_station")
    for part in range(4):
        lake.land(weather, [{"device_id": f"d{device}", **at(2 * i), "humidity": 50.0 + device % 7}
                            for device in range(part, 10_000, 4) for i in range(30)], kafka_partition=part)  # fmt: skip
    batches, figures = run(job, "r1")
    assert keys(batches) == {KEY}
    assert (figures["landed"], figures["valid"], figures["rollup_rows"]) == (300_000, 300_000, 20_000)
    assert figures["problems"] == []
