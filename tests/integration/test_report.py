"""A report of real tables, by the roles that write it, read back."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pypdf import PdfReader
from sqlalchemy import create_engine

from connections.warehouse import Warehouse
from etl.report import figures, write
from etl.window import Window
from fleet.catalog import Catalog, load_catalog
from fleet.report import Device, Figures
from fleet.settings import CHECKOUT, Settings
from stack.credentials import login_url
from stack.stack import Stack
from tests.command import command
from tests.integration.dashboard_data import DEVICES, END, LOADED, OTHERS, START, scripts
from tests.integration.own_database import own_database

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
DATABASE = "report"
WINDOW = Window(START - timedelta(minutes=30), END)
MINUTES = round((END - START) / timedelta(minutes=1))

# Beside what the dashboards' data has: an alert that lasted five minutes, was known a second after it happened and told
# three seconds after it; a door that was opened while nobody was at home; an alert on a sensor's silence that is under
# way (those of the dashboards' data are all of one id, and over); of the occupancy an alert that came a day late, a
# last hour that was processed after twenty minutes of it, a first one whose books are off by two, and a message that
# was no reading.
MORE = f"""
INSERT INTO alert_transitions
SELECT 'x' || n, 'x', n, 'home', 'smoke_alarm', 'burning', 'd1', 'here',
       CASE n WHEN 1 THEN 'firing' ELSE 'resolved' END, 'critical', NULL, at,
       at + INTERVAL '1 second', at, at, 'Smoke', '{{}}', '{{}}', '{{}}', 1, false, 0, 0
  FROM (VALUES (1, '{START}'::timestamptz + INTERVAL '30 seconds'),
               (2, '{START}'::timestamptz + INTERVAL '330 seconds')) AS of (n, at);
INSERT INTO notifications
SELECT '{START}'::timestamptz + INTERVAL '33 seconds', 'sent', '', '', 'ops', 'firing', 'm', 'x', 'x1', 'home',
       'smoke_alarm', 'burning', 'd1', 'here', 'critical', 'Smoke', 1;
INSERT INTO security_events VALUES
  ('{START}', 'home', 'here', 'door_sensor', 'd1', 'open', 'opened', NULL, NULL, '{START:%Y-%m-%d %H:%M}', '{{}}');
INSERT INTO alert_transitions
SELECT id, id, 1, system, type, rule, device, 'here', state, 'warning', NULL, at::timestamptz,
       at::timestamptz + late::interval, at::timestamptz, at::timestamptz, 'a title', '{{}}', '{{}}', '{{}}', 1, false,
       0, 0
  FROM (VALUES ('a', 'none', 'none', 'none', 'd1', 'resolved', '{END - timedelta(minutes=1)}', '0 s'),
               ('quiet', 'home', 'door_sensor', 'silent', 'd3', 'firing', '{END - timedelta(minutes=1)}', '0 s'),
               ('late', 'occupancy', 'room_node', 'high_co2', 'd1', 'resolved', '{START}', '1 day'))
       AS of (id, system, type, rule, device, state, at, late);
INSERT INTO notifications
SELECT '{START}'::timestamptz + INTERVAL '1 day', 'sent', '', '', 'ops', 'resolved', 'm', 'late', 'late', 'occupancy',
       'room_node', 'high_co2', 'd1', 'here', 'warning', 'CO2', 1;
INSERT INTO ledger_metrics SELECT partition, 'co2', 200, 189, 188, 10 FROM ledger
 WHERE system = 'occupancy' AND starts_at < '{START}';
INSERT INTO quarantine (at, partition, what, reason, detail, system, type, spec_version, kafka_topic, kafka_partition,
                        kafka_offset, payload, payload_bytes, payload_sha256)
VALUES ('{END - timedelta(minutes=30)}', 'p', 'dead_letter', 'not_json', '', 'occupancy', 'room_node', 1, 't', 0, 0,
        'x', 1, sha256('x'));
UPDATE ledger SET processed_at = '{END}'::timestamptz + INTERVAL '20 minutes'
 WHERE system = 'occupancy' AND starts_at = '{END}';
"""


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog(CHECKOUT / "fleet" / "types")


@pytest.fixture(scope="module")
def filled(stack: Stack, catalog: Catalog) -> None:
    engine = create_engine(own_database(stack, DATABASE, "weir_batch", "weir_operator"))
    with engine.begin() as connection:
        for script in [*scripts(catalog), MORE]:
            connection.exec_driver_sql(script)
    engine.dispose()


@pytest.fixture(scope="module")
def found(stack: Stack, catalog: Catalog, filled: None) -> Iterator[dict[str, Figures]]:
    """As the DAG, by the batch's login."""
    warehouse = Warehouse(login_url("weir_batch", stack.secrets, stack.ports, DATABASE))
    yield {one.system: one for one in figures(warehouse, [*catalog.systems.values()], WINDOW)}
    warehouse.close()


def test_readings_and_values(found: dict[str, Figures]) -> None:
    weather = found["weather"]
    (stations,) = weather.coverage
    # Every 2 s but for the last two minutes; d2 was away for ten minutes.
    each, away = (MINUTES - 2) * 30 + 1, 10 * 30 + 1
    assert (stations.devices, stations.readings) == (20, 20 * each - away)
    assert stations.expected == 20 * MINUTES * 30
    assert sum(value for _, value in weather.values["weather_station"]) == 5 * stations.readings
    assert weather.silent == []


def test_what_is_not_loaded_yet_is_neither_expected_nor_silence(stack: Stack, catalog: Catalog, filled: None) -> None:
    """The ledger's last hour of the tables begins at their end: a report up to five hours later expects one more, or as
    much of it as was over when it was processed."""
    warehouse = Warehouse(login_url("weir_batch", stack.secrets, stack.ports, DATABASE))
    systems = [catalog.system(name) for name in ("weather", "occupancy")]
    weather, occupancy = figures(warehouse, systems, Window(WINDOW.start, END + timedelta(hours=5)))
    warehouse.close()
    assert weather.coverage[0].expected == 20 * (MINUTES + 60) * 30
    assert occupancy.coverage[0].expected == 8 * (MINUTES + 20) * 2
    assert weather.silent == occupancy.silent == []  # in the hours of which nothing is known


def test_a_device_of_whose_silence_an_alert_tells_is_silent(found: dict[str, Figures]) -> None:
    """All were heard in the last minute that the batch has loaded."""
    assert found["home"].silent == [(Device("door_sensor", "d3", "here"), LOADED - timedelta(minutes=1))]


def test_alerts(found: dict[str, Figures], catalog: Catalog) -> None:
    weather = found["weather"]
    rules = catalog.type("weather_station").alerts
    assert weather.fired == len(rules) * MINUTES * DEVICES["weather_station"]
    assert sum(value for _, value in weather.alerts_by_step["warning"]) == weather.fired
    assert weather.worst[0].alerts == len(rules) * MINUTES
    (smoke,) = (kind for kind in found["home"].alerts if kind.rule == "burning")
    assert (smoke.fired, smoke.open, smoke.median_seconds) == (1, 0, 300)


def test_latency(found: dict[str, Figures]) -> None:
    """All but one of the alerts were detected at once."""
    home = found["home"]
    assert (home.detection.at(0), home.detection.at(100)) == (0, 1)
    assert home.detection.count == home.fired + 1
    assert (home.notification.count, home.notification.at(50)) == (1, 3)
    occupancy = found["occupancy"]
    assert (occupancy.notification.count, occupancy.notification.past) == (0, 1)
    assert (occupancy.detection.count, occupancy.detection.past) == (occupancy.fired, 1)
    assert occupancy.detection.at(100) == 0


def test_books_and_what_was_refused(found: dict[str, Figures]) -> None:
    weather = found["weather"]
    assert (weather.books.partitions, weather.books.landed, weather.books.off_by) == (2, 10, 0)
    assert weather.bad_values == {"out_of_range": MINUTES}
    assert weather.validation.pieces == weather.validation.passed == MINUTES // 15
    assert sum(n for _, n in weather.validated["passed"]) == MINUTES // 15
    assert "failed" not in weather.validated
    assert set(weather.anomalies.values()) == {MINUTES}
    assert weather.oddest[0] == (Device("weather_station", "d1", "here"), "m", MINUTES * len(weather.anomalies))


def test_what_was_not_loaded_is_a_share_of_each_hour(found: dict[str, Figures]) -> None:
    """Of the second hour the books know five readings, and of no value."""
    first, second = END - timedelta(hours=2), END - timedelta(hours=1)
    assert found["occupancy"].shares == {
        "values quarantined": [(first, 5)],
        "values not in the rollups": [(first, 1)],
        "messages rejected": [(first, 0), (second, pytest.approx(100 / 6))],
    }


def test_energy(found: dict[str, Figures]) -> None:
    """Plug n used 100 n Wh an hour, the meter before them 1,200 Wh; at a site without a meter a plug used 50 Wh."""
    home = found["home"]
    hours = round((home.end - home.start) / timedelta(hours=1))
    assert home.energy is not None
    assert home.energy.watt_hours == pytest.approx(1250 * hours)
    assert home.energy.costs == pytest.approx({"EUR": 0.375 * hours})
    assert [(hog.appliance.device, hog.appliance.site, hog.share) for hog in home.energy.hogs] == [
        *((f"d{n}", "here", pytest.approx(n / 12)) for n in range(OTHERS, 0, -1)), ("d1", "there", 1),
    ]  # fmt: skip
    assert home.energy.hogs[0].usual_watt_hours == pytest.approx(home.energy.hogs[0].watt_hours)
    assert sum(v for points in home.energy.by_step.values() for _, v in points) == pytest.approx(1050 * hours)
    assert found["weather"].energy is None


def test_an_outage_is_lost_once_and_what_cannot_be_is_not_added(found: dict[str, Figures]) -> None:
    """And what ends after the span is of the next."""
    assert found["home"].energy is not None
    assert found["home"].energy.unattributed == {"gap": (1, 900), "implausible": (1, 0)}


def test_what_happened_and_what_was_asked(found: dict[str, Figures]) -> None:
    assert found["home"].events == {"opened": (81, 1)}
    assert found["home"].commands == {"obeyed": 1}
    assert found["weather"].events == {}


def test_the_file_has_it_and_is_the_same_again(found: dict[str, Figures], tmp_path: Path) -> None:
    settings, file = Settings(home=tmp_path), tmp_path / "report.pdf"
    assert write(settings, list(found.values()), file) == 1 + 2 * len(found)
    pages = [" ".join(page.extract_text().split()) for page in PdfReader(file).pages]
    assert "2026-11-28 10:00 to 2026-11-28 12:00 UTC" in pages[0]
    home = pages[1 + 2 * list(found).index("home")]
    assert "While nobody was at home: opened 1 time." in home
    assert "2.5 kWh were used, at 0.75 EUR." in home
    before = file.read_bytes()
    write(settings, list(found.values()), file)
    assert file.read_bytes() == before


def test_the_command_writes_it(stack: Stack, filled: None, tmp_path: Path) -> None:
    url = login_url("weir_operator", stack.secrets, stack.ports, DATABASE)
    weir = command(WEIR_HOME=stack.layout.home, WEIR_DB_URL=url)
    file, start, end = tmp_path / "home.pdf", *(f"{moment:%Y-%m-%dT%H:%M}" for moment in WINDOW if moment)
    said = weir("report", "--system", "home", "--from", start, "--to", end, "--out", str(file)).stdout
    assert said.startswith(f"{file}: 3 pages")
    found = " ".join(PdfReader(file).pages[1].extract_text().split())
    assert "Most energy went into d4 at here (33.3 % of its home, 0.8 kWh)" in found
    assert "no system 'hom'" in weir("report", "--system", "hom", code=1).stderr
    assert "to without from" in weir("report", "--to", "now", code=1).stderr


def test_nothing_is_said_of_a_span_without_data(stack: Stack, filled: None, tmp_path: Path) -> None:
    url = login_url("weir_operator", stack.secrets, stack.ports, DATABASE)
    file = tmp_path / "empty.pdf"
    command(WEIR_HOME=stack.layout.home, WEIR_DB_URL=url)(
        "report", "--system", "weather", "--from", "2020-01-01", "--to", "2020-01-08", "--out", str(file)
    )  # fmt: skip
    _, findings, performance = (" ".join(page.extract_text().split()) for page in PdfReader(file).pages)
    assert "No alert fired." in findings
    assert "nothing can be said of loss" in performance
    assert "Nothing was validated." in performance
