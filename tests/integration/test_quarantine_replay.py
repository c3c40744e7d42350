"""Dead letters and values that today's specs take: onto the real Kafka once, and through the real job."""

import base64
import json
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition
from pydantic import SecretStr
from sqlalchemy import text

from connections import kafka
from connections.lake import Lake
from etl.late_alerts import write_late_alerts
from etl.quarantine import Filter, at_place, rows, stats
from etl.replay import Replay, has_landed, replay
from etl.run import Job, Request
from etl.window import Window
from fleet.channels import REJECTED, RETURNED, mark_of
from fleet.dead_letter import DeadLetter, encode_dead_letter
from fleet.reading import decode_reading
from fleet.settings import CHECKOUT, Settings
from stack.stack import Stack
from tests.command import command
from tests.integration.broken_off import Commands, Point
from tests.integration.logs import readings
from tests.integration.processes import Process, wait_for
from tests.integration.small_lake import SmallLake

pytestmark = pytest.mark.stack
SettingsFor = Callable[[str], Settings]
HOUR = datetime(2026, 11, 21, 7, tzinfo=UTC)
HALF_PAST, SECOND = HOUR + timedelta(minutes=30), timedelta(seconds=1)
TYPE = "weather_station"


class Ground:
    """A lake of its own and a specs folder of its own; Kafka and the warehouse are those of all tests."""

    def __init__(self, settings_for: SettingsFor, home: Path):
        self.types = home / "types"
        self.types.mkdir()
        self.spec = (CHECKOUT / "fleet" / "types" / f"{TYPE}.yaml").read_text()
        self.write(self.spec)
        self.settings = settings_for("batch").model_copy(
            update={
                "home": home, "lake_uri": f"file://{home}/lake", "types_dir": self.types, "spark_remote": SecretStr("")
            }
        )  # fmt: skip
        self.lake = SmallLake(Lake(self.settings.lake))
        # The table of replays goes by the dead letters' places, which those of other tests must not share.
        self.lake.offsets["readings.rejected", 0] = self.first = random.randrange(10**9, 10**12)
        self.job = Job(self.settings)

    def write(self, spec: str) -> None:
        (self.types / f"{TYPE}.yaml").write_text(spec)

    def mend(self, old: str, new: str) -> None:
        """The spec, as its author does it."""
        assert old in self.spec
        self.write(self.spec.replace(old, new))
        self.job.warehouse.close()
        self.job = Job(self.settings)

    def message(self, device: str, second: float, **values: Any) -> dict[str, Any]:
        at = HOUR + timedelta(seconds=second)
        payload = {"sensor_id": device, "timestamp": at.timestamp(), **values}
        return {
            "reason": "unknown_metric", "mqtt_topic": f"dt/weather/field/{TYPE}/{device}", "received_at": at,
            "payload": json.dumps(payload).encode(),
        }  # fmt: skip

    def written(self, start: dict[Any, int]) -> list[Any]:
        """Readings since then."""
        return [decode_reading(r.value) for r in self._records(start)]

    def marks(self, start: dict[Any, int]) -> list[bytes | None]:
        return [mark_of(r.headers) for r in self._records(start)]

    def _records(self, start: dict[Any, int]) -> list[Any]:
        found = readings(self.settings, self.job.catalog.type(TYPE).topic)
        return [r for r in found if r.offset >= start[TopicPartition(r.topic, r.partition)]]

    def end(self) -> dict[Any, int]:
        consumer = kafka.consumer(self.settings, "tests-end")
        found = kafka.end_offsets(consumer, [self.job.catalog.type(TYPE).topic])
        consumer.close()
        return dict(found)


@pytest.fixture
def ground(settings_for: SettingsFor, tmp_path: Path) -> Iterator[Ground]:
    made = Ground(settings_for, tmp_path)
    with made.job.warehouse.transaction() as connection:  # a replay without a filter is of all that is there
        connection.execute(text("DELETE FROM quarantine"))
    yield made
    made.job.warehouse.close()


SUNSHINE = "  humidity:", "  sunshine: {unit: percent, range: [0, 100]}\n  humidity:"


def mended(ground: Ground, at: datetime = HOUR) -> None:
    """They were appended at that time."""
    ground.lake.land_rejects(
        [ground.message("d1", 1, sunshine=40), ground.message("d2", 2, moonshine=4), {"reason": "malformed_json"}], at
    )
    ground.mend(*SUNSHINE)


def test_a_dead_letter_that_is_a_reading_now_comes_back_once(ground: Ground) -> None:
    mended(ground)
    start = ground.end()
    dry = replay(ground.job, Filter(), "dry", dry_run=True)
    assert (dry.letters, dry.ends, ground.written(start)) == ({TYPE: 1}, {}, [])
    found = replay(ground.job, Filter(), "first")
    assert found.letters == {TYPE: 1}
    assert found.still == {"unknown_metric": 1, "malformed_json": 1}
    assert found.partitions == {f"weather/{TYPE}/2026-11-21T07"}
    assert not has_landed(ground.job, found.ends)
    (reading,) = ground.written(start)
    assert ground.marks(start) == [RETURNED], "so that rules pass over it"
    assert (reading.device_id, reading.event_time) == ("d1", HOUR + timedelta(seconds=1))
    assert reading.values == {"sunshine": 40}
    again = replay(ground.job, Filter(), "second")
    assert (again.letters, again.before, again.partitions) == ({}, 1, set())
    assert len(ground.written(start)) == 1
    (row,) = ground.job.warehouse.rows(
        "SELECT * FROM quarantine_replays WHERE replay_id = 'first' AND kafka_offset = :first", first=ground.first
    )
    assert (row["kafka_offset"], row["lake_partition"]) == (ground.first, f"weather/{TYPE}/2026-11-21T07")


def test_a_row_of_a_file_comes_back_where_its_device_stands(ground: Ground, stack: Stack) -> None:
    """It need not say its site: the registry does."""
    device = f"row-{ground.first}"
    command(WEIR_HOME=stack.layout.home)("devices", "add", TYPE, device, "--site", "mast")
    row = {"device_id": device, "event_time": HOUR.isoformat(), "sunshine": 40}
    letter = {
        "reason": "unknown_metric", "mqtt_topic": f"file/{TYPE}/a.csv:2", "received_at": HOUR,
        "payload": json.dumps(row).encode(),
    }  # fmt: skip
    ground.lake.land_rejects([letter], HOUR)
    ground.mend(*SUNSHINE)
    start = ground.end()
    assert replay(ground.job, Filter(), "row").letters == {TYPE: 1}
    (reading,) = ground.written(start)
    assert (reading.device_id, reading.site) == (device, "mast")


def test_a_row_of_a_file_with_several_metrics_comes_back_whole(ground: Ground) -> None:
    """As a reading for each, where messages of the type carry one each; all of them have to land."""
    shutil.copy(CHECKOUT / "fleet" / "types" / "room_node.yaml", ground.types)
    ground.mend("", "")
    topic = ground.job.catalog.type("room_node").topic
    row = {"device_id": f"s{ground.first}", "event_time": HOUR.isoformat(), "site": "room-1", "co2": 500, "light": 9}
    letter = {
        "reason": "retired_device", "mqtt_topic": "file/room_node/a.csv:2", "received_at": HOUR,
        "system": "occupancy", "device_type": "room_node", "payload": json.dumps(row).encode(),
    }  # fmt: skip
    ground.lake.land_rejects([letter], HOUR)
    found = replay(ground.job, Filter(), f"row-{ground.first}")
    sent = [r for r in readings(ground.settings, topic) if decode_reading(r.value).device_id == row["device_id"]]
    assert sorted(str(decode_reading(r.value).values) for r in sent) == ["{'co2': 500.0}", "{'light': 9.0}"]
    (at,) = ground.job.warehouse.rows(
        "SELECT to_topic, to_offset || more_offsets AS offsets FROM quarantine_replays WHERE kafka_offset = :first",
        first=ground.first,
    )
    assert (at["to_topic"], at["offsets"]) == (topic, [r.offset for r in sent])
    assert found.ends == {f"{topic}/{sent[0].partition}": sent[-1].offset + 1}


def test_a_kill_between_kafka_and_the_table_gives_it_twice_at_most(ground: Ground) -> None:
    mended(ground)
    start = ground.end()
    settings = ground.settings
    environment = {
        "WEIR_ENV_FILE": str(settings.env_file), "WEIR_HOME": str(settings.home), "WEIR_LAKE_URI": settings.lake,
        "WEIR_TYPES_DIR": str(ground.types),
    }  # fmt: skip
    commands = Commands(environment, settings.home)
    code, said = commands.run("quarantine", "replay", point=Point("before", "etl.replay:_row"))
    commands.close()
    assert code == -signal.SIGKILL, said
    assert len(ground.written(start)) == 1
    whole = replay(ground.job, Filter(), "whole")
    again = replay(ground.job, Filter(), "whole")
    assert (again.letters, again.partitions, again.ends) == ({}, whole.partitions, whole.ends), "a task tried again"
    replay(ground.job, Filter(), "more")
    first, second = ground.written(start)
    assert first == second, "which the batch takes for a duplicate"


def test_two_at_once_give_it_once(ground: Ground) -> None:
    mended(ground)
    start = ground.end()
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda name: replay(Job(ground.settings), Filter(), name), ("one", "other")))
    assert sorted(one.letters.total() for one in found) == [0, 1]
    assert len(ground.written(start)) == 1


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        (Filter(system="occupancy"), 0),
        (Filter(type=TYPE), 1),
        (Filter(reason="malformed_json"), 0),
        (Filter(device="d1"), 1),
        (Filter(device="d9"), 0),
        (Filter(metric="temperature"), 0),
        (Filter(window=Window(None, HALF_PAST - SECOND)), 0),
        (Filter(window=Window(HALF_PAST + SECOND, None)), 0),
        (Filter(window=Window(HALF_PAST - SECOND, HALF_PAST + SECOND)), 1),
        (Filter(window=Window(HALF_PAST, None)), 1),
        (Filter(window=Window(HOUR, HALF_PAST)), 0),
    ],
)
def test_filters(ground: Ground, asked: Filter, count: int) -> None:
    """In the midst of a folder of the lake, all of which a window touches that touches it at all."""
    mended(ground, HALF_PAST)
    assert sum(replay(ground.job, asked, "filter", dry_run=True).letters.values()) == count


def run(job: Job, run_id: str, found: Replay | None = None) -> None:
    request = Request() if found is None else Request(partitions=tuple(sorted(found.partitions)))
    for batch in job.begin(run_id, request):
        job.validate(run_id, batch)
        job.load(run_id, batch)


def test_values_in_range_now_are_valid_after_their_partitions_are_processed(ground: Ground, stack: Stack) -> None:
    spec = ground.job.catalog.type(TYPE)
    device = f"d{ground.first}"
    ground.lake.offsets[spec.topic, 0] = ground.first
    low = {"device_id": device, "event_time": HOUR, "temperature": 70.0}
    ground.lake.land(spec, [low, {**low, "event_time": HOUR + timedelta(seconds=2), "temperature": 900.0}])
    run(ground.job, f"before-{ground.first}")
    asked, warehouse = Filter(device=device), ground.job.warehouse
    assert [row["value"] for row in rows(warehouse, asked, 10) if row["what"] == "value"] == [900.0, 70.0]
    (count,) = [row for row in stats(warehouse, asked) if row["what"] == "value"]
    assert (count["reason"], count["metric"], count["rows"]) == ("out_of_range", "temperature", 2)
    weir, until = command(WEIR_HOME=stack.layout.home), (HOUR + timedelta(seconds=2)).isoformat()
    of_first = "--device", device, "--from", HOUR.isoformat(), "--to", until, "--json"
    listed, counted = (json.loads(weir("quarantine", name, *of_first).stdout) for name in ("list", "stats"))
    assert [row["value"] for row in listed if row["what"] == "value"] == [70.0]
    assert [row["rows"] for row in counted if row["what"] == "value"] == [1]
    ground.mend("range: [-40, 60]", "range: [-40, 80]")
    found = replay(ground.job, asked, f"values-{ground.first}")
    assert (found.values, found.still) == ({f"{TYPE}.temperature": 1}, {"out_of_range": 1})
    run(ground.job, f"after-{ground.first}", found)
    assert [row["value"] for row in rows(ground.job.warehouse, asked, 10) if row["what"] == "value"] == [900.0]
    (place,) = {row["place"] for row in rows(ground.job.warehouse, asked, 10)}
    assert {row["what"] for row in at_place(ground.job.warehouse, place)} == {"value", "reading"}
    rolled = ground.job.warehouse.rows(
        "SELECT count FROM rollups WHERE device_id = :device AND grain = '1h'", device=device
    )
    assert [row["count"] for row in rolled] == [1]


def test_alerts_that_would_have_fired_are_written_down(ground: Ground) -> None:
    device, replay_id = f"l{ground.first}", f"late-{ground.first}"
    cool = [{"device_id": device, "event_time": HOUR + timedelta(seconds=s), "temperature": 20.0} for s in (0, 40)]
    ground.lake.offsets[ground.job.catalog.type(TYPE).topic, 0] = ground.first
    ground.lake.land(ground.job.catalog.type(TYPE), cool)
    ground.lake.land_rejects([ground.message(device, s, temperature=40.0, sunshine=9) for s in (10, 20)], HOUR)
    ground.mend(*SUNSHINE)
    replay(ground.job, Filter(), replay_id)
    assert write_late_alerts(ground.job, replay_id) == 0, "it has not landed yet"
    spec = ground.job.catalog.type(TYPE)
    for row in ground.job.warehouse.rows(
        "SELECT * FROM quarantine_replays WHERE replay_id = :id ORDER BY to_offset", id=replay_id
    ):
        hot = {"device_id": device, "event_time": row["event_time"], "temperature": 40.0, "sunshine": 9.0}
        ground.lake.offsets[row["to_topic"], row["to_partition"]] = row["to_offset"]
        ground.lake.land(spec, [hot], kafka_partition=row["to_partition"])
    for _ in range(2):
        assert write_late_alerts(ground.job, replay_id) == 1
        (late,) = ground.job.warehouse.rows("SELECT * FROM late_alerts WHERE device_id = :device", device=device)
        assert (late["rule"], late["severity"]) == ("high_temperature", "warning")
        assert (late["fired_at"], late["resolved_at"]) == (HOUR + timedelta(seconds=10), HOUR + timedelta(seconds=40))


def test_alerts_of_values_that_are_in_range_now(ground: Ground) -> None:
    spec, device = ground.job.catalog.type(TYPE), f"v{ground.first}"
    ground.lake.offsets[spec.topic, 0] = ground.first
    said = [(0, 20.0), (10, 70.0), (20, 71.0), (30, 20.0), (40, 36.0), (50, 20.0)]
    ground.lake.land(spec, [{"device_id": device, "event_time": HOUR + timedelta(seconds=s), "temperature": t}
                            for s, t in said])  # fmt: skip
    run(ground.job, f"first-{ground.first}")
    ground.mend("range: [-40, 60]", "range: [-40, 80]")
    found = replay(ground.job, Filter(device=device), f"late-{ground.first}")
    for _ in range(2):
        assert write_late_alerts(ground.job, f"late-{ground.first}", found.partitions) == 1
    (late,) = ground.job.warehouse.rows("SELECT * FROM late_alerts WHERE device_id = :device", device=device)
    assert (late["fired_at"], late["resolved_at"]) == (HOUR + timedelta(seconds=10), HOUR + timedelta(seconds=30))


def test_alerts_of_values_that_an_ordinary_run_lets_come_back(ground: Ground) -> None:
    """A spec was mended, and then a late file came."""
    spec, device = ground.job.catalog.type(TYPE), f"o{ground.first}"
    hour = HOUR + timedelta(hours=5)  # the warehouse is everybody's: of fewer rows than it has, none are loaded
    ground.lake.offsets[spec.topic, 0] = ground.first
    said = [(0, 20.0), (10, 70.0), (20, 20.0)]
    ground.lake.land(spec, [{"device_id": device, "event_time": hour + timedelta(seconds=s), "temperature": t}
                            for s, t in said])  # fmt: skip
    run(ground.job, f"first-{ground.first}")
    ground.mend("range: [-40, 60]", "range: [-40, 80]")
    ground.lake.land(spec, [{"device_id": device, "event_time": hour + timedelta(seconds=30), "temperature": 20.0}])
    (batch,) = ground.job.begin(f"late-{ground.first}", Request())
    assert write_late_alerts(ground.job, f"late-{ground.first}", batch.partitions) == 1
    (late,) = ground.job.warehouse.rows("SELECT * FROM late_alerts WHERE device_id = :device", device=device)
    assert (late["fired_at"], late["resolved_at"]) == (hour + timedelta(seconds=10), hour + timedelta(seconds=20))


def test_the_command_brings_it_through_kafka_landing_and_the_job(
    ground: Ground, settings_for: SettingsFor, stack: Stack, tmp_path: Path
) -> None:
    ground.mend(*SUNSHINE)
    device, settings = f"c{ground.first}", ground.settings
    message = ground.message(device, 5, temperature=40.0, sunshine=9)
    letter = DeadLetter(
        "unknown_metric", "no \x1b[2J metric", "weather", TYPE, 1, round(HOUR.timestamp() * 1000),
        base64.b64encode(message["payload"]).decode(), mqtt_topic=message["mqtt_topic"],
    )  # fmt: skip
    producer = kafka.producer(settings_for("bridge"), "tests")
    at = producer.send(REJECTED, encode_dead_letter(letter)).get(20)
    kafka.close(producer, 5)
    own = {"WEIR_TYPES_DIR": ground.types, "WEIR_LAKE_URI": settings.lake}
    weir = command(WEIR_HOME=stack.layout.home, WEIR_SPARK_REMOTE="", **own)
    log = tmp_path / "landing.log"
    del ground.lake.offsets[REJECTED, 0]
    with Process("landing", settings_for("landing"), log, WEIR_LANDING_MAX_SECONDS=0.5, **own).start().ready():
        wait_for(lambda: has_landed(ground.job, {f"{REJECTED}/0": at.offset + 1}), 30, log.read_text)
        assert f"readings of {TYPE} 1" in weir("quarantine", "replay", "--device", device, "--dry-run").stdout
        found = json.loads(weir("quarantine", "replay", "--device", device, "--json").stdout)
        assert (found["letters"], found["still"], found["before"]) == ({TYPE: 1}, {}, 0)
        assert (found["partitions"], found["late_alerts"]) == ([f"weather/{TYPE}/2026-11-21T07"], 1)
        assert found["run"]["problems"] == []
        again = json.loads(weir("quarantine", "replay", "--device", device, "--json").stdout)
        assert (again["letters"], again["before"], again["late_alerts"]) == ({}, 1, 0)
        assert "run" not in again
    rolled = ground.job.warehouse.rows(
        "SELECT mean FROM rollups WHERE device_id = :d AND grain = '1h' AND metric = 'temperature'", d=device
    )
    assert [row["mean"] for row in rolled] == [40.0]
    weir("etl", "run", "--system", "weather")
    shown = weir("quarantine", "show", f"{REJECTED}/0/{at.offset}").stdout
    assert "no \\x1b[2J metric" in shown, "no control character reaches the terminal"
    assert "to_offset" in shown
    assert "high_temperature" in weir("quarantine", "alerts").stdout
    listed = weir("quarantine", "list", "--reason", "unknown_metric", "--json").stdout
    assert f"{REJECTED}/0/{at.offset}" in {row["place"] for row in json.loads(listed)}


@pytest.mark.parametrize("place", ["readings.rejected/0/99999999999999999999", "one/2/three", ""])
def test_a_place_where_there_is_nothing(stack: Stack, place: str) -> None:
    said = command(WEIR_HOME=stack.layout.home)("quarantine", "show", place, code=1).stderr
    assert "nothing is quarantined at" in said or "is no place" in said


def test_readings_without_values_come_back_with_them(stack: Stack) -> None:
    asked = "quarantine", "replay", "--reason", "all_values_quarantined", "--dry-run"
    said = command(WEIR_HOME=stack.layout.home)(*asked, code=1).stderr
    assert "comes back with its values: reason out_of_range" in said


@pytest.mark.parametrize("command_", ["list", "stats", "replay"])
@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--system", "wether", "no system 'wether'; did you mean 'weather'"),
        ("--type", "weather_sation", "no type 'weather_sation'; did you mean 'weather_station'"),
        ("--reason", "unknown_metrik", "no reason 'unknown_metrik'; did you mean 'unknown_metric'"),
        ("--metric", "temprature", "no metric 'temprature'"),
        ("--device", "nobody-here", "no device 'nobody-here' is known"),
        ("--from", "yesterday", "is no time"),
    ],
)
def test_a_filter_that_is_mistyped(stack: Stack, command_: str, option: str, value: str, problem: str) -> None:
    said = command(WEIR_HOME=stack.layout.home)("quarantine", command_, option, value, code=1).stderr
    assert problem in said
