"""The batch job killed at every boundary of its steps and within a load, and several of it at once: on a real
TimescaleDB and a real Spark, by the command itself."""

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from connections.lake import Lake
from connections.warehouse import Warehouse
from fleet.catalog import load_catalog
from fleet.lake_layout import Partition
from fleet.settings import CHECKOUT, Settings
from stack.ports import Ports
from stack.stack import Stack
from tests.conftest import JVM, own_home
from tests.integration.broken_off import POINTS, Commands, Started
from tests.integration.processes import wait_for
from tests.integration.small_lake import T0, SmallLake

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
SettingsFor = Callable[[str], Settings]
TABLES = ("rollups", "anomalies", "quarantine", "validations", "etl_runs", "ledger_topics", "ledger")
HOURS = timedelta(hours=1)
ROWS = (
    ("rollups", "type = :type AND bucket >= :start AND bucket < :end", ""),
    ("anomalies", "type = :type AND event_time >= :start AND event_time < :end", ""),
    ("quarantine", "partition = :key", ""),
    ("ledger", "partition = :key", " - 'run_id' - 'processed_at'"),
    ("ledger_metrics", "partition = :key", ""),
    ("rejects", "partition = :key", ""),
)
"""Table → the rows of a partition in it, without what says when and by whom."""


TESTS = 45
"""That may have hours of their own."""


@dataclass
class Ground:
    """A lake of whole hours, of which a test has two and an hour of dead letters."""

    commands: Commands
    lake: SmallLake
    warehouse: Warehouse
    types: Path
    given: int = 0

    def hours(self) -> list[str]:
        """Three partitions of one's own, loaded: readings of two hours, dead letters of the second."""
        if not self.given:
            self._land_all()
        first = T0 + 2 * self.given * HOURS
        self.given += 1
        second = f"{first + HOURS:%Y-%m-%dT%H}"
        return [f"weather/weather_station/{first:%Y-%m-%dT%H}", f"weather/weather_station/{second}",
                f"rejected/rejected/{second}"]  # fmt: skip

    def _land_all(self) -> None:
        spec = load_catalog(self.types).type("weather_station")
        rows = [
            {"device_id": str(device), "event_time": T0 + hour * HOURS + timedelta(seconds=2 * second),
             "temperature": 20.0 + second % 7, "humidity": 140.0 if second == 5 else 50.0}
            for hour in range(2 * TESTS) for device in (1, 2) for second in range(30)
        ]  # fmt: skip
        self.lake.land(spec, rows)
        for number in range(TESTS):
            self.lake.land_rejects([{"reason": "bad_id"}, {"reason": "not_utf8"}], T0 + (2 * number + 1) * HOURS)
        code, said = self.commands.run("etl", "run")
        assert code == 0, said

    def land_late(self, keys: list[str]) -> None:
        spec, first = load_catalog(self.types).type("weather_station"), Partition.from_key(keys[0]).start
        late = timedelta(minutes=30)
        self.lake.land(spec, [{"device_id": "3", "event_time": first + hour * HOURS + late, "temperature": 99.0 * hour}
                              for hour in (0, 1)])  # fmt: skip
        self.lake.land_rejects([{"reason": "bad_id"}], first + HOURS)

    def rows(self, keys: list[str]) -> dict[str, Any]:
        """All that the warehouse has of each partition."""
        return {key: self._rows(Partition.from_key(key)) for key in keys}

    def _rows(self, partition: Partition) -> dict[str, list[str]]:
        span = {"type": partition.type, "key": partition.key, "start": partition.start, "end": partition.end}
        return {
            table: sorted(
                row["t"]
                for row in self.warehouse.rows(
                    f"SELECT (to_jsonb(t){less})::text AS t FROM {table} t WHERE {where}", **span
                )
            )
            for table, where, less in ROWS
        }

    def others(self, keys: list[str]) -> dict[str, str]:
        """Table → a digest of all rows of other partitions, with what says when and by whom."""
        found = {}
        for table, where, _ in ROWS:
            mine = []
            for key in keys:
                p = Partition.from_key(key)
                span = {"type": p.type, "key": key, "start": p.start.isoformat(), "end": p.end.isoformat()}
                mine.append(re.sub(r":(\w+)", lambda m, span=span: f"'{span[m[1]]}'", where))
            (row,) = self.warehouse.rows(
                f"SELECT md5(string_agg(t::text, '' ORDER BY t::text)) AS digest FROM {table} t"
                f" WHERE NOT ({') AND NOT ('.join(mine)})".replace(":", "\\:")
            )
            found[table] = row["digest"]
        return found

    def stamps(self, keys: list[str]) -> dict[str, Any]:
        rows = self.warehouse.rows("SELECT partition, run_id, processed_at FROM ledger")
        return {row["partition"]: (row["run_id"], row["processed_at"]) for row in rows if row["partition"] in keys}

    def landed(self, key: str) -> int:
        (row,) = self.warehouse.rows("SELECT landed FROM ledger WHERE partition = :key", key=key)
        return int(row["landed"])


@pytest.fixture(scope="module")
def spark() -> Iterator[Settings]:
    with own_home() as home:
        running = Stack(home, Ports.free(), ("spark",), environ=JVM)
        running.up()
        try:
            yield running.settings("batch")
        finally:
            running.down()


@pytest.fixture(scope="module")
def ground(
    settings_for: SettingsFor, spark: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ground]:  # fmt: skip
    folder, settings = tmp_path_factory.mktemp("broken-off"), settings_for("batch")
    types = folder / "types"
    types.mkdir()
    for name in ("weather_station", "room_node"):
        (types / f"{name}.yaml").write_text((CHECKOUT / "fleet" / "types" / f"{name}.yaml").read_text())
    warehouse = Warehouse.of(settings)
    with warehouse.transaction() as c:
        for table in TABLES:
            c.execute(text(f"DELETE FROM {table}"))
    environment = {
        "WEIR_ENV_FILE": str(settings.env_file), "WEIR_HOME": str(folder), "WEIR_LAKE_URI": f"file://{folder}/lake",
        "WEIR_TYPES_DIR": str(types), "WEIR_KAFKA_USER": "", "WEIR_SPARK_REMOTE": spark.spark_remote.get_secret_value(),
    }  # fmt: skip
    commands = Commands(environment, folder)
    yield Ground(commands, SmallLake(Lake(environment["WEIR_LAKE_URI"])), warehouse, types)
    commands.close()
    warehouse.close()


NEW = {  # of the three partitions, in the order in which they load
    **dict.fromkeys(POINTS, 0),
    **dict.fromkeys(("first loaded", "second deleted"), 1),
    **dict.fromkeys(("second loaded", "batch loaded", "dead letters written"), 2),
    **dict.fromkeys(("dead letters loaded", "before the books", "topics written", "end written", "over"), 3),
}


@pytest.mark.parametrize("point", POINTS)
def test_killed_it_leaves_the_old_or_the_new_and_the_next_run_heals(ground: Ground, point: str) -> None:
    """Each partition has all of its old rows, or all of the new, its ledger row among them; nobody else's are
    touched, then or by the run that heals."""
    keys = ground.hours()
    old, others = ground.rows(keys), ground.others(keys)
    ground.land_late(keys)
    code, said = ground.commands.run("etl", "run", point=point)
    assert code == -signal.SIGKILL, said
    left = ground.rows(keys)
    code, said = ground.commands.run("etl", "run")
    assert code == 0, said
    new = ground.rows(keys)
    assert [ground.landed(key) for key in keys] == [61, 61, 3]
    assert [old[key] != new[key] for key in keys] == [True] * 3
    assert left == {key: (new if number < NEW[point] else old)[key] for number, key in enumerate(keys)}
    assert ground.others(keys) == others


def test_what_was_healed_is_what_a_run_computes_anew(ground: Ground) -> None:
    keys = ground.hours()
    all_ = [row["partition"] for row in ground.warehouse.rows("SELECT partition FROM ledger")]
    assert set(keys) < set(all_)
    before = ground.rows(all_)
    code, said = ground.commands.run("etl", "run", "--force")
    assert code == 0, said
    assert ground.rows(all_) == before


@pytest.mark.parametrize("point", ["begun", "validated", "first loaded"])
def test_what_a_killed_run_was_to_compute_anew_is_taken_by_the_next(ground: Ground, point: str) -> None:
    """Though its files did not change: a replay of values is such a run."""
    keys = ground.hours()
    start = Partition.from_key(keys[0]).start
    span = "--from", start.isoformat(), "--to", (start + 2 * HOURS).isoformat()
    assert ground.commands.run("etl", "run", "--force", *span, point=point)[0] == -signal.SIGKILL
    before, stamps = ground.rows(keys), ground.stamps(keys)
    code, said = ground.commands.run("etl", "run", "--json")
    assert code == 0, said
    taken = {key for key, stamp in ground.stamps(keys).items() if stamp != stamps[key]}
    assert taken == set(keys[NEW[point] :])
    after = ground.rows(keys)
    for key in keys:
        before[key].pop("ledger"), after[key].pop("ledger")
    assert after == before


@contextmanager
def held(warehouse: Warehouse, lock: str, **parameters: Any) -> Iterator[Callable[[int], None]]:
    """Holds a lock; what it yields waits until so many others wait for one."""
    with warehouse.transaction() as holder:
        holder.execute(text(lock), parameters)
        yield lambda count: wait_for(
            lambda: len(warehouse.rows("SELECT 1 FROM pg_locks WHERE NOT granted")) >= count, 60, "nobody waits"
        )


ADVISORY = "SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"


def test_two_loads_of_one_partition_take_turns(ground: Ground) -> None:
    """Both have computed all and wait for its lock: they load one after the other, and what is there is whole."""
    keys = ground.hours()
    ground.land_late(keys)
    with held(ground.warehouse, ADVISORY, key=keys[0]) as until_waiting:
        both = [ground.commands.start("etl", "run") for _ in range(2)]
        until_waiting(2)
        assert ground.landed(keys[0]) == 60
    for one in both:
        assert ground.commands.end(one) == 0, one.log.read_text()
    assert [ground.landed(key) for key in keys] == [61, 61, 3]
    new = ground.rows(keys)
    assert ground.commands.run("etl", "run", "--force")[0] == 0
    assert ground.rows(keys) == new


def _stopped(started: Started) -> bool:
    return Path(f"/proc/{started.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize("point", ["begun", "validated", "after Spark", "first loaded", "before the books"])
def test_a_run_that_fell_behind_another_undoes_nothing_and_ends_well(ground: Ground, point: str) -> None:
    """One run stands still at a point; another sees a file more, and loads all. Then the first goes on."""
    keys = ground.hours()
    ground.land_late(keys)
    slow = ground.commands.start("etl", "run", point=point, number=signal.SIGSTOP)
    wait_for(lambda: _stopped(slow), 60, slow.log.read_text)
    ground.land_late(keys)
    code, said = ground.commands.run("etl", "run")
    assert code == 0, said
    new, stamps = ground.rows(keys), ground.stamps(keys)
    os.kill(slow.pid, signal.SIGCONT)
    assert ground.commands.end(slow) == 0, slow.log.read_text()
    assert ground.rows(keys) == new
    assert ground.stamps(keys) == stamps


def test_a_run_that_loads_while_another_holds_a_partition_waits_for_that_alone(ground: Ground) -> None:
    """One stands still within its transaction, old rows deleted: readers see them all the same, and another run waits
    until it is through."""
    keys = ground.hours()
    old = ground.rows(keys)
    ground.land_late(keys)
    slow = ground.commands.start("etl", "run", point="old rows deleted", number=signal.SIGSTOP)
    wait_for(lambda: _stopped(slow), 60, slow.log.read_text)
    assert ground.rows(keys) == old
    other = ground.commands.start("etl", "run")
    wait_for(lambda: ground.warehouse.rows("SELECT 1 FROM pg_locks WHERE NOT granted"), 60, other.log.read_text)
    os.kill(slow.pid, signal.SIGCONT)
    for one in (slow, other):
        assert ground.commands.end(one) == 0, one.log.read_text()
    assert [ground.landed(key) for key in keys] == [61, 61, 3]


def test_a_connection_lost_in_mid_load_leaves_the_old_rows(ground: Ground) -> None:
    keys = ground.hours()
    old = ground.rows(keys)
    ground.land_late(keys)
    with held(ground.warehouse, "LOCK TABLE ledger_metrics IN EXCLUSIVE MODE") as until_waiting:
        started = ground.commands.start("etl", "run")
        until_waiting(1)
        ended = ground.warehouse.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND usename = current_user"
        )
        assert len(ended) == 1
        assert ground.commands.end(started) == 1
        assert "the warehouse at" in started.log.read_text()
    assert ground.rows(keys) == old
    (run,) = ground.warehouse.rows("SELECT status, figures FROM etl_runs ORDER BY started_at DESC LIMIT 1")
    assert run["status"] == "failed"
    assert "Unavailable" in json.dumps(run["figures"])
    assert ground.commands.run("etl", "run")[0] == 0
    assert [ground.landed(key) for key in keys] == [61, 61, 3]
