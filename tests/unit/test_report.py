"""Which span a report is of, what devices of it were expected to say, and the file that is made of figures."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from pypdf import PdfReader

from etl.report import file_of, pages, span_of, write
from etl.report_figures import coverage, silent, whole_hours
from etl.report_page import STYLE
from etl.window import Window
from fleet.catalog import System, load_catalog
from fleet.consumption import Appliance, Hog
from fleet.errors import ConfigurationError
from fleet.report import AlertKind, Coverage, Device, Energy, Figures, Latency, Worst
from fleet.settings import CHECKOUT, Settings

NOW = datetime(2026, 11, 25, 5, 10, tzinfo=UTC)  # a Wednesday
START, END = datetime(2026, 11, 16, tzinfo=UTC), datetime(2026, 11, 23, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("start", "to", "begins", "ends"),
    [
        (None, None, "2026-11-16T00:00", "2026-11-23T00:00"),
        ("-1d", None, "2026-11-24T05:10", "2026-11-25T05:10"),
        ("2026-11-20", "2026-11-21", "2026-11-20T00:00", "2026-11-21T00:00"),
    ],
    ids=["last week", "up to now", "as said"],
)
def test_spans(start: str | None, to: str | None, begins: str, ends: str) -> None:
    assert [f"{moment:%Y-%m-%dT%H:%M}" for moment in span_of(start, to, NOW) if moment] == [begins, ends]


@pytest.mark.parametrize(("start", "to"), [(None, "now"), ("-1d", "-2d"), ("soon", None)])
def test_no_spans(start: str | None, to: str | None) -> None:
    with pytest.raises(ConfigurationError):
        span_of(start, to, NOW)


def test_a_span_is_of_whole_hours() -> None:
    asked = Window(START + timedelta(minutes=5), END + timedelta(minutes=5))
    assert whole_hours(asked) == (START, END + HOUR)
    assert whole_hours(Window(START, END)) == (START, END)


def test_a_file_is_named_by_its_span(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert file_of(settings, Window(START, END)) == tmp_path / "reports/report-2026-11-16-2026-11-23.pdf"
    until = END + timedelta(hours=5, minutes=1)
    name = "report-home-weather-2026-11-16-2026-11-23T06.pdf"
    assert file_of(settings, Window(START, until), ["home", "weather"]) == tmp_path / "reports" / name


def heard(device: str, times: int, last: datetime | None, registered: datetime = START) -> dict[str, Any]:
    return {"type": "lamp", "device_id": device, "site": "home-1", "registered_at": registered,
            "times": times, "said": times, "first": START if last else None, "last": last}  # fmt: skip


def test_what_is_expected_begins_with_the_device() -> None:
    lamps = System("home", (load_catalog(CHECKOUT / "fleet" / "types").type("lamp"),))  # every 5 s
    rows = [heard("a", 700, END), heard("b", 0, None, END - HOUR), heard("c", 9, None, END + HOUR)]
    assert coverage(lamps, rows, START, END) == [Coverage("lamp", 3, 709, 709, 7 * 24 * 720 + 720)]
    assert coverage(lamps, [heard("a", 1, END, END - HOUR)], START, END)[0].expected == 7 * 24 * 720  # heard before
    assert coverage(lamps, [], START, END) == []


def test_of_metrics_that_come_one_by_one_each_is_a_reading() -> None:
    rooms = System("occupancy", (load_catalog(CHECKOUT / "fleet" / "types").type("room_node"),))  # every 30 s
    rows = [heard("s1", 700, END, END - HOUR) | {"type": "room_node", "said": 2_100}]
    assert coverage(rooms, rows, START, END) == [Coverage("room_node", 1, 2_100, 700, 7 * 24 * 120)]


def test_what_is_expected_begins_with_the_first_minute() -> None:
    """As where a simulation that ends now, and is registered by then, began in the middle of an hour."""
    lamps = System("home", (load_catalog(CHECKOUT / "fleet" / "types").type("lamp"),))
    began = START + timedelta(minutes=36)
    row = heard("a", 1, END, END) | {"first": began}
    assert coverage(lamps, [row], START, began + HOUR)[0].expected == 720


def test_the_longest_silent_is_first() -> None:
    rows = [
        heard("a", 1, END - HOUR),
        heard("b", 1, END - 3 * HOUR),
        heard("c", 0, None),
        heard("d", 1, END - 5 * HOUR),
    ]
    lamp = [Device("lamp", name, "home-1") for name in "cdb"]
    assert silent(rows, END) == [(lamp[0], None), (lamp[1], END - 5 * HOUR), (lamp[2], END - 3 * HOUR)]


def test_who_is_silent_by_a_rule_is_silent() -> None:
    rows = [heard("a", 1, END - HOUR), heard("b", 1, END - HOUR)]
    assert silent(rows, END, {("lamp", "b"), ("plug", "a")}) == [(Device("lamp", "b", "home-1"), END - HOUR)]


EMPTY = Figures("occupancy", START, END, HOUR)
LAMP = Device("lamp", "lamp_$1", "home-1")  # what matplotlib would take for mathematics
HOG = Hog(Appliance("home-1", "lamp", "lamp_$1"), 9000.0, 1.0, None, None, None, None, None)
POINTS = [(START + n * HOUR, float(n)) for n in range(24)]
FULL = replace(
    EMPTY,
    system="home",
    coverage=[Coverage("lamp", 3, 60, 60, 100)],
    values={"lamp": POINTS},
    alerts=[
        AlertKind("plug", "rule_39", "info", 50, 0, None),  # another type has a rule of that name
        *(AlertKind("lamp", f"rule_{n}", "critical", n, 0, None) for n in range(1, 40)),
    ],
    alerts_by_step={"critical": POINTS},
    worst=[Worst(LAMP, 3, ("rule_1",))],
    oddest=[(LAMP, "brightness", 4)],
    anomalies={"rate": 4},
    energy=Energy(9000.0, {"EUR": 3.0}, [HOG], {}, {"lamp_$1, home-1": POINTS}),
    shares={"values quarantined": POINTS, "messages rejected": [(START, 0.5)]},
    validated={"failed": [(START, 1.0)], "passed": POINTS},
    detection=Latency(3, tuple(n / 10 for n in range(101))),
)


def texts(content: bytes) -> list[str]:
    return [" ".join(page.extract_text().split()) for page in PdfReader(BytesIO(content)).pages]


def test_a_report_reads_back_and_is_the_same_again(tmp_path: Path) -> None:
    settings, file = Settings(home=tmp_path), tmp_path / "a" / "report.pdf"
    assert write(settings, [FULL, EMPTY], file) == 5
    content = file.read_bytes()
    fleet, found, performed, none_found, none_performed = texts(content)
    assert "home: 60 readings of 3 devices" in fleet
    assert "occupancy: no readings are loaded of this span." in fleet
    assert "Most energy went into lamp_$1 at home-1 (100 % of its home, 9.0 kWh)." in found
    assert "lamp_$1 (lamp) home-1 4 brightness" in found
    assert "rule 39 (plug): 50" in found and "rule 39 (lamp): 39" in found
    assert "lamp 3 60 100 60.0 %" in performed
    assert "Share that was not loaded" in performed and "values quarantined messages rejected" in performed
    assert "Validations an hour" in performed and "failed passed" in performed
    assert re.search(r"rule 39 lamp critical 39 0 - .*… and \d+ more", performed)
    assert "No device is registered." in none_found
    assert "no data in this span" in none_performed
    write(settings, [FULL, EMPTY], file)
    assert file.read_bytes() == content
    assert [path.name for path in file.parent.iterdir()] == ["report.pdf"]


@pytest.mark.parametrize("longest", [14, 40, 120])
def test_nothing_is_cut_at_the_pages_edge(longest: int) -> None:
    names = [f"{n}{'w' * longest}" for n in range(7)]
    assert FULL.energy is not None
    drawn = replace(
        FULL,
        values={name: [(at, value * 1e6) for at, value in POINTS] for name in names},
        energy=replace(FULL.energy, by_step=dict.fromkeys(names, POINTS)),
    )
    with rc_context(STYLE):
        for page in pages([drawn]):
            FigureCanvasAgg(page).draw()
            legends = [axes.get_legend() for axes in page.axes]
            texts = [*page.texts, *(text for legend in legends if legend for text in legend.get_texts())]
            for text in texts:
                extent = text.get_window_extent()
                assert 0 <= extent.x0 <= extent.x1 <= page.bbox.width, text.get_text()


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(ConfigurationError, match=r"report\.pdf: cannot be written"):
        write(Settings(home=tmp_path), [EMPTY], tmp_path / "a" / "report.pdf")
