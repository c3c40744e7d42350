"""The whole way, from Kafka by the lake to the warehouse, with the lake on each kind of store: the same to a bit."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import etl.backtest
from connections import kafka
from connections.warehouse import Warehouse
from etl.landed_log import LandedLog
from etl.run import Job
from fleet.compaction import LEAST_FILES
from fleet.reading import Reading, encode_reading
from fleet.settings import CHECKOUT, Settings
from tests.command import command
from tests.integration.batch_runs import TABLES, contents
from tests.integration.processes import Process, wait_for
from tests.integration.store_servers import SECRET, Place
from tests.integration.test_landing import Writer, caught_up, check, ends

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(900)]

SettingsFor = Callable[[str], Settings]
HOUR = datetime(2026, 11, 20, 7, tzinfo=UTC)
TYPE, SITE = "weather_station", "stores"


def send(settings: Settings, readings: list[Reading], junk: int = 0) -> None:
    producer = kafka.producer(settings, "tests-stores")
    for reading in readings:
        producer.send("sensor", encode_reading(reading), reading.device_id.encode())
    for number in range(junk):
        producer.send("sensor", b"\xff junk", str(number).encode())
    kafka.close(producer, 20)


def reading(device: int, second: float, seq: int | None = None, **values: float) -> Reading:
    at = HOUR + timedelta(seconds=second)
    return Reading(f"store-{device}", TYPE, SITE, round(at.timestamp() * 1_000_000), values, seq)


def day() -> list[Reading]:
    """Two hours of 20 stations: with duplicates, values out of range, and all of a reading's values bad."""
    found = [
        reading(device, 20 * n + device / 7, n, temperature=20 + (n * device % 97) / 13, humidity=40 + n % 31 / 3)
        for n in range(360)
        for device in range(20)
    ]
    bad = [reading(3, 77, 1000, temperature=99.0, humidity=45.0), reading(4, 78, 1001, humidity=999.0)]
    return [*found, *found[::50], *bad]


class Ground:
    """One kind of store: its lake, landing's and the batch's settings for it."""

    def __init__(self, settings_for: SettingsFor, place: Place, home: Path):
        self.place, self.home = place, home
        types = home / "types"
        types.mkdir(parents=True)
        (types / f"{TYPE}.yaml").write_text((CHECKOUT / "fleet" / "types" / f"{TYPE}.yaml").read_text())
        self._landing, batch = settings_for("landing"), settings_for("batch")
        self._settings: dict[str, object] = {
            **place.environment, "WEIR_LAKE_URI": place.uri, "WEIR_TYPES_DIR": types, "WEIR_HOME": home,
        }  # fmt: skip
        self.weir = command(**self._settings, WEIR_ENV_FILE=batch.env_file, WEIR_SPARK_REMOTE="")
        self.job_settings = batch.model_copy(update={"types_dir": types, "home": home})

    @contextmanager
    def landing(self, **more: object) -> Iterator[Process]:
        log = self.home / "landing.log"
        with Process("landing", self._landing, log, **{**self._settings, "WEIR_LANDING_MAX_SECONDS": 1, **more}) as it:
            yield it.start()
        for secret in (SECRET, "wrong-secret"):
            assert secret not in log.read_text()

    def land(self, operator: Settings) -> None:
        """All that Kafka has."""
        with self.landing(WEIR_LANDING_MAX_ROWS=200) as landing:
            wait_for(lambda: caught_up(self.place.lake, operator, ["sensor"]), 60, landing.readiness, every=0.5)
            assert landing.stop() == 0

    def run(self, *options: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.weir("etl", "run", "--json", *options).stdout)
        return found

    def compact(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.weir("lake", "compact", "--json").stdout)
        return found

    def empty(self) -> None:
        warehouse = Warehouse.of(self.job_settings)
        with warehouse.transaction() as c:
            for table in TABLES:
                c.execute(text(f"DELETE FROM {table}"))
        warehouse.close()

    def loaded(self) -> dict[str, Any]:
        job = Job(self.job_settings.model_copy(update={"lake_uri": f"file://{self.home}/none"}))
        try:
            return contents(job)
        finally:
            job.warehouse.close()

    def backtest(self, until: datetime) -> dict[str, Any]:
        spec, warm = (self.home / "types" / f"{TYPE}.yaml").read_text(), self.home / "warm.yaml"
        warm.write_text(spec.replace("temperature > 35, clear: temperature < 34", "temperature > 26"))
        span = ("--from", HOUR.isoformat(), "--to", until.isoformat())
        found: dict[str, Any] = json.loads(self.weir("rules", "backtest", "--rule", str(warm), *span, "--json").stdout)
        return found

    def arrivals(self) -> list[Any]:
        """Kafka's log as the parity audit reads it from the lake."""
        lake = self.place.lake
        return [
            list(LandedLog(lake, "sensor", number).arrivals(0, last.last_offset + 1, []))
            for topic, number in lake.landed_partitions()
            if topic == "sensor" and (last := lake.last_manifest(topic, number))
        ]


def test_readings_come_through_each_store_alike_and_so_they_do_from_compacted_files(
    settings_for: SettingsFor, places: dict[str, Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, simulator = settings_for("operator"), settings_for("simulator")
    kinds = {"file": Place(f"file://{tmp_path}/lake")} | {n: p.below(tmp_path.name) for n, p in places.items()}
    grounds = {name: Ground(settings_for, place, tmp_path / name) for name, place in kinds.items()}
    parts = 3  # each lands in a file of each hour and partition of Kafka: enough for compaction
    for number in range(parts):
        send(simulator, day()[number::parts], junk=5 * (number == 0))
        for ground in grounds.values():
            with ground.place.used():
                ground.land(operator)
    send(simulator, [reading(7, 4000.5, 5000, temperature=21.25)])
    until = datetime.now(UTC)
    found: dict[str, Any] = {}
    for name, ground in grounds.items():
        with ground.place.used():
            ground.empty()
            first, before = ground.run(), ground.loaded()
            ground.land(operator)
            more, after = ground.run(), ground.loaded()
            here = ground.backtest(until)
            with monkeypatch.context() as patch:
                patch.setattr(etl.backtest, "LONG", 1)
                assert ground.backtest(until) == here, "Spark's tasks say what this process says"
            found[name] = first, before, more, after, ground.arrivals(), here
            fewer = ground.compact()
            assert fewer["damaged"] == []
            assert (fewer["partitions"], fewer["files_after"]) == (2, 2)
            assert fewer["files_before"] >= 2 * LEAST_FILES
            assert ground.run()["partitions"] == 0, "the same readings are nothing new"
            assert ground.run("--force")["problems"] == []
            with monkeypatch.context() as patch:
                patch.setattr(etl.backtest, "LONG", 1)
                assert (ground.loaded(), ground.arrivals(), ground.backtest(until)) == found[name][3:]
    told = ("partitions", "landed", "valid", "quarantined", "duplicate", "rollup_rows", "anomalies", "dead_letters")
    for first, _, second, *_ in found.values():
        assert first["landed"] >= 7200 + 144 + 2
        assert first["problems"] == second["problems"] == []
        assert (second["partitions"], second["landed"] > 3600) == (1, True), "the late reading's, and no other"
    (figures, before, more, after, arrivals, backtest), *others = found.values()
    assert sum(map(len, arrivals)) >= 7347
    assert len(backtest["transitions"]) > 100
    for other in others:
        assert [{key: run[key] for key in told} for run in (other[0], other[2])] == [
            {key: run[key] for key in told} for run in (figures, more)
        ]
        assert other[1] == before
        assert other[3] == after
        assert other[4:] == (arrivals, backtest)


def test_a_datanode_that_dies_in_mid_landing_costs_nothing(
    settings_for: SettingsFor, places: dict[str, Place], tmp_path: Path
) -> None:
    operator, place = settings_for("operator"), places["hdfs"].below(tmp_path.name)
    landing = Process(
        "landing", settings_for("landing"), tmp_path / "landing.log", **place.environment,
        WEIR_LAKE_URI=place.uri, WEIR_LANDING_MAX_ROWS=300, WEIR_LANDING_MAX_SECONDS=0.3,
    )  # fmt: skip
    with landing.start().ready():
        writer = Writer(settings_for("simulator"), "hdfs")
        wait_for(lambda: landing.metric("weir_landing_flushes_total") >= 5, 30, landing.log.read_text)
        place.servers["data"].kill()
        wait_for(lambda: "the lake does not take or give" in landing.readiness(), 30, landing.readiness)
        wait_for(lambda: landing.metric("weir_landing_failed_flushes_total") >= 5, 30, "it does not try again")
        place.servers["data"].start()
        landing.ready(60)
        writer.end()
        wait_for(lambda: caught_up(place.lake, operator), 60, landing.readiness, every=0.5)
        assert landing.stop() == 0
    check(place.lake, operator, ends(operator))


REFUSALS = {
    "wrong secret": ("s3proxy", {"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, "", "AWS_SECRET_ACCESS_KEY"),
    "no such bucket": ("moto", {}, "s3://missing/lake", "make the bucket, or name another in WEIR_LAKE_URI"),
    "another's folder": ("hdfs", {"HADOOP_USER_NAME": "stranger"}, "", "HADOOP_USER_NAME"),
}


@pytest.mark.parametrize(("kind", "changes", "uri", "hint"), REFUSALS.values(), ids=REFUSALS)
def test_landing_and_batch_say_what_to_set(
    settings_for: SettingsFor, places: dict[str, Place], tmp_path: Path,
    kind: str, changes: dict[str, str], uri: str, hint: str,
) -> None:  # fmt: skip
    place = places[kind].below(tmp_path.name)
    wrong = Place(uri or place.uri, {**place.environment, **changes})
    ground = Ground(settings_for, wrong, tmp_path / kind)
    with ground.landing() as landing:
        wait_for(lambda: hint in landing.readiness(), 30, landing.readiness)
        assert landing.alive()
    told = ground.weir("etl", "run", code=1).stderr
    assert hint in told
    assert SECRET not in told
    assert "wrong-secret" not in told
