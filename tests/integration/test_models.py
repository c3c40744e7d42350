"""A model's night on a real TimescaleDB and a real Spark: minutes, training, promotion, estimates, the way back."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby, takewhile
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sqlalchemy import text

from connections.lake import Lake
from connections.spark import session
from connections.warehouse import Warehouse
from etl import artefact, models
from etl.artefact import path_of
from etl.features import Minutes, as_numpy, loaded, read_minutes
from etl.lake_index import read_index
from etl.retrain import compare_models, retrain, score_model
from etl.run import Job, Request
from etl.training import split
from etl.window import OPEN, Window
from fleet.errors import ConfigurationError, DataError, Unavailable
from fleet.model import HEAD_COUNT
from fleet.reading import Reading, to_datetime, to_epoch_us
from simulators.occupancy_recording import OCCUPANCY as FORMAT
from simulators.recording import Recording
from simulators.room import room_readings
from stack.credentials import owner_url
from stack.stack import Stack
from tests.command import command
from tests.integration.small_lake import SmallLake
from tests.recordings import OCCUPANCY, needs_occupancy

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
NAME = HEAD_COUNT.name
ALL = timedelta(days=2, hours=8)
"""Ends at 18:00 by the simulated room's clock, which begins at 10:00: people are in the newest 30 %."""
START = datetime(2026, 11, 1, tzinfo=UTC)


TABLES = "predictions, models, ledger, ledger_metrics, rejects, rollups, anomalies, quarantine, validations, etl_runs"


def empty(stack: Stack, tables: str = TABLES) -> None:
    owner = Warehouse(owner_url(stack.secrets, stack.ports))
    with owner.transaction() as c:
        c.execute(text(f"TRUNCATE {tables}"))
    owner.close()


@pytest.fixture
def job(stack: Stack, tmp_path: Path) -> Iterator[Job]:
    """The batch role on empty tables and an empty lake. Kafka is not asked: the lake's offsets are our own."""
    empty(stack)
    changes = {"home": tmp_path, "lake_uri": f"file://{tmp_path}/lake", "kafka_user": "", "spark_remote": SecretStr("")}
    made = Job(stack.settings("batch").model_copy(update=changes))
    yield made
    made.warehouse.close()


def simulated(job: Job, seed: int = 5) -> Iterator[Reading]:
    """One room, a round a minute."""
    spec = job.catalog.type("room_node")
    return room_readings(
        spec, site="room-1", devices=7, cadence=timedelta(minutes=1), first_us=to_epoch_us(START), seed=seed
    )


def recorded() -> tuple[Iterator[Reading], timedelta]:
    """Its days apart as they were, and its hours of the day the same."""
    recording = Recording(OCCUPANCY, FORMAT, "room-1", 30_000_000)
    survey = recording.survey()
    first_us = to_epoch_us(START) + survey.first_us % 86_400_000_000
    return recording.readings(survey, first_us, loop=False), timedelta(days=1, microseconds=survey.span_us)


def until(readings: Iterable[Reading], end: timedelta) -> Iterator[Reading]:
    return takewhile(lambda r: r.event_time_us < to_epoch_us(START + end), readings)


def land(job: Job, readings: Iterable[Reading], since: timedelta = timedelta(0)) -> None:
    """Those since then, a row for each device and moment, and through the batch job."""
    rows = []
    wanted = (r for r in readings if r.event_time_us >= to_epoch_us(START + since))
    for moment, together in groupby(wanted, key=lambda r: r.event_time_us):
        of: dict[str, dict] = {}
        for reading in together:
            row = of.setdefault(
                reading.device_id,
                {"device_id": reading.device_id, "site": reading.site, "event_time": to_datetime(moment)},
            )
            row.update(reading.values)
        rows += of.values()
    offsets = {}
    for topic, partition in job.lake.landed_partitions():
        if (last := job.lake.last_manifest(topic, partition)) is not None:
            offsets[topic, partition] = last.last_offset + 1
    SmallLake(Lake(job.settings.lake), offsets).land(job.catalog.type("room_node"), rows)
    run_id = f"r{len(rows)}-{since}"
    for batch in job.begin(run_id, Request()):
        job.validate(run_id, batch)
        job.load(run_id, batch)
    job.finish(run_id)


def minutes_of(job: Job, window: Window = OPEN) -> Minutes:
    ledger = {r["partition"]: r["files_digest"] for r in job.warehouse.rows("SELECT * FROM ledger")}
    spec = job.catalog.type("room_node")
    data = loaded(read_index(job.lake).partitions.values(), ledger, spec, window)
    with session(job.settings) as spark:
        return read_minutes(spark, job.lake, spec, HEAD_COUNT, data.partitions)


def predictions(job: Job) -> list[tuple]:
    rows = job.warehouse.rows("SELECT at, model_id, site, value, truth FROM predictions ORDER BY model_id, site, at")
    return [tuple(row.values()) for row in rows]


def column(minutes: Minutes, feature: str) -> np.ndarray:
    return minutes.values[:, HEAD_COUNT.features.index(feature)]


def test_minutes_are_those_of_the_rollups(job: Job) -> None:
    """Joined by minute, trailing means over what was known, bad values and what nobody loaded left out."""
    spec = job.catalog.type("room_node")
    lake = SmallLake(job.lake)

    def at(minute: float) -> dict:
        return {"site": "room-1", "event_time": START + timedelta(minutes=minute)}

    lake.land(
        spec,
        [
            {"device_id": "s1", **at(0), "temperature": 20.0, "light": 10.0, "sound": 0.5},
            {"device_id": "s1", **at(0.5), "temperature": 21.0, "light": 30.0, "sound": 0.1},
            {"device_id": "s1", **at(0.5), "temperature": 21.0, "light": 30.0, "sound": 0.1},  # a duplicate
            {"device_id": "edge", **at(0.2), "occupancy": 1.0},
            {"device_id": "edge", **at(0.7), "occupancy": 2.0},
            {"device_id": "s1", **at(5), "sound": 4.0, "light": 200_000.0},  # a bad value
            {"device_id": "s5", **at(5), "co2": 400.0},
            {"device_id": "s1", **at(10), "sound": 1.0},
            {"device_id": "edge", **at(20), "occupancy": 3.0},  # nothing else is known then
            {"device_id": "s1", **at(70), "sound": 2.0},
        ],
    )
    for batch in job.begin("r", Request()):
        job.validate("r", batch)
        job.load("r", batch)
    lake.land(spec, [{"device_id": "s1", **at(75), "sound": 5.0}])  # its hour has changed since it was loaded
    found = minutes_of(job)
    assert found.at.tolist() == [(START + timedelta(minutes=m)).replace(tzinfo=None) for m in (0, 5, 10)]
    nan = pytest.approx(np.nan, nan_ok=True)
    assert found.truth.tolist() == [2.0, nan, nan]
    assert column(found, "s1_temperature").tolist() == [20.5, nan, nan]
    assert column(found, "s1_sound").tolist() == [0.5, 4.0, 1.0]
    assert column(found, "s1_sound_10m").tolist() == [0.5, 2.25, 2.5]  # (0, 10], and so without the first
    assert column(found, "s1_light").tolist() == [20.0, nan, nan]
    assert column(found, "s1_light_30m").tolist() == [20.0, 20.0, 20.0]
    assert column(found, "s5_co2").tolist() == [nan, 400.0, nan]
    assert np.isnan(column(found, "s7_pir")).all()


def test_features_know_nothing_of_later(job: Job) -> None:
    """What comes later changes none, and a part read by itself, with what it looks back to, is as in the whole."""
    land(job, until(simulated(job), timedelta(hours=3)))
    before = minutes_of(job)
    land(job, until(simulated(job), timedelta(hours=6)), since=timedelta(hours=3))
    whole = minutes_of(job)
    assert len(before) == 180 and len(whole) == 360
    for of in ("at", "site", "truth", "values"):
        np.testing.assert_array_equal(getattr(whole, of)[:180], getattr(before, of))
    border = START + timedelta(hours=4)
    part = minutes_of(job, Window(border - HEAD_COUNT.reach, None)).between(border, None)
    np.testing.assert_array_equal(part.values, whole.where(whole.at >= as_numpy(border)).values)


def test_too_little_is_no_failure(job: Job) -> None:
    now = START + timedelta(days=1)
    assert "not enough data: 0 minutes" in retrain(job, NAME, now).said
    assert score_model(job, NAME, now).said == "no model yet: nothing to estimate with"
    land(job, until(simulated(job), timedelta(hours=2)))
    outcome = retrain(job, NAME, now)
    assert "not enough data: 84 minutes" in outcome.said and outcome.model_id is None
    assert models.rows(job.warehouse) == []


def test_a_model_is_trained_promoted_used_and_rolled_back(job: Job, capfd: pytest.CaptureFixture[str]) -> None:
    now = START + timedelta(days=3)
    land(job, until(simulated(job), ALL))
    first = retrain(job, NAME, now)
    assert first.promoted, first.said
    (row,) = models.rows(job.warehouse)
    assert row["champion"] and row["parent"] is None and row["f1"] > 0.5
    assert row["trained_to"] < row["holdout_from"] < row["holdout_to"] < START + ALL
    assert {c["against"] for c in row["metrics"]["comparisons"]} == set(row["metrics"]["baselines"])

    # The same data is the same model, to the bit.
    again = retrain(job, NAME, now)
    assert (again.model_id, again.promoted) == (first.model_id, False) and "the same model" in again.said
    assert job.lake.files("models") == [path_of(NAME, row["sha256"])]

    # What it was not trained on, beside the truth; again is the same.
    scored = score_model(job, NAME, now)
    found = predictions(job)
    assert len(found) == scored.figures["minutes"] == row["metrics"]["holdout"]["minutes"]
    assert found[0][0] == row["holdout_from"]
    assert scored.figures["accuracy"] == pytest.approx(row["accuracy"])
    score_model(job, NAME, now)
    assert predictions(job) == found
    part = Window(row["holdout_from"], row["holdout_from"] + timedelta(hours=2))
    score_model(job, NAME, now, window=part)
    assert predictions(job) == found

    # Six hours more teach it nothing new.
    land(job, until(simulated(job), ALL + timedelta(hours=6)), since=ALL)
    second = retrain(job, NAME, now)
    assert not second.promoted and f"against the champion {first.model_id}" in second.said
    assert models.find(job.warehouse, second.model_id)["parent"] == first.model_id
    assert models.champion(job.warehouse, NAME)["model_id"] == first.model_id

    duel = compare_models(job, *(models.find(job.warehouse, o.model_id) for o in (first, second)), now)
    assert duel.comparison.low <= 0 <= duel.comparison.high
    with pytest.raises(ConfigurationError, match="the first champion of head_count"), job.warehouse.transaction() as c:
        models.roll_back(c, NAME)
    with job.warehouse.transaction() as c:
        assert models.promote(c, models.find(job.warehouse, second.model_id)) == first.model_id
    assert models.champion(job.warehouse, NAME)["model_id"] == second.model_id
    with job.warehouse.transaction() as c:
        assert models.roll_back(c, NAME) == (first.model_id, second.model_id)
    # Whoever went back from a model does not find it promoted by the next night.
    assert not retrain(job, NAME, now).promoted
    assert models.champion(job.warehouse, NAME)["model_id"] == first.model_id
    commands(job, first.model_id, second.model_id)
    harm(job, row)


def test_a_living_champion_makes_way_for_a_better_one_alone(job: Job, stack: Stack) -> None:
    """The same challenger against one that always says the same, and one that knows the minutes which decide."""
    now = START + timedelta(days=3)
    land(job, until(simulated(job), ALL))
    challenger = retrain(job, NAME, now).model_id
    row = models.find(job.warehouse, challenger)
    held_out = split(minutes_of(job)).holdout
    columns = [HEAD_COUNT.features.index(name) for name in row["features"]]
    for estimator, promoted in (
        (DummyClassifier(strategy="most_frequent"), True),
        (RandomForestClassifier(50, random_state=1), False),
    ):
        estimator.fit(held_out.values[:, columns], held_out.truth.astype(int))
        sha256 = artefact.store(job.lake, NAME, estimator)
        champion = sha256[: models.ID_LENGTH]
        empty(stack, "predictions, models")  # the challenger's row: it would not be judged again
        with job.warehouse.transaction() as c:
            models.add(c, {**row, "model_id": champion, "sha256": sha256})
        outcome = retrain(job, NAME, now)
        assert (outcome.model_id, outcome.promoted) == (challenger, promoted), outcome.said
        found = models.find(job.warehouse, challenger)
        assert found["parent"] == champion
        assert f"against the champion {champion}" in found["verdict"]
        assert models.champion(job.warehouse, NAME)["model_id"] == (challenger if promoted else champion)
        assert found["replaced"] == (champion if promoted else None)


def commands(job: Job, first: str, second: str) -> None:
    """As an operator types them."""
    weir = command(
        WEIR_HOME=job.settings.home, WEIR_LAKE_URI=job.settings.lake, WEIR_TYPES_DIR=job.settings.types_dir,
        WEIR_DB_URL=job.settings.db_url.get_secret_value(), WEIR_JAVA_HOME=str(job.settings.java_home),
    )  # fmt: skip

    def told(*arguments: str, code: int = 0) -> str:
        done = weir("models", *arguments, code=code)
        return done.stdout + done.stderr

    listed = told("list").splitlines()
    assert [first in listed[1], "champion" in listed[1], second in listed[2]] == [True, True, True]
    assert "better by more than noise" in told("show", first[:6])
    assert f"{second} is the champion of head_count; before: {first}" in told("promote", second)
    assert f"{first} is the champion of head_count again" in told("rollback", NAME)
    assert "no more than noise" in told("compare", first, second)
    assert f"no model '{'f' * 14}'" in told("show", "f" * 14, code=1)
    assert "did you mean 'head_count'?" in told("rollback", "head_cuont", code=1)


def harm(job: Job, row: dict) -> None:
    """A champion that can no longer be used estimates nothing and holds nothing up."""
    now = START + timedelta(days=3)
    kept = job.lake.read(path_of(NAME, row["sha256"]))
    job.lake.write(path_of(NAME, row["sha256"]), kept[:-1])
    with pytest.raises(DataError, match="is not what was stored"):
        score_model(job, NAME, now)
    job.lake.write(path_of(NAME, row["sha256"]), kept)
    with pytest.raises(
        DataError, match=r"estimates from 's9_sound', which head_count no longer has; did you mean 's._sound'"
    ):
        score_model(job, NAME, now, {**row, "features": [*row["features"][:-1], "s9_sound"]})
    with pytest.raises(DataError, match=r"was made with scikit-learn 0\.1"):
        score_model(job, NAME, now, {**row, "libraries": {"scikit-learn": "0.1"}})
    with job.warehouse.transaction() as c:
        models.only_retrain(c, NAME)
        with pytest.raises(Unavailable, match="head_count is being trained by somebody else"):
            retrain(job, NAME, now)
    job.lake.sweep([path_of(NAME, row["sha256"])])
    land(job, until(simulated(job), ALL + timedelta(hours=12)), since=ALL + timedelta(hours=6))
    third = retrain(job, NAME, now)
    assert third.promoted and "not compared with the champion" in third.said and "is gone" in third.said


@needs_occupancy
def test_the_recording(job: Job) -> None:
    """The real room, its newest days held out. Too few of their hours have people in them to decide anything: a
    candidate, which estimates as long as there is no champion. See docs/models.md."""
    readings, span = recorded()
    land(job, readings)
    now = START + span
    outcome = retrain(job, NAME, now)
    (row,) = models.rows(job.warehouse)
    assert row["accuracy"] > 0.85
    assert row["f1"] > row["metrics"]["baselines"]["the most frequent count"]["f1"]
    assert outcome.said.startswith(f"{row['model_id']} is not promoted: undecided, as not enough is held out")
    scored = score_model(job, NAME, now, window=Window(row["holdout_from"], None))
    assert scored.figures["with truth"] == len(predictions(job)) == row["metrics"]["holdout"]["minutes"]
    assert scored.figures["accuracy"] == pytest.approx(row["accuracy"])
