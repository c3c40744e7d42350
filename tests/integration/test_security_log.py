"""What happened at a home, and who was there: read from readings, kept when they are gone, shown by `weir events`."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, create_engine, text

from connections.warehouse import Warehouse
from etl.security_log import events, keep
from etl.window import OPEN, Window
from fleet.catalog import System, load_catalog
from fleet.settings import CHECKOUT
from stack.credentials import login_url
from stack.stack import Stack
from tests.command import command
from tests.integration.own_database import own_database

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
DATABASE = "security_log"
T0 = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3)
MORNING = Window(T0 - timedelta(hours=1), T0 + timedelta(hours=1))
BERLIN = "Europe/Berlin"

DEVICES = [
    ("presence_tag", "ann", "home-1"), ("presence_tag", "ben", "home-1"), ("door_sensor", "door", "home-1"),
    ("motion_detector", "hall", "home-1"), ("smoke_alarm", "attic", "home-2"), ("lamp", "lamp", "home-1"),
]  # fmt: skip
# seconds, device, metric, value, and the offset: they came in its order
READINGS: list[tuple[int, str, str, float | None]] = [
    (0, "ann", "present", 1), (0, "ben", "present", 0), (0, "door", "open", 0), (0, "hall", "motion", 0),
    (1, "lamp", "on", 1),
    (5, "door", "open", 1),                             # ann opens
    (10, "door", "open", None), (11, "door", "open", 1),  # an unknown value is no change
    (20, "ann", "present", 1), (20, "ben", "present", 0),
    (25, "ann", "present", 0),                          # and goes
    (27, "door", "open", 0),
    (26, "door", "open", 1),                            # came late: it is as if it had not
    (30, "ben", "present", 0),
    (35, "hall", "motion", 1),                          # nobody at home
    (40, "door", "tamper", 1),
    (70, "attic", "smoke", 1),                          # the first that is known of it; there is no tag at home-2
    (340, "hall", "motion", 0),                         # 310 s after the last word of a tag: nothing is known
]  # fmt: skip
HAPPENED = [
    (0, "ann", "came home", ["ann"]),
    (5, "door", "opened", ["ann"]),
    (25, "ann", "left", []),
    (27, "door", "closed", []),
    (35, "hall", "motion began", []),
    (36, "door", "firing", []),
    (40, "door", "tampered with", []),
    (70, "attic", "smoke", None),
    (340, "hall", "motion ended", None),
]


@pytest.fixture(scope="module")
def home() -> System:
    return load_catalog(CHECKOUT / "fleet" / "types").system("home")


@pytest.fixture
def owner(stack: Stack) -> Iterator[Engine]:
    engine = create_engine(own_database(stack, DATABASE, "weir_batch", "weir_operator"))
    with engine.begin() as c:
        for table in ("devices", "sites", "readings", "alert_transitions", "security_events", "security_kept"):
            c.execute(text(f"DELETE FROM {table}"))
        for site, zone in (("home-1", BERLIN), ("home-2", "UTC")):
            c.execute(text("INSERT INTO sites VALUES ('home', :site, :zone)"), {"site": site, "zone": zone})
        for type_name, device, site in DEVICES:
            c.execute(
                text(
                    "INSERT INTO devices (type, device_id, system, site, registered_at, registered_by, revision)"
                    " VALUES (:type, :device, 'home', :site, :at, 'operator', 0)"
                ),
                {"type": type_name, "device": device, "site": site, "at": T0 - timedelta(days=1)},
            )
    for offset, (seconds, device, metric, value) in enumerate(READINGS):
        _say(engine, seconds, device, metric, value, offset)
    with engine.begin() as c:
        c.execute(
            text(
                "INSERT INTO alert_transitions VALUES ('t', 'a', 1, 'home', 'door_sensor', 'opened_alone', 'door',"
                " 'home-1', 'firing', 'critical', NULL, :at, :at, :at, :at, 'Door opened', '{}', '{}', '{}', 1, false,"
                " 0, 0)"
            ),
            {"at": T0 + timedelta(seconds=36)},
        )
    yield engine
    engine.dispose()


def _say(engine: Engine, seconds: int, device: str, metric: str, value: float | None, offset: int) -> None:
    type_name, _, site = next(one for one in DEVICES if one[1] == device)
    with engine.begin() as c:
        c.execute(
            text(
                "INSERT INTO readings"
                " VALUES (:at, 'home', :type, :site, :device, :metric, :value, NULL, 't', 0, :offset)"
            ),
            {"at": T0 + timedelta(seconds=seconds), "type": type_name, "site": site, "device": device, "metric": metric,
             "value": value, "offset": offset},
        )  # fmt: skip


@pytest.fixture
def batch(stack: Stack, owner: Engine) -> Iterator[Warehouse]:
    """As the DAG."""
    warehouse = Warehouse(login_url("weir_batch", stack.secrets, stack.ports, DATABASE))
    yield warehouse
    warehouse.close()


def told(warehouse: Warehouse, home: System, window: Window = MORNING) -> list[tuple[int, str, str, list[str] | None]]:
    rows = reversed(events(warehouse, home, window, None, 100))
    return [
        (round((row["at"] - T0).total_seconds()), row["device_id"], row["event"], row["at_home"]) for row in rows
    ]  # fmt: skip


def test_what_happened_is_told_with_who_was_at_home(batch: Warehouse, home: System) -> None:
    assert told(batch, home) == HAPPENED
    (alert,) = (row for row in events(batch, home, MORNING, "home-1", 100) if row["title"])
    assert (alert["title"], alert["severity"], alert["name"]) == ("Door opened", "critical", "opened_alone")


def test_a_site_has_its_own_time(batch: Warehouse, home: System) -> None:
    (smoke,) = events(batch, home, MORNING, "home-2", 100)
    door = next(row for row in events(batch, home, MORNING, "home-1", 100) if row["event"] == "opened")
    assert smoke["local_time"] == smoke["at"].replace(tzinfo=None)
    assert door["local_time"] - door["at"].replace(tzinfo=None) in (timedelta(hours=1), timedelta(hours=2))


def test_a_span_begins_with_what_was_known_before_it(batch: Warehouse, home: System) -> None:
    """An open door is no event of the hour after it was opened."""
    later = Window(T0 + timedelta(seconds=6), T0 + timedelta(seconds=30))
    assert told(batch, home, later) == [row for row in HAPPENED if 6 <= row[0] < 30]


def test_it_is_kept_when_readings_are_gone(batch: Warehouse, home: System, owner: Engine) -> None:
    now = T0 + timedelta(hours=2)
    assert keep(batch, home, OPEN, now) == len(HAPPENED)
    assert keep(batch, home, OPEN, now) == len(HAPPENED)
    with owner.begin() as c:
        c.execute(text("DELETE FROM readings"))
    assert told(batch, home) == HAPPENED
    _say(owner, 7150, "door", "open", 1, 1000)  # after what is kept
    after = Window(T0, T0 + timedelta(hours=3))
    assert told(batch, home, after) == [*HAPPENED, (7150, "door", "opened", None)]


def test_what_came_late_is_written_with_the_next(batch: Warehouse, home: System, owner: Engine) -> None:
    keep(batch, home, OPEN, T0 + timedelta(hours=2))
    _say(owner, 50, "door", "open", 1, 1000)
    assert (50, "door", "opened", []) not in told(batch, home)
    keep(batch, home, OPEN, T0 + timedelta(hours=3))
    assert [row for row in told(batch, home) if row not in HAPPENED] == [(50, "door", "opened", [])]


def test_an_alert_that_was_detected_late_is_written_with_the_next(
    batch: Warehouse, home: System, owner: Engine
) -> None:  # fmt: skip
    """Its readings came after a day, say."""
    now = datetime.combine(T0, datetime.min.time(), UTC) + timedelta(hours=12)  # no run is the first of its day
    keep(batch, home, OPEN, now)
    at = now - timedelta(days=2)
    with owner.begin() as c:
        c.execute(
            text(
                "INSERT INTO alert_transitions VALUES ('l', 'b', 1, 'home', 'smoke_alarm', 'smoke', 'attic', 'home-2',"
                " 'firing', 'critical', NULL, :at, :now, :at, :at, 'Smoke', '{}', '{}', '{}', 1, false, 0, 0)"
            ),
            {"at": at, "now": now},
        )
    keep(batch, home, OPEN, now + timedelta(minutes=10))
    (row,) = events(batch, home, Window(at - timedelta(hours=1), at + timedelta(hours=1)), None, 100)
    assert (row["at"], row["name"], row["event"]) == (at, "smoke", "firing")


def test_runs_at_once_write_each_event_once(batch: Warehouse, home: System, owner: Engine) -> None:
    now = T0 + timedelta(hours=2)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: keep(batch, home, OPEN, now), range(4))) == [len(HAPPENED)] * 4
    with owner.begin() as c:
        assert c.execute(text("SELECT count(*) FROM security_events")).scalar() == len(HAPPENED)


def test_the_command_shows_it(stack: Stack, owner: Engine) -> None:
    weir = command(
        WEIR_HOME=stack.layout.home, WEIR_DB_URL=login_url("weir_operator", stack.secrets, stack.ports, DATABASE)
    )  # fmt: skip
    start, end = (moment.isoformat() for moment in MORNING if moment)
    shown = weir("events", "--site", "home-1", "--from", start, "--to", end).stdout
    assert [line.split()[4:] for line in shown.splitlines()[1:]][-2:] == [
        ["door", "opened", "ann"], ["ann", "came", "home", "ann"]
    ]  # fmt: skip
    assert "critical" in next(line for line in shown.splitlines() if "Door opened: firing" in line)
    found = json.loads(weir("events", "--from", start, "--to", end, "--json").stdout)
    assert [row["event"] for row in found] == [event for _, _, event, _ in reversed(HAPPENED)]
    assert "no site 'home-9' is known" in weir("events", "--site", "home-9", code=1).stderr
    assert "no type of system weather has" in weir("events", "--system", "weather", code=1).stderr
