"""The batch job on a real TimescaleDB and a real Spark, over lakes small enough to count by hand."""

import hashlib
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from etl.books import read_books
from etl.curated import curated
from etl.retention import expire
from etl.run import Job, Request
from fleet.errors import ConfigurationError, DataError, Unavailable
from tests.integration.batch_runs import KEY, at, contents, keys, run
from tests.integration.small_lake import T0, SmallLake

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]


def test_every_row_and_value_goes_where_it_belongs(job: Job, lake: SmallLake) -> None:
    weather = job.catalog.type("weather_station")
    good = [
        {"device_id": "1", **at(2 * i), "temperature": 20.0 + i % 7 * 0.5, "humidity": 50.0 + i % 5} for i in range(40)
    ]
    lake.land(weather, good)
    lake.land(
        weather,
        [
            {**good[0]},                                                          # duplicate: no seq, equal values
            {**good[0], "humidity": 51.0},                                        # no seq, other values: a reading
            {"device_id": "2", **at(0), "seq": 1, "temperature": 21.0},
            {"device_id": "2", **at(0), "seq": 1, "temperature": 22.0},           # duplicate: equal seq and metrics
            {"device_id": "2", **at(0), "seq": 1, "humidity": 40.0},              # other metrics: a reading
            {"device_id": "2", **at(0), "seq": 2, "temperature": 23.0},           # other seq: a reading
            {"device_id": "3", **at(5), "temperature": 99.0, "humidity": 45.0},   # one bad value
            {"device_id": "3", **at(6), "temperature": 99.0, "humidity": None},   # all known values bad
            {"device_id": "3", **at(7), "temperature": 99.0, "humidity": 130.0},  # both bad
            {"device_id": "3", **at(8), "temperature": None},                     # nothing known: valid
            {"device_id": "1", **at(90), "temperature": 55.0},                    # in range, and far from the rest
            {"device_id": "1", **at(3600), "temperature": 20.0},                  # the next hour
        ],
        kafka_partition=1,
        heartbeats=2,
    )  # fmt: skip
    lake.land_rejects([{"reason": "bad_id"}, {"reason": "bad_id"}, {"reason": "not_utf8", "payload": b"\xff\\"}])
    batches, figures = run(job, "r1")
    assert keys(batches) == {KEY, "weather/weather_station/2026-11-22T04", "rejected/rejected/2026-11-22T03"}
    expected = {"landed": 52, "valid": 48, "quarantined": 2, "duplicate": 2, "quarantined_values": 4,
                "dead_letters": 3, "problems": []}  # fmt: skip
    assert {name: figures[name] for name in expected} == expected

    quarantined = job.warehouse.rows(
        "SELECT what, reason, device_id, metric, value FROM quarantine ORDER BY at, what, metric"
    )
    assert [tuple(r.values()) for r in quarantined if r["what"] != "dead_letter"] == [
        ("value", "out_of_range", "3", "temperature", 99.0),
        ("reading", "all_values_quarantined", "3", None, None),
        ("value", "out_of_range", "3", "temperature", 99.0),
        ("reading", "all_values_quarantined", "3", None, None),
        ("value", "out_of_range", "3", "humidity", 130.0),
        ("value", "out_of_range", "3", "temperature", 99.0),
    ]
    letters = job.warehouse.rows(
        "SELECT payload, reason FROM quarantine WHERE what = 'dead_letter' ORDER BY kafka_offset"
    )
    assert [(bytes(r["payload"]), r["reason"]) for r in letters] == [
        (b"{", "bad_id"),
        (b"{", "bad_id"),
        (b"\xff\\", "not_utf8"),
    ]
    (unusual,) = job.warehouse.rows("SELECT * FROM anomalies WHERE kind = 'zscore'")
    assert (unusual["device_id"], unusual["value"], unusual["kafka_offset"]) == ("1", 55.0, 10)
    assert len(job.warehouse.rows("SELECT * FROM anomalies WHERE kind = 'range'")) == 4

    temperatures = [r["temperature"] for r in good] + [good[0]["temperature"], 55.0]
    (hour,) = job.warehouse.rows(
        "SELECT * FROM rollups WHERE grain = '1h' AND device_id = '1' AND metric = 'temperature' AND bucket = :t", t=T0
    )
    assert (hour["count"], hour["min"], hour["max"], hour["last"]) == (42, 20.0, 55.0, 55.0)
    assert hour["mean"] == pytest.approx(statistics.fmean(temperatures))
    assert hour["stddev"] == pytest.approx(statistics.stdev(temperatures))
    assert hour["anomalies"] == 1
    (single,) = job.warehouse.rows("SELECT * FROM rollups WHERE grain = '1m' AND device_id = '3'")
    assert (single["count"], single["mean"], single["stddev"]) == (1, 45.0, None)
    assert any((job.settings.home / "data-docs").rglob("index.html"))

    before = contents(job)
    assert run(job, "r2")[0] == []
    assert contents(job) == before
    assert keys(run(job, "r3", force=True)[0]) == keys(batches)
    assert contents(job) == before


def test_an_anomaly_is_stored_with_the_limits_it_broke(job: Job, lake: SmallLake) -> None:
    water = [(0, 20.0), *((second, 30.0) for second in range(2, 16, 2)), (24, 31.0)]
    readings = [{"device_id": "b1", **at(second), "water": celsius} for second, celsius in water]
    lake.land(job.catalog.type("boiler"), readings)
    assert run(job, "r1")[1]["anomalies"] == 3
    stored = job.warehouse.rows("SELECT kind, event_time, value, score, low, high FROM anomalies ORDER BY event_time")
    assert [tuple(row.values()) for row in stored] == [
        ("rate", *at(2).values(), 30.0, 10.0, 15.0, 25.0),
        ("stuck", *at(14).values(), 30.0, 12.0, 30.0, 30.0),
        ("missing", *at(24).values(), 31.0, 10.0, 0.0, 6.0),
    ]
    (hour,) = job.warehouse.rows("SELECT count, anomalies FROM rollups WHERE grain = '1h'")
    assert (hour["count"], hour["anomalies"]) == (9, 3)


HOURS = """
INSERT INTO rollups
SELECT at, '1h', 'plant', 'boiler', 'site-1', :device, 'water', 9, 25, 20, CASE WHEN at = :begin THEN 99 ELSE 30 END,
       1, 25, 0, 1
  FROM generate_series(CAST(:begin AS timestamptz), :end, '1 hour') at"""


def test_what_the_days_before_did_not_have_is_unseen(job: Job, lake: SmallLake) -> None:
    """b1 said 20 to 30 in eight days, once 99; b2 only in three, and b3 today."""
    day = T0.replace(hour=0)
    with job.warehouse.transaction() as c:
        for device, begin in (("b1", day - timedelta(days=8)), ("b2", day - timedelta(days=3)), ("b3", day)):
            c.execute(text(HOURS), {"device": device, "begin": begin, "end": day + timedelta(hours=2)})
    water = [29.0, 31.5, 32.0, 29.0, 31.5]
    lake.land(
        job.catalog.type("boiler"),
        [
            {"device_id": b, **at(2 * n), "water": celsius}
            for b in ("b1", "b2", "b3")
            for n, celsius in enumerate(water)
        ],
    )
    run(job, "r1")
    stored = "SELECT device_id, event_time, kind, value, score, low, high FROM anomalies ORDER BY event_time"
    unseen = [("b1", *at(second).values(), "unseen", 31.5, 0.5, 19.0, 31.0) for second in (2, 8)]
    assert [tuple(row.values()) for row in job.warehouse.rows(stored)] == unseen
    before = contents(job)
    run(job, "r2", force=True)  # what it stored of the day does not change what it finds
    assert contents(job) == before


def test_a_large_dead_letter_is_cut_in_the_warehouse_and_whole_in_the_lake(job: Job, lake: SmallLake) -> None:
    large = bytes(range(256)) * 1024
    lake.land_rejects([{"reason": "oversized", "payload": large}, {"reason": "bad_id"}])
    lake.land_rejects([{"reason": "bad_id", "payload": b""}] * 200)
    assert run(job, "r1")[1]["dead_letters"] == 202
    rows = job.warehouse.rows(
        "SELECT payload, payload_bytes, payload_sha256 FROM quarantine ORDER BY payload_bytes DESC"
    )
    told = [(bytes(r["payload"]), r["payload_bytes"], bytes(r["payload_sha256"])) for r in rows]
    assert told[:2] == [(large[:65536], 262_144, hashlib.sha256(large).digest()), (b"{", 1, told[1][2])]
    assert {(payload, size) for payload, size, _ in told[2:]} == {(b"", 0)}


@pytest.mark.parametrize(
    "change", [lambda t: t.drop_columns(["detail"]), lambda t: pa.concat_tables([t, t])], ids=["no column", "more rows"]
)
def test_a_broken_file_of_dead_letters_fails_their_hour(job: Job, lake: SmallLake, change: Callable) -> None:
    lake.land_rejects([{"reason": "bad_id"}])
    (path,) = lake.lake.files("rejected")
    lake.lake.write_table(path, change(pq.read_table(lake.lake.path(path), partitioning=None)))
    (batch,) = job.begin("r1", Request())
    with pytest.raises(DataError, match=r"missing|its manifest says"):
        job.load("r1", batch)


def test_a_late_file_reprocesses_only_its_partition(job: Job, lake: SmallLake) -> None:
    weather = job.catalog.type("weather_station")
    lake.land(weather, [{"device_id": "1", **at(h * 3600), "humidity": 50.0} for h in range(3)])
    run(job, "r1")
    before = _written(job)
    lake.land(weather, [{"device_id": "1", **at(3610), "humidity": 60.0}])
    batches, figures = run(job, "r2")
    assert keys(batches) == {"weather/weather_station/2026-11-22T04"}
    assert figures["landed"] == 2
    assert {hour for hour, rows in _written(job).items() if rows == before[hour]} == {T0, T0 + timedelta(hours=2)}


def _written(job: Job) -> dict[Any, list[Any]]:
    """Hour → its rows in rollups and in the ledger, each with the transaction that wrote it."""
    found: dict[Any, list[Any]] = {}
    for row in job.warehouse.rows(
        "SELECT date_trunc('hour', bucket) AS hour, xmin::text, t::text FROM rollups t UNION ALL"
        " SELECT starts_at, xmin::text, t::text FROM ledger t ORDER BY 1, 2, 3"
    ):
        found.setdefault(row["hour"], []).append(row)
    return found


def test_partitions_of_a_replay_that_died_are_taken_by_the_next_run(job: Job, lake: SmallLake) -> None:
    """Though no file of theirs has changed: values that are in range by now."""
    weather = job.catalog.type("weather_station")
    lake.land(weather, [{"device_id": "1", **at(h * 3600), "humidity": 50.0} for h in range(2)])
    run(job, "r1")
    job.begin("replay", Request(partitions=(KEY,)))
    before = contents(job)
    assert keys(run(job, "r2")[0]) == {KEY}
    assert contents(job) == before
    assert run(job, "r3")[0] == []


def test_a_run_that_saw_less_does_not_undo_one_that_saw_more(job: Job, lake: SmallLake) -> None:
    weather = job.catalog.type("weather_station")
    lake.land(weather, [{"device_id": "1", **at(0), "humidity": 50.0}])
    (early,) = job.begin("early", Request())
    lake.land(weather, [{"device_id": "1", **at(2), "humidity": 60.0}])
    run(job, "later")
    before = contents(job)
    job.validate("early", early)
    assert job.load("early", early)["newer_there"] == [KEY]
    job.finish("early")
    assert contents(job) == before


def test_older_versions_lack_newer_metrics(job: Job, lake: SmallLake) -> None:
    weather = job.catalog.type("weather_station")
    old = weather.model_copy(update={"metrics": {k: v for k, v in weather.metrics.items() if k != "uv_index"}})
    new = weather.model_copy(update={"version": 2})
    lake.land(old, [{"device_id": "1", **at(0), "humidity": 50.0}])
    lake.land(new, [{"device_id": "1", **at(2), "humidity": 52.0, "uv_index": 3.0}])
    path = job.settings.types_dir / "weather_station.yaml"
    path.write_text(path.read_text().replace("version: 1", "version: 2"))
    run(Job(job.settings), "r1")
    rows = job.warehouse.rows("SELECT metric, count, spec_version FROM rollups WHERE grain = '1h' ORDER BY metric")
    assert [tuple(r.values()) for r in rows] == [("humidity", 2, 2), ("uv_index", 1, 2)]


def test_a_metric_added_within_a_version_is_null_in_older_files(job: Job, lake: SmallLake) -> None:
    weather = job.catalog.type("weather_station")
    old = weather.model_copy(update={"metrics": {k: v for k, v in weather.metrics.items() if k != "uv_index"}})
    lake.land(old, [{"device_id": "1", **at(0), "humidity": 50.0}])
    lake.land(weather, [{"device_id": "1", **at(2), "humidity": 52.0, "uv_index": 3.0}])
    run(job, "r1")
    rows = job.warehouse.rows("SELECT metric, count FROM rollups WHERE grain = '1h' ORDER BY metric")
    assert [tuple(r.values()) for r in rows] == [("humidity", 2), ("uv_index", 1)]


def test_a_partition_that_fails_holds_back_nobody_else(job: Job, lake: SmallLake) -> None:
    boiler = job.catalog.type("boiler")
    lake.land(boiler, [{"device_id": "b1", **at(0), "pressure": 900.0}])
    run(job, "r0")
    lake.land(
        boiler, [{"device_id": "b1", **at(2), "pressure": 9000.0}, {"device_id": "b1", **at(3600), "pressure": 950.0}]
    )
    (batch,) = job.begin("r1", Request())
    with pytest.raises(DataError, match=r"boiler/2026-11-22T03 fails validation: pressure"):
        job.validate("r1", batch)
    assert job.load("r1", batch)["loaded"] == 1
    with pytest.raises(DataError, match="pressure"):
        job.finish("r1")
    books = {r["partition"][-2:]: (r["status"], r["landed"]) for r in job.warehouse.rows("SELECT * FROM ledger")}
    assert books == {"03": ("failed", 1), "04": ("loaded", 1)}
    assert keys(job.begin("r2", Request())) == {"plant/boiler/2026-11-22T03"}  # until it is put right


def test_expectations_written_by_hand(
    job: Job, lake: SmallLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning is told and loads; what is critical holds its partition back, by the mean of that partition alone."""
    monkeypatch.setattr("etl.validate.curated", partial(curated, folder=tmp_path))
    mean = {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "humidity", "min_value": 40}}
    warm = {"type": "expect_column_max_to_be_between", "kwargs": {"column": "temperature", "max_value": 30}}
    (tmp_path / "weather_station.json").write_text(
        json.dumps({"expectations": [{**mean, "severity": "critical"}, warm]})
    )
    rows = [
        {"device_id": "1", **at(hour * 3600), "humidity": humidity, "temperature": temperature}
        for hour, humidity, temperature in ((0, 90.0, 20.0), (1, 30.0, 20.0), (2, 50.0, 35.0))
    ]
    lake.land(job.catalog.type("weather_station"), rows)
    (batch,) = job.begin("r1", Request())
    with pytest.raises(
        DataError, match=r"weather_station/2026-11-22T04 fails validation: humidity: expect_column_mean"
    ):
        job.validate("r1", batch)
    job.load("r1", batch)
    assert {r["partition"][-2:]: r["status"] for r in job.warehouse.rows("SELECT * FROM ledger")} == {
        "03": "loaded", "04": "failed", "05": "loaded",
    }  # fmt: skip
    told = job.warehouse.rows("SELECT partitions, unmet FROM validations WHERE success AND unmet <> '[]'")
    assert [(r["partitions"][0][-2:], r["unmet"][0]["column"]) for r in told] == [("05", "temperature")]
    assert "T04" in job.data_docs("r1", batch), "the page of the one that was not met"


def test_an_expectation_that_there_is_not_is_named(
    job: Job, lake: SmallLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etl.validate.curated", partial(curated, folder=tmp_path))
    (tmp_path / "weather_station.json").write_text('{"expectations": [{"type": "expect_rain", "kwargs": {}}]}')
    lake.land(job.catalog.type("weather_station"), [{"device_id": "1", **at(0), "humidity": 50.0}])
    (batch,) = job.begin("r1", Request())
    with pytest.raises(ConfigurationError, match=r"expectations of weather_station: .*expect_rain"):
        job.validate("r1", batch)


def test_what_failed_is_not_loaded_though_another_run_failed_it_later(job: Job, lake: SmallLake) -> None:
    """The ledger says whose word was the last; each run goes by its own."""
    lake.land(job.catalog.type("boiler"), [{"device_id": "b1", **at(0), "pressure": 9000.0}])
    for run_id in ("one", "other"):
        (batch,) = job.begin(run_id, Request())
        with pytest.raises(DataError, match="fails validation"):
            job.validate(run_id, batch)
    for run_id in ("one", "other"):
        assert job.load(run_id, batch) == {"type": "boiler", "loaded": 0, "newer_there": [], "held_back": 1}
    assert [r["landed"] for r in job.warehouse.rows("SELECT landed FROM ledger")] == [None]


def test_nothing_loads_that_was_not_validated(job: Job, lake: SmallLake) -> None:
    lake.land(job.catalog.type("weather_station"), [{"device_id": "1", **at(0), "humidity": 50.0}])
    (batch,) = job.begin("r1", Request())
    assert job.load("r1", batch)["held_back"] == 1
    with pytest.raises(DataError, match="not loaded"):
        job.finish("r1")


def test_what_came_late_and_did_not_load_fails_the_run(job: Job, lake: SmallLake) -> None:
    weather = job.catalog.type("weather_station")
    lake.land(weather, [{"device_id": "1", **at(0), "humidity": 50.0}])
    run(job, "r1")
    lake.land(weather, [{"device_id": "1", **at(2), "humidity": 60.0}])
    job.begin("r2", Request())  # and then its tasks are killed
    with pytest.raises(DataError, match=r"only an older state of it is loaded \(by r1\)"):
        job.finish("r2")
    (row,) = job.warehouse.rows("SELECT status FROM etl_runs WHERE run_id = 'r2'")
    assert row["status"] == "failed"
    assert keys(run(job, "r3")[0]) == {KEY}


def test_a_loss_is_told_by_one_run_even_if_it_is_killed_telling(
    job: Job, lake: SmallLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    weather = job.catalog.type("weather_station")
    lake.land(weather, [{"device_id": "1", **at(0), "humidity": 50.0}], missing=3)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("etl.run._write_end", killed)
        run(job, "r1")
    with pytest.raises(DataError, match="sensor/0: 3 records were gone from Kafka"):
        job.finish("r1")
    assert run(job, "r2")[1]["lost"] == 3  # known by now


def test_a_run_of_the_command_that_breaks_off_is_a_failed_run(
    job: Job, lake: SmallLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    from weir import etl

    def away(*_: object) -> None:
        raise Unavailable("nothing answers")

    lake.land(job.catalog.type("weather_station"), [{"device_id": "1", **at(0), "humidity": 50.0}])
    monkeypatch.setattr(job, "load", away)
    monkeypatch.setattr(etl, "open_job", lambda: job)
    with pytest.raises(Unavailable):
        etl.run()
    (row,) = job.warehouse.rows("SELECT status, figures FROM etl_runs")
    assert row == {"status": "failed", "figures": {"problems": ["Unavailable: nothing answers"]}}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.drop_columns(["humidity"]), "'humidity' is missing"),
        (lambda t: t.set_column(t.schema.get_field_index("humidity"), "humidity", pa.array(["wet"])), "is string"),
        (lambda t: t.append_column("ghost", pa.array([1.0])), "'ghost'"),
        (lambda t: pa.concat_tables([t, t]), "its manifest says 1"),
    ],
    ids=["no column", "wrong type", "strange column", "more rows than promised"],
)
def test_a_broken_file_fails_its_partition(job: Job, lake: SmallLake, change: Callable, told: str) -> None:
    lake.land(job.catalog.type("weather_station"), [{"device_id": "1", **at(0), "humidity": 50.0}])
    (path,) = lake.lake.files("raw")
    table = pq.read_table(lake.lake.path(path), partitioning=None)
    lake.lake.write_table(path, change(table))
    (batch,) = job.begin("r1", Request())
    with pytest.raises(DataError, match=told):
        job.validate("r1", batch)


def test_a_broken_later_file_of_a_partition_in_pieces_fails_it_by_name(
    job: Job, lake: SmallLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etl.validate.MAX_PIECE_ROWS", 2)
    for i in range(3):
        lake.land(
            job.catalog.type("weather_station"),
            [{"device_id": "1", **at(4 * i), "humidity": 50.0}, {"device_id": "1", **at(4 * i + 2), "humidity": 51.0}],
        )
    path = max(lake.lake.files("raw"))
    lake.lake.write(path, b"no Parquet")
    (batch,) = job.begin("r1", Request())
    with pytest.raises(DataError, match="no Parquet file"):
        job.validate("r1", batch)
    (row,) = job.warehouse.rows("SELECT status, failure FROM ledger")
    assert row["status"] == "failed"
    assert "no Parquet file" in row["failure"]
    pieces = [r["piece"] for r in job.warehouse.rows("SELECT piece FROM validations ORDER BY piece")]
    assert pieces == ["2026-11-22T03", "2026-11-22T03-broken"]


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM rollups WHERE grain = '1m'",
        "UPDATE rollups SET count = count + 1 WHERE grain = '1h'",
        "DELETE FROM quarantine",
        "DELETE FROM anomalies",
    ],
)
def test_a_mismatch_fails_the_run(job: Job, lake: SmallLake, damage: str) -> None:
    lake.land(job.catalog.type("weather_station"), [{"device_id": "1", **at(0), "humidity": 50.0, "temperature": 99.0}])
    run(job, "r1")
    with job.warehouse.transaction() as c:
        c.execute(text(damage))
    with pytest.raises(DataError, match="expected"):
        job.finish("r1")


def test_a_gap_in_the_manifests_fails_the_run(job: Job, lake: SmallLake) -> None:
    weather = job.catalog.type("weather_station")
    lake.land(weather, [{"device_id": "1", **at(0), "humidity": 50.0}])
    lake.offsets["sensor", 0] += 3
    lake.land(weather, [{"device_id": "1", **at(2), "humidity": 50.0}])
    with pytest.raises(DataError, match="offsets 1 to 3 are in no manifest"):
        run(job, "r1")


def test_what_is_expired_is_neither_off_nor_to_be_processed(job: Job, lake: SmallLake) -> None:
    weather = job.catalog.type("weather_station")
    old = T0 - 2 * max(t.retention.rollups for t in job.catalog)
    lake.land(weather, [{"device_id": "1", **at(0), "humidity": 50.0}])
    lake.land(weather, [{"device_id": "1", "event_time": old, "humidity": 50.0}])
    lake.land_rejects([{"reason": "bad_id"}], at=old)
    run(job, "r1")
    expire(job.warehouse, job.catalog, T0)
    rows = job.warehouse.rows("SELECT min(bucket) AS first FROM rollups")
    assert rows[0]["first"] == T0
    assert job.warehouse.rows("SELECT 1 FROM quarantine") == []
    books = read_books(job.settings, None, T0)
    assert str(books.verdict) == "the books balance"
    assert run(job, "r2")[0] == []


@contextmanager
def _waits(job: Job, lock: str, **parameters: Any) -> Iterator[Callable[[], None]]:
    """Holds a lock; what it yields waits until somebody else waits for it."""
    with job.warehouse.transaction() as holder:
        holder.execute(text(lock), parameters)

        def blocked() -> None:
            for _ in range(3000):
                if job.warehouse.rows("SELECT 1 FROM pg_locks WHERE NOT granted"):
                    return
                time.sleep(0.1)
            raise AssertionError("nobody came to wait for the lock")

        yield blocked


def test_two_runs_on_a_partition_take_turns(job: Job, lake: SmallLake) -> None:
    lake.land(job.catalog.type("weather_station"), [{"device_id": "1", **at(0), "humidity": 50.0}])
    (batch,) = job.begin("r1", Request())
    job.validate("r1", batch)
    done: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: done.append(job.load("r1", batch)))
    with _waits(job, "SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))", key=KEY) as blocked:
        thread.start()
        blocked()
        assert job.warehouse.rows("SELECT * FROM rollups") == []
    thread.join(60)
    assert done[0]["loaded"] == 1
