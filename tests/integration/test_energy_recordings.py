"""Two recordings of real houses go the whole way, replay → Kafka → landing → lake → batch, and the warehouse has what
the files say, to a thousandth. What that is, is computed here from the files alone."""

import csv
import gzip
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from etl.run import Job
from fleet.catalog import load_catalog
from fleet.reading import to_epoch_us
from fleet.settings import CHECKOUT, Settings
from simulators.recording import recording_of
from simulators.session import Order, Source, conduct
from tests.integration.batch_runs import run
from tests.integration.logs import records
from tests.integration.processes import Process, wait_for
from tests.recordings import APPLIANCES, HOUSEHOLD, needs_appliances, needs_household

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]
HOUR = timedelta(hours=1)
DAYS = 2
UNTIL_US = to_epoch_us(datetime(2026, 11, 20, 12, 3, tzinfo=UTC))
"""The last moment of the replay: its first two rows then lie within one hour. A meter's pace is not known before."""
Used = dict[str, list[tuple[datetime, datetime, float]]]
"""Device → from, to, Wh."""


def household() -> Used:
    """A minute a row; kW of all of it, Wh of each of three circuits. Rows without figures are left out, and with them
    their energy."""
    found: Used = defaultdict(list)
    last = None
    with gzip.open(HOUSEHOLD, "rt") as file:
        for row in csv.DictReader(file):
            if row["Global_active_power"] == "?":
                continue
            at = datetime.strptime(f"{row['Date']} {row['Time']}", "%d/%m/%Y %H:%M:%S").replace(tzinfo=UTC)
            figures = {"main": float(row["Global_active_power"]) * 1000 / 60} | {
                name: float(row[f"Sub_metering_{n}"]) for n, name in enumerate(("kitchen", "laundry", "climate"), 1)
            }
            for device, watt_hours in figures.items() if last else ():
                found[device].append((last, at, watt_hours))
            last = at
    return found


def appliances() -> Used:
    """Ten minutes a row; Wh."""
    found: Used = defaultdict(list)
    last = None
    with gzip.open(APPLIANCES, "rt") as file:
        for row in csv.DictReader(file):
            at = datetime.fromisoformat(row["date"]).replace(tzinfo=UTC)
            for device, name in (("appliances", "Appliances"), ("lights", "lights")) if last else ():
                found[device].append((last, at, float(row[name])))
            last = at
    return found


@pytest.fixture
def job(settings: Settings) -> Iterator[Job]:
    made = Job(settings.model_copy(update={"types_dir": CHECKOUT / "fleet" / "types"}))
    yield made
    made.warehouse.close()


@pytest.mark.parametrize(
    ("name", "file", "direct"),
    [
        pytest.param("household-power", HOUSEHOLD, household, id="household", marks=needs_household),
        pytest.param("appliances-energy", APPLIANCES, appliances, id="appliances", marks=needs_appliances),
    ],
)
def test_what_the_file_says(
    job: Job, settings_for: Callable[[str], Settings], tmp_path: Path, name: str, file: Path, direct: Callable[[], Used]
) -> None:
    summary = replayed(settings_for("simulator"), name, file)
    site, topic = name, "readings.home"
    last = max(r.offset for r in records(settings_for("operator"), topic) if r.key == site.encode())
    landing = Process(
        "landing", settings_for("landing"), tmp_path / "landing.log", WEIR_LAKE_URI=job.settings.lake,
        WEIR_LANDING_MAX_SECONDS=2,
    )  # fmt: skip
    (number,) = {r.partition for r in records(settings_for("operator"), topic) if r.key == site.encode()}
    with landing:
        landing.start()
        wait_for(lambda: job.lake.landed_to(topic, number) > last, 60, landing.log.read_text, every=0.5)
        assert landing.stop() == 0
    run(job, "r1", system="home")

    begin = datetime.fromisoformat(summary["event_time"]["first"])
    of_file = within(direct(), timedelta(days=DAYS))
    found = {
        row["device_id"]: row["watt_hours"] for row in job.warehouse.rows(
            "SELECT device_id, sum(watt_hours) AS watt_hours FROM energy_hours WHERE site = :site GROUP BY 1", site=site
        )
    }  # fmt: skip
    assert found == {device: pytest.approx(sum(wh for *_, wh in used), rel=1e-3) for device, used in of_file.items()}
    assert job.warehouse.rows("SELECT * FROM energy_unattributed WHERE site = :site", site=site) == []
    by_hour = {
        (row["device_id"], row["hour"]): row["watt_hours"]
        for row in job.warehouse.rows("SELECT * FROM energy_hours WHERE site = :site", site=site)
    }
    expected = hourly(of_file, begin)
    assert by_hour.keys() == expected.keys()
    assert by_hour == {key: pytest.approx(wh, rel=1e-3, abs=0.01) for key, wh in expected.items()}


def replayed(settings: Settings, name: str, file: Path) -> dict[str, Any]:
    catalog = load_catalog(settings.types_dir)
    recording = recording_of(catalog, name, file, site=name, duration_us=DAYS * 86_400_000_000)
    survey = recording.survey()
    source = Source(survey.span_us, recording.format.types, lambda t: recording.readings(survey, t.first_us, False))
    summary = conduct(settings, catalog, Order("kafka", speed=0, until_us=UNTIL_US), source, {})
    assert summary["published"] == survey.rows * len(direct_devices(name))
    return summary


def direct_devices(name: str) -> list[str]:
    return ["main", "kitchen", "laundry", "climate"] if name == "household-power" else ["appliances", "lights"]


def within(used: Used, span: timedelta) -> Used:
    begin = min(rows[0][0] for rows in used.values())
    return {
        device: [(a - begin, b - begin, wh) for a, b, wh in rows if b - begin < span] for device, rows in used.items()
    }


def hourly(used: Any, begin: datetime) -> dict[tuple[str, datetime], float]:
    """As the replay has shifted the file; a row that crosses an hour is divided as its time is."""
    found: dict[tuple[str, datetime], float] = defaultdict(float)
    for device, rows in used.items():
        for start, end, watt_hours in rows:
            at, until = begin + start, begin + end
            while at < until:
                hour = at.replace(minute=0, second=0, microsecond=0)
                upto = min(until, hour + HOUR)
                found[device, hour] += watt_hours * ((upto - at) / (end - start))
                at = upto
    return dict(found)
