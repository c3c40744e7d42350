"""Recordings are read column by column, dirty rows are counted, and every pass lies where it should in time."""

import gzip
import io
import re
import shutil
from collections import Counter
from itertools import islice
from math import isfinite
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.catalog import load_catalog
from fleet.errors import ConfigurationError, DataError
from fleet.registry_csv import parse_csv
from fleet.settings import CHECKOUT
from simulators.occupancy_recording import COLUMNS
from simulators.recording import FORMATS, recording_of
from simulators.recording_format import Dirty
from tests.mangled import mangled
from tests.recordings import APPLIANCES, HOUSEHOLD, OCCUPANCY, needs_appliances, needs_household, needs_occupancy

CATALOG = load_catalog(CHECKOUT / "fleet" / "types")
HEADER = ",".join(["Date", "Time", *COLUMNS])
VALUES = "24.94,24.75,24.56,25.38,121,34,53,40,0.08,0.19,0.06,0.06,390,0.769230769231,0,1,2"
SECOND, DAY = 1_000_000, 86_400_000_000
CADENCE = 30 * SECOND


def row(time: str, values: str = VALUES, date: str = "2017/12/22") -> str:
    return f"{date},{time},{values}"


@pytest.fixture
def recording(tmp_path):
    def make(*lines: str, **options):
        path = tmp_path / "recording.csv"
        path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
        return recording_of(CATALOG, "occupancy", path, **options)

    return make


FOUR = [row("10:00:00"), row("10:00:30"), row("10:01:01"), row("10:10:00")]


def test_a_row_becomes_its_columns_in_order(recording):
    one = recording(FOUR[0])
    readings = list(one.readings(one.survey(), 5 * DAY, loop=False))
    assert [(r.device_id, *r.values) for r in readings] == list(COLUMNS.values())
    assert [v for r in readings for v in r.values.values()] == [float(v) for v in VALUES.split(",")]
    assert {r.event_time_us for r in readings} == {5 * DAY}
    assert {(r.device_type, r.site, r.seq) for r in readings} == {("room_node", "room-1", None)}


def test_its_devices_can_be_registered(recording):
    one = recording(*FOUR, site="hall")
    rows = parse_csv("\n".join(one.registry_lines(one.survey())), "devices.csv", CATALOG)
    expected = sorted({("room_node", device, "hall") for device, _ in COLUMNS.values()})
    assert [(row.type, row.device_id, row.site) for row in rows] == expected


DIRTY = [
    ("field_count", "2017/12/22,10:00:30,24.94"),
    ("field_count", FOUR[1] + ",7"),
    ("field_count", ""),
    ("bad_time", row("25:00:30")),
    ("bad_time", row("10:00:30", date="22.12.2017")),
    ("bad_number", row("10:00:30", VALUES.replace("390", "n/a"))),
    ("bad_number", row("10:00:30", VALUES.replace("390", ""))),
    ("bad_number", row("10:00:30", VALUES.replace("390", "inf"))),
    ("bad_number", row("10:00:30", VALUES.replace("390", "nan"))),
]


@pytest.mark.parametrize(("reason", "line"), DIRTY, ids=[f"{i}-{d[0]}" for i, d in enumerate(DIRTY)])
def test_dirty_rows_are_skipped_and_counted(recording, reason, line):
    dirty = recording(FOUR[0], line, FOUR[2])
    survey = dirty.survey()
    assert (survey.rows, survey.skipped) == (2, Counter({reason: 1}))
    assert f"recording.csv:3: {reason}" in survey.dirty[0]
    assert len(list(dirty.readings(survey, 0, loop=False))) == 2 * len(COLUMNS)


NOT_RECORDINGS = [
    ("column Date is missing", "a,b,c\n1,2,3\n"),
    ("column S5_CO2 is missing", HEADER.replace(",S5_CO2,", ",CO2,") + "\n"),
    ("column Date is missing", ""),
    ("no usable row", HEADER + "\n" + row("noon") + "\n"),
]


@pytest.mark.parametrize(("match", "text"), NOT_RECORDINGS, ids=range(len(NOT_RECORDINGS)))
def test_what_is_no_recording_is_named(tmp_path, match, text):
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=f"x.csv.*{match}"):
        recording_of(CATALOG, "occupancy", path).survey()


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"gone.csv: No such file"):
        recording_of(CATALOG, "occupancy", tmp_path / "gone.csv").survey()
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress("\n".join([HEADER, *FOUR]).encode())[:-12])
    with pytest.raises(DataError, match=r"cut.csv.gz"):
        recording_of(CATALOG, "occupancy", cut).survey()


def test_unknown_systems_and_sites():
    with pytest.raises(ConfigurationError, match="there are: occupancy"):
        recording_of(CATALOG, "weather", Path("x"))
    with pytest.raises(ConfigurationError, match="--site"):
        recording_of(CATALOG, "occupancy", Path("x"), site="a/b")


def times(recording, first_us=0, loop=False, count=1000):
    found = recording.readings(recording.survey(), first_us, loop)
    return list(dict.fromkeys(r.event_time_us for r in islice(found, count * len(COLUMNS))))


def test_times_keep_their_distances(recording):
    four = recording(*FOUR)
    assert four.survey().span_us == 600 * SECOND
    assert times(four, 7 * DAY) == [7 * DAY + s * SECOND for s in (0, 30, 61, 600)]


def test_each_loop_is_shifted_by_the_span_and_one_cadence(recording):
    two = recording(*FOUR[:2])
    assert times(two, 0, True, 6) == [0, 30 * SECOND, 60 * SECOND, 90 * SECOND, 120 * SECOND, 150 * SECOND]


def test_long_pauses_are_closed(recording):
    gap = recording(*FOUR, row("10:00:00", date="2018/01/10"), max_gap_us=60 * SECOND)
    assert times(gap) == [s * SECOND for s in (0, 30, 61, 121, 181)]
    assert gap.survey().span_us == 181 * SECOND


def test_a_part_of_it(recording):
    assert times(recording(*FOUR, limit=2)) == [0, 30 * SECOND]
    assert times(recording(*FOUR, duration_us=61 * SECOND)) == [0, 30 * SECOND]


def test_a_clock_that_went_back_is_kept(recording):
    back = recording(FOUR[0], FOUR[2], FOUR[1])
    assert times(back) == [0, 61 * SECOND, 30 * SECOND]
    assert back.survey().span_us == 61 * SECOND


def test_numbered(recording):
    two = recording(*FOUR[:2])
    found = list(two.readings(two.survey(), 0, False, with_seq=True))
    assert [r.seq for r in found if r.device_id == "s1"] == [1, 2, 3, 4, 5, 6]


@needs_occupancy
class TestTheRealRecording:
    def test_all_of_it(self):
        real = recording_of(CATALOG, "occupancy", OCCUPANCY)
        survey = real.survey()
        assert (survey.rows, survey.skipped) == (10_129, Counter())
        assert survey.span_us == (19 * 86_400 + 22 * 3600 + 10 * 60 + 28) * SECOND
        counts = Counter(m for r in real.readings(survey, 0, loop=False) for m in r.values)
        per_row = Counter(metric for _, metric in COLUMNS.values())
        assert counts == {metric: 10_129 * n for metric, n in per_row.items()}

    def test_gzipped_is_the_same(self, tmp_path):
        packed = tmp_path / "o.csv.gz"
        with OCCUPANCY.open("rb") as plain, gzip.open(packed, "wb", compresslevel=1) as out:
            shutil.copyfileobj(plain, out)
        plain, zipped = (recording_of(CATALOG, "occupancy", p, limit=500) for p in (OCCUPANCY, packed))
        assert list(plain.readings(plain.survey(), 0, False)) == list(zipped.readings(zipped.survey(), 0, False))

    def test_its_slope_is_what_the_simulated_room_computes(self):
        """25 samples, least squares, ppm a sample: see simulators/room.py."""
        real = recording_of(CATALOG, "occupancy", OCCUPANCY, limit=300)
        found = [r for r in real.readings(real.survey(), 0, False) if r.device_id == "s5"]
        ppm = [r.values["co2"] for r in found if "co2" in r.values]
        slope = [r.values["co2_slope"] for r in found if "co2_slope" in r.values]
        for at in range(25, 300):
            window = ppm[at - 24 : at + 1]
            assert slope[at] == pytest.approx(sum((x - 12) * y for x, y in enumerate(window)) / 1300, abs=1e-9)


SKIPS = [
    (0, None, 4),
    (30, None, 3),
    (31, None, 2),
    (61, 60, 1),
]


@pytest.mark.parametrize(("skip_s", "duration_s", "rows"), SKIPS, ids=[f"{s}-{d}" for s, d, _ in SKIPS])
def test_a_replay_may_begin_later(recording, skip_s, duration_s, rows):
    part = recording(*FOUR, skip_us=skip_s * SECOND, duration_us=duration_s and duration_s * SECOND)
    survey = part.survey()
    assert survey.rows == rows
    first = next(iter(part.readings(survey, 5 * DAY, loop=False)))
    assert first.event_time_us == 5 * DAY


def test_a_replay_that_skips_all_of_it_says_so(recording):
    with pytest.raises(DataError, match="no usable row"):
        recording(*FOUR, skip_us=DAY).survey()


HOUSE = [
    "Date,Time,Global_active_power,Voltage,Sub_metering_1,Sub_metering_2,Sub_metering_3",
    "16/12/2006,17:24:00,6.0,234,0,1,17", "16/12/2006,17:25:00,?,?,?,?,", "16/12/2006,17:26:00,3.0,234,2,1,18",
]  # fmt: skip
ROOMS = ['"date","Appliances","lights","T1"', '"2016-01-11 17:00:00","  60","30","19"']
ENERGY = {
    "household-power": (
        HOUSE, Counter({"bad_number": 1}),
        [("main", {"energy": 0.1, "power": 6000.0}), ("kitchen", {"energy": 0.0}), ("laundry", {"energy": 1.0}),
         ("climate", {"energy": 17.0}),
         ("main", {"energy": 0.15, "power": 3000.0}), ("kitchen", {"energy": 2.0}), ("laundry", {"energy": 2.0}),
         ("climate", {"energy": 35.0})],
    ),
    "appliances-energy": (
        ROOMS, Counter(),
        [("appliances", {"energy": 0.06, "power": 360.0}), ("lights", {"energy": 0.03, "power": 180.0})],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENERGY)
def test_energy_is_counted_up(tmp_path, name):
    lines, skipped, expected = ENERGY[name]
    path = tmp_path / "energy.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    recording = recording_of(CATALOG, name, path)
    survey = recording.survey()
    assert survey.skipped == skipped
    assert [(r.device_id, r.values) for r in recording.readings(survey, 0, loop=False)] == expected
    assert {r.device_type for r in recording.readings(survey, 0, loop=False)} == {*recording.format.types}


@pytest.mark.parametrize("figure", ["1e308", "1e9", "-1", "nan", "inf", ""])
def test_a_figure_that_no_meter_has_is_not_counted(tmp_path, figure):
    path = tmp_path / "energy.csv"
    path.write_text("\n".join([*HOUSE[:2], HOUSE[3].replace("3.0", figure)]), encoding="utf-8")
    survey = recording_of(CATALOG, "household-power", path).survey()
    assert (survey.rows, survey.skipped) == (1, Counter({"bad_number": 1}))


WHOLE = {"occupancy": [HEADER, *FOUR], "household-power": HOUSE, "appliances-energy": ROOMS}
FILES = st.sampled_from(sorted(WHOLE)).flatmap(
    lambda name: st.tuples(st.just(name), mangled("\n".join(WHOLE[name]).encode()))
)


@given(FILES)
def test_any_file_is_rows_and_dirty_lines_or_is_refused(file):
    name, content = file
    text, form = io.StringIO(content.decode("utf-8", "replace"), newline=""), FORMATS[name]
    counted = Counter()
    try:
        for item in form.read(text, "s", "x.csv"):
            if isinstance(item, Dirty):
                assert item.line >= 2 and len(item.detail) <= 120
                continue
            for reading in item.readings:
                assert (reading.device_type in form.types, reading.event_time_us) == (True, item.time_us)
                assert all(isfinite(value) for value in reading.values.values())
                counter = reading.values.get("energy", 0)
                assert counter >= counted[reading.device_id]
                counted[reading.device_id] = counter
    except DataError as error:
        assert re.match(r"x\.csv:\d+: ", str(error))


@needs_household
def test_the_whole_household():
    recording = recording_of(CATALOG, "household-power", HOUSEHOLD)
    survey = recording.survey()
    assert (survey.rows, survey.skipped) == (47_955, Counter({"bad_number": 5}))


@needs_appliances
def test_the_whole_house():
    survey = recording_of(CATALOG, "appliances-energy", APPLIANCES).survey()
    assert (survey.rows, survey.skipped) == (19_735, Counter())
