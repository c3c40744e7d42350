"""The parity audit of an alert service that is killed again and again, over a real log; then of what is made wrong."""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from kafka import TopicPartition
from pyarrow import parquet
from sqlalchemy import text

from connections import kafka
from connections.kafka_admin import KafkaAdmin
from connections.lake import Lake
from connections.partition_log import committed
from connections.warehouse import Warehouse
from etl.compaction import compact
from etl.lake_tidy import tidy
from etl.landed_log import published as in_the_lake
from fleet.catalog import load_catalog
from fleet.channels import CONTROL, MARK_HEADER, TRANSITIONS
from fleet.compaction import GRACE
from fleet.control import Spec, encode_control
from fleet.manifest import DataFile, Manifest, encode_manifest
from fleet.settings import Settings
from fleet.transition import Transition
from stack.credentials import owner_url
from stack.provision import provision_kafka
from stack.stack import Stack
from streaming.history import History
from streaming.history import write as write_history
from tests.chaos.ground import SYSTEM, TOPIC, TYPE, Feed, log_of, published
from tests.chaos.run import TYPES
from tests.command import Weir, command
from tests.integration.processes import Process, wait_for
from tests.integration.small_lake import still

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

KILLS = int(os.environ.get("PARITY_KILLS", "8"))
COMMITS_A_KILL = 5
HOTTER = ("{id: hot, when: heat > 80,", "{id: hot, when: heat > 90,")


@dataclass
class Ran:
    """What a run has left."""

    stack: Stack
    lake: Path
    begin: datetime
    middle: datetime
    """A moment between two flushes."""
    said: int
    """Transitions on Kafka."""

    def weir(self, lake: Path, types: Path = TYPES) -> Weir:
        return command(WEIR_HOME=self.stack.layout.home, WEIR_TYPES_DIR=types, WEIR_LAKE_URI=f"file://{lake}")

    def parity(self, lake: Path, *more: str, code: int = 0, types: Path = TYPES, **times: datetime) -> dict[str, Any]:
        times = {"from": self.begin, "to": datetime.now(UTC)} | times
        span = [word for name, time in times.items() for word in (f"--{name}", time.isoformat())]
        said = self.weir(lake, types)("rules", "parity", "--system", SYSTEM, *span, *more, "--json", code=code)
        (found,) = json.loads(said.stdout)["systems"]
        return found  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def ran(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("parity")
    provision_kafka(f"127.0.0.1:{stack.ports.kafka}", stack.secrets, load_catalog(TYPES))
    common = {"WEIR_TYPES_DIR": TYPES, "WEIR_LAKE_URI": f"file://{folder}/lake"}
    begin = datetime.now(UTC)

    def process(name: str, **changes: object) -> Process:
        return Process(name, stack.settings(name), folder / f"{name}.log", **common, **changes)

    with process("alerts", WEIR_ALERTS_SNAPSHOT_SECONDS=1) as alerts, process(
        "landing", WEIR_LANDING_MAX_SECONDS=1
    ) as landing:  # fmt: skip
        for service in (alerts, landing):
            service.start()
        simulator = stack.settings("simulator")
        spec = (TYPES / f"{TYPE}.yaml").read_text()
        feed = Feed(simulator, spec, seed=5, devices=40)
        for kill in range(1, KILLS + 1):
            alerts.ready(60)
            wait_for(lambda: alerts.metric("weir_alerts_commits_total") >= COMMITS_A_KILL, 60, "no commits")
            alerts.kill()
            alerts.start()
            if kill == KILLS // 2:
                landing.kill()
                landing.start()
                change_spec(simulator, spec.replace(*HOTTER))
        feed.end()
        lake = Lake(f"file://{folder}/lake")
        wait_for(lambda: not behind(stack, lake), 30, lambda: f"{behind(stack, lake)}\n{logs(folder)}", every=1)
        landing.stop()  # heartbeats alone would wait five minutes
        assert not behind(stack, lake, to_the_end=True)
    said = len([t for of in published(log_of(stack.settings("operator"), TRANSITIONS)).values() for t in of])
    yield Ran(stack, folder / "lake", begin, middle_of(folder / "lake"), said)


def change_spec(settings: Settings, text_: str) -> None:
    producer = kafka.producer(settings, "tests-spec")
    record = Spec(revision=10**9, at=round(datetime.now(UTC).timestamp() * 1000), type=TYPE, version=2, text=text_)
    for partition in sorted(producer.partitions_for(TOPIC)):
        producer.send(TOPIC, encode_control(record), partition=partition, headers=[(MARK_HEADER, CONTROL)])
    kafka.close(producer, 20)


def behind(stack: Stack, lake: Lake, to_the_end: bool = False) -> str:
    """What is not yet evaluated, published or landed."""
    operator = stack.settings("operator")
    consumer = kafka.consumer(operator, "tests")
    ends = {place.partition: end for place, end in kafka.end_offsets(consumer, [TOPIC]).items()}
    consumer.close()
    came_to = committed(operator, "alerts", TOPIC)
    landed = {n: last.last_offset + 1 for n in ends if (last := lake.last_manifest(TOPIC, n))}
    said = sum(map(len, published(log_of(operator, TRANSITIONS)).values()))
    found, _ = in_the_lake(lake, SYSTEM, dict.fromkeys(ends, (0, 2**62)), 0)
    there = sum(map(len, found.values()))
    is_done = ends == came_to and said == there and (ends == landed or not to_the_end)
    return "" if is_done else f"{ends=} {came_to=} {landed=} {said=} {there=}"


def logs(folder: Path) -> str:
    return "\n".join(log.read_text()[-2000:] for log in folder.glob("*.log"))


def middle_of(folder: Path) -> datetime:
    lake = Lake(f"file://{folder}")
    names = lake.manifest_names(TOPIC, 0)
    return datetime.fromtimestamp(lake.manifest(names[len(names) // 2]).first_append_ms / 1000, UTC)


@pytest.fixture
def lake(ran: Ran, tmp_path: Path) -> Path:
    """A copy, to be made wrong."""
    return Path(shutil.copytree(ran.lake, tmp_path / "lake", ignore=shutil.ignore_patterns("_parity")))


@pytest.fixture
def owner(ran: Ran) -> Iterator[Warehouse]:
    warehouse = Warehouse(owner_url(ran.stack.secrets, ran.stack.ports), "tests")
    yield warehouse
    with warehouse.transaction() as connection:
        for table in ("parity", "parity_differences", "alert_transitions", "alerts"):
            connection.execute(text(f"DELETE FROM {table} WHERE system = :system"), {"system": SYSTEM})
        connection.execute(text("DELETE FROM control_records WHERE kafka_topic = :topic"), {"topic": TOPIC})
    warehouse.close()


def test_parity_is_whole_over_a_run_with_kills(ran: Ran, lake: Path, owner: Warehouse) -> None:
    to = datetime.now(UTC)
    for _ in range(2):  # an audit once more changes nothing
        found = ran.parity(lake, to=to)
        print({name: found[name] for name in ("parity", "published", "same", "readings")}, f"{KILLS} kills")
        assert (found["parity"], found["differences"], found["same"]) == (100, [], ran.said)
        assert ran.said > 300
        assert {part["begun"] for part in found["partitions"]} == {"log"}
        (row,) = owner.rows("SELECT sum(same) AS same, sum(readings) AS readings, count(*) AS n FROM parity")
        assert (row["same"], row["readings"], row["n"]) == (ran.said, found["readings"], len(found["partitions"]))


def test_spans_that_follow_each_other_have_each_transition_once(ran: Ran, lake: Path, owner: Warehouse) -> None:
    first = ran.parity(lake, to=ran.middle)
    second = ran.parity(lake, **{"from": ran.middle})
    assert (first["parity"], second["parity"]) == (100, 100)
    assert first["published"] + second["published"] == ran.said
    assert {part["begun"] for part in second["partitions"]} == {"state"}
    assert min(first["published"], second["published"]) > 50


# What is made wrong


def with_rows(lake: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> dict[str, Any]:
    """Changes the rows of a file of transitions, and the manifest with it; the last row as it was."""
    store = Lake(f"file://{lake}")
    for topic, number in store.landed_partitions():
        if topic != TRANSITIONS:
            continue
        for name in store.manifest_names(topic, number):
            manifest = store.manifest(name)
            file = next((f for f in manifest.files if f"system={SYSTEM}" in f.path and f.rows > 2), None)
            if file is None or manifest.unseen < 1:
                continue
            table = parquet.read_table(lake / file.path, partitioning=None)
            rows = table.to_pylist()
            changed = change(rows)
            parquet.write_table(pa.Table.from_pylist(changed, table.schema), lake / file.path)
            more = len(changed) - len(rows)
            files = [msgspec.structs.replace(f, rows=f.rows + more * (f is file)) for f in manifest.files]
            found = msgspec.structs.replace(
                manifest, files=files, rows=manifest.rows + more, unseen=manifest.unseen - more
            )
            (lake / name).write_bytes(encode_manifest(found))
            return rows[-1]  # type: ignore[no-any-return]
    raise AssertionError("no file of transitions fits")


def biggest(lake: Path, topic: str) -> tuple[str, Manifest, DataFile]:
    store = Lake(f"file://{lake}")
    found = [
        (name, manifest, file)
        for number in range(8)
        for name in store.manifest_names(topic, number)
        for manifest in [store.manifest(name)]
        for file in manifest.files
        if SYSTEM in file.partition
    ]
    return max(found, key=lambda one: one[2].rows)


def remove(lake: Path) -> None:
    with_rows(lake, lambda rows: rows[:-1])


def add(lake: Path) -> None:
    with_rows(lake, lambda rows: [*rows, rows[-1] | {"transition_id": f"{'0' * 32}-1", "alert_id": "0" * 32}])


def double(lake: Path) -> None:
    with_rows(lake, lambda rows: [*rows, rows[-1]])


def change(lake: Path) -> None:
    with_rows(lake, lambda rows: [*rows[:-1], rows[-1] | {"severity": "info", "title": "Another"}])


def lose_file(lake: Path) -> None:
    (lake / biggest(lake, TOPIC)[2].path).unlink()


def lose_manifest(lake: Path) -> None:
    (lake / biggest(lake, TOPIC)[0]).unlink()


def damage_file(lake: Path) -> None:
    (lake / biggest(lake, TOPIC)[2].path).write_bytes(b"PAR1")


@pytest.mark.parametrize(
    ("make_wrong", "kinds", "cause", "code"),
    [
        (remove, {"only_evaluated"}, "unknown", 1),
        (add, {"only_published"}, "unknown", 1),
        (double, {"doubled"}, "unknown", 1),
        (change, {"unlike"}, "unknown", 1),
        (lose_file, None, "missing_file", 0),
        (damage_file, None, "missing_file", 0),
        (lose_manifest, None, "hole", 0),
    ],
    ids=["removed", "added", "doubled", "changed", "file lost", "file damaged", "manifest lost"],
)
def test_what_is_wrong_is_found_and_explained(
    ran: Ran, lake: Path, owner: Warehouse,
    make_wrong: Callable[[Path], None], kinds: set[str] | None, cause: str, code: int,
) -> None:  # fmt: skip
    make_wrong(lake)
    found = ran.parity(lake, code=code)
    print(Counter((d["difference"], d["cause"]) for d in found["differences"]), found["parity"])
    assert found["parity"] < 100
    assert {d["cause"] for d in found["differences"]} == {cause}
    if kinds:
        assert {d["difference"] for d in found["differences"]} == kinds
        assert len(found["differences"]) == 1
    rows = owner.rows("SELECT DISTINCT cause, explained FROM parity_differences")
    assert rows == [{"cause": cause, "explained": code == 0}]
    # Weir's own alert goes by this.
    history = History(ran.stack.settings("history"))
    said = history.figures().states
    history.warehouse.close()
    assert said["parity"] == pytest.approx(found["parity"])
    assert said["parity_unexplained"] == found["unexplained"] == (len(found["differences"]) if code else 0)


def test_a_compacted_lake_is_audited_alike(ran: Ran, lake: Path, owner: Warehouse) -> None:
    now, store = datetime.now(UTC), Lake(f"file://{lake}")
    before, later = ran.parity(lake, to=now), now + timedelta(days=40)
    kinds = {one.partition.split("/")[1] for one in compact(store, still(later)) if one.files_after}
    assert kinds == {TYPE, TRANSITIONS}
    assert tidy(store, later + GRACE).landed > 20
    assert ran.parity(lake, to=now) == before


def test_the_state_after_a_hole_is_that_of_kafkas_log(ran: Ran, lake: Path, owner: Warehouse) -> None:
    store = Lake(f"file://{lake}")
    name = store.manifest_names(TOPIC, 0)[1]
    manifest = store.manifest(name)
    for file in manifest.files:
        (lake / file.path).unlink()
    later = datetime.fromtimestamp((manifest.last_append_ms + 1) / 1000, UTC)
    assert ran.parity(lake, to=later)["parity"] < 100
    found = ran.parity(lake, **{"from": later})
    assert (found["parity"], found["partitions"][0]["begun"]) == (100, "state")


def test_the_warehouse_knows_what_has_not_landed(ran: Ran, lake: Path, owner: Warehouse) -> None:
    history = Warehouse.of(ran.stack.settings("history"))
    with history.transaction() as connection:
        write_history(connection, [t for of in told(ran).values() for t in of])
    history.close()
    remove(lake)
    assert [d["cause"] for d in ran.parity(lake)["differences"]] == ["not_landed"]
    (lake / biggest(lake, TRANSITIONS)[2].path).unlink()
    assert {d["cause"] for d in ran.parity(lake)["differences"]} == {"missing_file"}


def told(ran: Ran) -> dict[str, list[Transition]]:
    return published(log_of(ran.stack.settings("operator"), TRANSITIONS))


def test_what_is_told_to_people(ran: Ran, lake: Path, owner: Warehouse) -> None:
    lose_file(lake)
    span = ("--from", ran.begin.isoformat(), "--to", datetime.now(UTC).isoformat())
    said = ran.weir(lake)("rules", "parity", "--system", SYSTEM, *span).stdout
    assert re.search(rf"^{SYSTEM}: parity \d\d\.\d\d % from 20", said)
    assert "missing_file: a file that a manifest names is not in the lake, or damaged" in said
    nothing = ran.weir(lake)("rules", "parity", "--system", SYSTEM).stdout
    assert "parity 100 %" in nothing
    assert "0 landed readings" in nothing


def test_without_kafkas_log_what_is_known_of_the_time_explains(
    ran: Ran, lake: Path, owner: Warehouse, tmp_path: Path
) -> None:  # fmt: skip
    """The last test here: it deletes the log."""
    admin = KafkaAdmin(f"127.0.0.1:{ran.stack.ports.kafka}", "admin", ran.stack.secrets["KAFKA_ADMIN"], seconds=10)
    with admin:
        ends = {n: m.last_offset + 1 for n in range(8) if (m := Lake(f"file://{lake}").last_manifest(TOPIC, n))}
        admin._client.delete_records({TopicPartition(TOPIC, n): end for n, end in ends.items()})
    found = ran.parity(lake, code=1)  # the spec changed on the way, and nobody remembers
    causes = Counter(d["cause"] for d in found["differences"])
    print(causes, found["parity"])
    assert {part["begun"] for part in found["partitions"]} == {"warm_up"}
    assert {"heartbeat", "control", "unknown", "began_before"} >= set(causes) >= {"heartbeat", "unknown"}
    changed = tmp_path / "types"
    changed.mkdir()
    text_ = (TYPES / f"{TYPE}.yaml").read_text().replace(*HOTTER)
    (changed / f"{TYPE}.yaml").write_text(text_)
    record = Spec(revision=1, at=round(datetime.now(UTC).timestamp() * 1000), type=TYPE, version=2, text=text_)
    with owner.transaction() as connection:
        connection.execute(
            text("INSERT INTO control_records VALUES (1, :topic, NULL, NULL, :record, now())"),
            {"topic": TOPIC, "record": encode_control(record).decode()},
        )
    shutil.rmtree(lake / "_parity")
    found = ran.parity(lake, types=changed)
    print(Counter(d["cause"] for d in found["differences"]), found["parity"])
    assert {"changed_spec", "began_before"} >= {d["cause"] for d in found["differences"]} >= {"changed_spec"}
