"""Real days of two homes through the rules: what the labels and the door say by hand is what is told."""

import io
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.backtest import Arrival, Episode, episodes, transitions
from fleet.catalog import load_catalog
from fleet.channels import LEVEL
from fleet.errors import DataError
from fleet.reading import to_datetime
from fleet.settings import CHECKOUT
from simulators.home_recording import read_home
from simulators.recording import recording_of
from simulators.recording_format import Dirty
from tests.mangled import mangled
from tests.recordings import HOME, needs_home

CATALOG = load_catalog(CHECKOUT / "fleet" / "types")
DAY_US = 86_400_000_000
HEAD = "Start time\tEnd time\tLocation\tType\tPlace\n----------\t--------\t--------\t----\t-----\n"


@lru_cache
def told(home: str, days: int) -> list[Episode]:
    recording = recording_of(CATALOG, "home", HOME / f"Ordonez{home}_Sensors.txt", duration_us=days * DAY_US)
    survey = recording.survey()
    readings = recording.readings(survey, survey.first_us, loop=False, with_seq=True)
    arrivals = (Arrival(reading, n, reading.event_time_us) for n, reading in enumerate(readings))
    return episodes(transitions(0, CATALOG.systems["home"].types, [], arrivals))


def shown(found: list[Episode]) -> list[str]:
    return [
        f"{e.rule} {e.device} {to_datetime(e.fired_us):%m-%d %H:%M:%S}"
        f" {to_datetime(e.ends_us):%m-%d %H:%M:%S}" if e.ends_us else f"{e.rule} {e.device} {e.fired_us}"
        for e in found
    ]  # fmt: skip


@needs_home
def test_two_weeks_without_a_false_alarm() -> None:
    """Fourteen times the resident of home A leaves, and opens the door 4 to 10 s before its label says that it is back;
    no other sensor says anything meanwhile. Once it comes home at night (lines of 2011-12-10 20:25 and 2011-12-11)."""
    assert shown(told("A", 15)) == ["door_opened_at_night front-door 12-11 00:56:01 12-11 00:56:05"]


BY_HAND = [
    # The label ends 55 s after the door: longer than somebody who comes in may take.
    "door_opened_away front-door 11-13 10:11:49 11-13 10:11:59",
    "door_opened_away front-door 11-16 18:04:43 11-16 18:04:59",
    "door_opened_at_night front-door 11-17 02:19:50 11-17 02:19:56",
    "door_opened_away front-door 11-17 16:24:53 11-17 16:24:59",
    "door_opened_at_night front-door 11-18 00:31:17 11-18 00:31:20",
    "door_opened_away front-door 11-18 14:34:53 11-18 14:34:59",
    # Exactly 45 s: the timer acts, and ends with the tag's reading.
    "door_opened_away front-door 11-20 20:31:59 11-20 20:31:59",
    "door_opened_away front-door 11-21 12:26:50 11-21 12:26:59",
    "door_opened_at_night front-door 11-22 01:40:09 11-22 01:40:16",
    "door_opened_away front-door 11-22 01:40:54 11-22 01:40:59",
]


@needs_home
def test_what_the_rules_tell_of_ten_days() -> None:
    """Home B, whose labels are of whole minutes: from 2012-11-11 21:14 to 11-22 21:00."""
    found = [e for e in told("B", 12) if to_datetime(e.fired_us) < datetime(2012, 11, 22, 21, tzinfo=UTC)]
    assert shown(found) == BY_HAND


@needs_home
def test_a_label_that_begins_nine_minutes_early() -> None:
    """2012-11-22: it says `Leaving` from 21:06, the resident goes about until 21:15 and is back at 00:34:59."""
    begin, end = datetime(2012, 11, 22, 21, tzinfo=UTC), datetime(2012, 11, 23, 2, tzinfo=UTC)
    found = [e for e in told("B", 12) if begin <= to_datetime(e.fired_us) < end]
    assert "motion_while_away living-door 11-22 21:11:10" in [line[:44] for line in shown(found)]
    assert "door_opened_away front-door 11-22 21:16:09" in [line[:42] for line in shown(found)]


def lines(tmp_path, sensors: str, labels: str = "") -> list[object]:
    file = tmp_path / "X_Sensors.txt"
    (tmp_path / "X_ADLs.txt").write_text(HEAD.replace("Location\tType\tPlace", "Activity") + labels)
    # A wrong year, taken as it is, would have no end.
    return list(islice(read_home((HEAD + sensors).splitlines(), "home", str(file)), 10_000))


def test_a_tag_is_away_three_minutes_after_the_label(tmp_path) -> None:
    rows = lines(
        tmp_path,
        "2011-11-28 10:00:00\t2011-11-28 10:10:00\tBasin\tPIR\tBathroom\n",
        "2011-11-28 10:01:00\t2011-11-28 10:06:30\tLeaving\n2011-11-28 10:07:00\t2011-11-28 10:09:59\tLeaving\n",
    )
    tag = [
        (to_datetime(row.time_us).strftime("%H:%M:%S"), reading.values["present"])
        for row in rows for reading in row.readings if reading.device_type == "presence_tag"
    ]  # fmt: skip
    assert tag == [
        ("10:00:00", 1), ("10:01:00", 1), ("10:02:00", 1), ("10:03:00", 1), ("10:04:00", 1), ("10:04:00", 0),
        ("10:05:00", 0), ("10:06:00", 0), ("10:06:30", 1), ("10:07:00", 1), ("10:08:00", 1), ("10:09:00", 1),
        ("10:10:00", 1),
    ]  # fmt: skip
    assert {(r.device_type, r.device_id) for row in rows for r in row.readings} == {
        ("presence_tag", "resident"), ("motion_detector", "bathroom-basin"),
    }  # fmt: skip


def test_intervals_that_overlap_are_one(tmp_path) -> None:
    rows = lines(
        tmp_path,
        "2011-11-28 10:00:10\t2011-11-28 10:00:30\tMaindoor\tMagnetic\tEntrance\n"
        "2011-11-28 10:00:20\t2011-11-28 10:00:40\tMaindoor\tMagnetic\tEntrance\n",
    )
    door = [
        (row.time_us // 1_000_000 % 60, r.values["open"])
        for row in rows
        for r in row.readings
        if r.device_id == "front-door"
    ]
    assert door == [(0, 0), (10, 1), (40, 0)]


DIRTY = [
    ("2011-11-28 25:00:00\t2011-11-28 10:00:30\tMaindoor\tMagnetic\tEntrance", "bad_time"),
    ("2011-11-28 10:00:00\t2011-11-28 09:00:30\tMaindoor\tMagnetic\tEntrance", "ends_before_it_begins"),
    ("2011-11-28 10:00:00\t2011-11-28 10:00:30\tMaindoor\tMagnetic", "field_count"),
    ("2011-11-28 10:00:00\t2011-11-28 10:00:30\tBas+in\tPIR\tBath/room", "bad_id"),
    ("2011-11-28 10:00:00\t9011-11-28 10:00:30\tMaindoor\tMagnetic\tEntrance", "far_from_the_first"),
]


@pytest.mark.parametrize(("row", "reason"), DIRTY, ids=[reason for _, reason in DIRTY])
def test_dirty_rows_are_told(tmp_path, row: str, reason: str) -> None:
    assert [(item.line, item.reason) for item in lines(tmp_path, row + "\n") if isinstance(item, Dirty)] == [
        (3, reason)
    ]


def test_a_label_of_another_year_is_dirty(tmp_path) -> None:
    rows = lines(
        tmp_path,
        "2011-11-28 10:00:00\t2011-11-28 10:01:00\tMaindoor\tMagnetic\tEntrance\n",
        "9011-11-28 10:01:00\t9011-11-28 10:06:30\tLeaving\n",
    )
    assert [item.reason for item in rows if isinstance(item, Dirty)] == ["far_from_the_first"]
    assert len(rows) < 10


SENSORS = (
    HEAD + "2011-11-28 10:00:00\t2011-11-28 10:10:00\tBasin\tPIR\tBathroom\n"
    "2011-11-28 10:02:10\t2011-11-28 10:02:30\tMaindoor\tMagnetic\tEntrance\n"
).encode()
LABELS = (HEAD + "2011-11-28 10:01:00\t2011-11-28 10:06:30\tLeaving\n").encode()


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("mangled") / "X_Sensors.txt"


@given(st.just(SENSORS) | mangled(SENSORS), st.just(LABELS) | mangled(LABELS))
def test_any_file_is_rows_in_order_and_dirty_lines_or_is_refused(recording, sensors: bytes, labels: bytes) -> None:
    recording.with_name("X_ADLs.txt").write_bytes(labels)
    rows = []
    try:
        text = io.StringIO(sensors.decode("utf-8", "replace"), newline="")
        # Of a mistyped month there are many.
        for item in islice(read_home(text, "home", str(recording)), 500):
            if isinstance(item, Dirty):
                assert item.line >= 1 and len(item.detail) <= 80
            else:
                rows.append(item)
    except DataError as error:
        assert "X_Sensors.txt:" in str(error) or "X_ADLs.txt:" in str(error)
    assert rows == sorted(rows, key=lambda row: row.time_us)
    for reading in (reading for row in rows for reading in row.readings):
        assert LEVEL.fullmatch(reading.device_id) and set(reading.values.values()) <= {0.0, 1.0}


def test_without_labels_nobody_knows_who_is_at_home(tmp_path) -> None:
    with pytest.raises(DataError, match=r"X_ADLs\.txt beside it"):
        list(read_home(HEAD.splitlines(), "home", str(tmp_path / "X_Sensors.txt")))


def test_another_file_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match=r"X_Sensors\.txt:1: not a recording of this kind"):
        list(read_home(["Date,Time\n"], "home", str(tmp_path / "X_Sensors.txt")))
