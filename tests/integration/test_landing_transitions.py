"""alerts.transitions → the lake, with landing killed around its commit and the lake away: each transition once."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from pyarrow import parquet

from connections import kafka
from connections.kafka_transactions import transactional_producer
from connections.lake import Lake
from connections.warehouse import Warehouse
from fleet.channels import TRANSITIONS, TRANSITIONS_PARTITIONS
from fleet.lake_layout import ALERTS, LANDED
from fleet.settings import CHECKOUT, Settings
from fleet.transition import Transition, alert_id, decode_transition, encode_transition
from tests.integration.logs import records
from tests.integration.processes import Process, wait_for

pytestmark = pytest.mark.stack

SettingsFor = Callable[[str], Settings]
DAY_US = 86_400_000_000
PLACES = [(TRANSITIONS, number) for number in range(TRANSITIONS_PARTITIONS)]


class Writer:
    """Transitions as the alert service writes them: by transactions, some of which it ends without effect."""

    def __init__(self, settings: Settings, name: str):
        self.name, self.sent = name, 0
        self.producer = transactional_producer(settings, "tests-transitions", "alerts-tests")

    def write(self, count: int) -> set[str]:
        """The ids of those that are there for good."""
        ids = set()
        for last in range(self.sent + count, self.sent, -5):
            is_told = last % 4 != 0
            self.producer.begin_transaction()
            for n in range(last - 5, last):
                said = transition(self.name, n)
                self.producer.send(TRANSITIONS, encode_transition(said), said.device.encode())
                ids |= {said.transition_id} if is_told else set()
            self.producer.flush(20)
            self.producer.commit_transaction() if is_told else self.producer.abort_transaction()
        self.sent += count
        return ids


def transition(name: str, n: int) -> Transition:
    at_us = time.time_ns() // 1000 - DAY_US * (n % 7 == 0)
    alert = alert_id("weather", "weather_station", name, f"d{n % 9}", at_us, n)
    return Transition(
        transition_id=f"{alert}-1", alert_id=alert, rule=name, device=f"d{n % 9}", site="roof", type="weather_station",
        system="weather" if n % 3 else "occupancy", to="firing", severity="warning", reason=None,
        values={"temperature": n + 0.5, "humidity": None}, spec_version=1, flapping=False, title=f"{n} °C",
        annotations={"why": "hot"}, labels={}, event_time_us=at_us, detected_at_us=at_us + 1, since_us=at_us,
        starts_at_us=at_us, partition=2, offset=n,
    )  # fmt: skip


@pytest.fixture
def writer(settings_for: SettingsFor, request: pytest.FixtureRequest) -> Iterator[Writer]:
    writer = Writer(settings_for("alerts"), re.sub(r"\W", "_", request.node.name))
    yield writer
    kafka.close(writer.producer, 5)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(f"file://{tmp_path}/lake")


@pytest.fixture
def landing(settings_for: SettingsFor, lake: Lake, tmp_path: Path) -> Iterator[Process]:
    with Process(
        "landing", settings_for("landing"), tmp_path / "landing.log",
        WEIR_LAKE_URI=lake.uri, WEIR_LANDING_MAX_ROWS=50, WEIR_LANDING_MAX_SECONDS=0.3,
    ) as process:  # fmt: skip
        yield process


def in_the_log(operator: Settings) -> set[str]:
    log = records(operator, TRANSITIONS, isolation_level="read_committed")
    return {decode_transition(r.value).transition_id for r in log}


def landed(lake: Lake) -> list[str]:
    """Of the files that manifests name, whose offsets follow one another."""
    found: list[str] = []
    for place in PLACES:
        manifests = lake.manifests(*place)
        assert all(after.first_offset == before.last_offset + 1 for before, after in pairwise(manifests))
        assert sum(m.missing + m.unreadable for m in manifests) == 0
        for file in (f for m in manifests for f in m.files):
            assert file.path.startswith(f"{ALERTS}/system=")
            found += parquet.read_table(lake.path(file.path), partitioning=None)["transition_id"].to_pylist()
    return found


def all_landed(lake: Lake, operator: Settings, process: Process) -> None:
    wanted = sorted(in_the_log(operator))
    wait_for(lambda: len(landed(lake)) >= len(wanted), 40, process.log.read_text, every=0.3)
    assert sorted(landed(lake)) == wanted


def adopted(process: Process, times: int) -> None:
    """Landing has asked the lake where to go on, of each partition."""
    wait_for(
        lambda: process.log.read_text().count(f"partition={TRANSITIONS}-") >= times * TRANSITIONS_PARTITIONS,
        30, process.log.read_text,
    )  # fmt: skip


def test_kill_9_around_the_commit(
    settings_for: SettingsFor, lake: Lake, landing: Process, writer: Writer, tmp_path: Path
) -> None:
    operator = settings_for("operator")
    ids = writer.write(100)
    landing.start()
    all_landed(lake, operator, landing)
    before = set(lake.files(ALERTS))

    manifests = Path(lake.path(f"{LANDED}/{TRANSITIONS}"))
    manifests.rename(tmp_path / "aside")
    manifests.write_text("where manifests should go: data files are written, and what commits them is not")
    ids |= writer.write(100)
    wait_for(lambda: set(lake.files(ALERTS)) - before, 30, landing.log.read_text)
    landing.kill()
    manifests.unlink()
    (tmp_path / "aside").rename(manifests)
    orphans = set(lake.files(ALERTS)) - before
    landing.start()
    all_landed(lake, operator, landing)

    for round_ in range(3):
        last = {place: lake.last_manifest(*place) for place in PLACES}
        ids |= writer.write(60)
        wait_for(lambda last=last: any(lake.last_manifest(*p) != last[p] for p in PLACES), 30, landing.log.read_text)
        landing.kill()  # right after a commit, whatever the other partitions are at
        landing.start()
        adopted(landing, 3 + round_)
    all_landed(lake, operator, landing)
    assert orphans and ids <= set(landed(lake))
    assert landing.ready().stop() == 0
    reads_as_the_readme_says(lake, in_the_log(operator))


def reads_as_the_readme_says(lake: Lake, wanted: set[str]) -> None:
    """With files that no manifest names lying about."""
    (code,) = re.findall(r"```py\n(.*?)```", (CHECKOUT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    check = (
        "\nassert sorted(alerts.transition_id) == sorted(sys.argv[1:])"
        "\nassert set(alerts.system) >= {'weather', 'occupancy'} and str(alerts.event_time.dtype).endswith('UTC]')"
    )
    assert "var/lake/alerts" in code
    code = "import sys\n" + code.replace("var/lake", lake.path("")) + check
    done = subprocess.run([sys.executable, "-c", code, *wanted], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_lake_that_is_away_holds_up_no_database(
    settings_for: SettingsFor, lake: Lake, landing: Process, writer: Writer, tmp_path: Path
) -> None:
    operator = settings_for("operator")
    warehouse = Warehouse.of(operator)
    history = Process("history", settings_for("history"), tmp_path / "history.log")
    query = "SELECT count(*) AS n FROM alert_transitions WHERE rule = :rule AND \"to\" = 'firing'"
    with history.start():
        landing.start()
        writer.write(20)
        all_landed(lake, operator, landing)
        folder = Path(lake.path(""))
        landing.signal(signal.SIGSTOP)  # else it makes the folder anew in between
        folder.rename(tmp_path / "aside")
        folder.write_text("no lake")
        landing.signal(signal.SIGCONT)
        ids = writer.write(100)
        wait_for(lambda: TRANSITIONS in landing.readiness(), 30, landing.log.read_text)
        wait_for(
            lambda: warehouse.rows(query, rule=writer.name)[0]["n"] > len(ids), 30, history.log.read_text, every=0.3
        )
        folder.unlink()
        (tmp_path / "aside").rename(folder)
        all_landed(lake, operator, landing)
        landing.ready()
        assert landing.stop() == history.stop() == 0
    warehouse.close()
