"""Two recordings of real houses go the whole way, replay → MQTT → bridge → Kafka → landing → lake → batch, and the
warehouse has what the files say, to a thousandth: two days, and (slow, from Kafka on) all of them. What that is, is
computed here from the files alone."""

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
from tests.command import Weir
from tests.integration.batch_runs import run
from tests.integration.logs import readings
from tests.integration.processes import Process, wait_for
from tests.recordings import APPLIANCES, HOUSEHOLD, needs_appliances, needs_household

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]
HOUR = timedelta(hours=1)
DAYS = 2
UNTIL_US = to_epoch_us(datetime(2026, 11, 20, 12, 3, tzinfo=UTC))
"""The last moment of the replay: its first two rows then lie within one hour. A meter's pace is not known before."""
SettingsFor = Callable[[str], Settings]
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


RECORDINGS: dict[str, tuple[Path, Callable[[], Used], dict[str, str]]] = {
    "household-power": (
        HOUSEHOLD, household, {"main": "energy_meter"} | dict.fromkeys(("kitchen", "laundry", "climate"), "smart_plug")
    ),
    "appliances-energy": (APPLIANCES, appliances, dict.fromkeys(("appliances", "lights"), "energy_meter")),
}  # fmt: skip
"""File, what it says, and its devices with their types."""
NAMES = [
    pytest.param("household-power", id="household", marks=needs_household),
    pytest.param("appliances-energy", id="appliances", marks=needs_appliances),
]


@pytest.mark.parametrize("name", NAMES)
def test_some_days_from_the_broker_on(
    job: Job, settings_for: SettingsFor, weir: Weir, own_bridge: Process, tmp_path: Path, name: str
) -> None:
    _, direct, devices = RECORDINGS[name]
    for device, type_name in devices.items():
        weir("devices", "add", type_name, device, "--site", name)
    own_bridge.start().ready()
    summary = replayed(settings_for("simulator"), name, "mqtt", DAYS)
    wait_for(
        lambda: len(of_site(settings_for, name)) == summary["published"], 60, own_bridge.log.read_text, every=1
    )  # fmt: skip
    land(job, settings_for, tmp_path, name)
    run(job, "r1", system="home")

    begin = datetime.fromisoformat(summary["event_time"]["first"])
    of_file = within(direct(), timedelta(days=DAYS))
    assert stored(job, name) == {device: pytest.approx(total(used), rel=1e-3) for device, used in of_file.items()}
    assert job.warehouse.rows("SELECT * FROM energy_unattributed WHERE site = :site", site=name) == []
    by_hour = {
        (row["device_id"], row["hour"]): row["watt_hours"]
        for row in job.warehouse.rows("SELECT * FROM energy_hours WHERE site = :site", site=name)
    }
    expected = hourly(of_file, begin)
    assert by_hour.keys() == expected.keys()
    assert by_hour == {key: pytest.approx(wh, rel=1e-3, abs=0.01) for key, wh in expected.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_all_days(job: Job, settings_for: SettingsFor, tmp_path: Path, name: str) -> None:
    """From Kafka on, as `--to kafka` has it. What lies in no hour has rows of its own: with them nothing is missing."""
    _, direct, _ = RECORDINGS[name]
    summary = replayed(settings_for("simulator"), f"{name}-whole", "kafka", None)
    land(job, settings_for, tmp_path, f"{name}-whole")
    run(job, "r1", system="home")

    expected = {device: total(used) for device, used in direct().items()}
    rows = job.warehouse.rows("SELECT * FROM energy_unattributed WHERE site = :site", site=f"{name}-whole")
    found = stored(job, f"{name}-whole")
    for device, watt_hours in expected.items():
        nowhere = sum(row["watt_hours"] for row in rows if row["device_id"] == device)
        print(f"{name} {device}: file {watt_hours:,.3f} Wh, hours {found[device]:,.3f}, in no hour {nowhere:,.3f}")
        assert found[device] + nowhere == pytest.approx(watt_hours, rel=1e-3)
        assert found[device] == pytest.approx(watt_hours, rel=1e-3)
    assert {row["reason"] for row in rows} <= {"crossing", "gap"}
    assert summary["published"] == len(of_site(settings_for, f"{name}-whole"))


def total(used: list[tuple[Any, Any, float]]) -> float:
    return sum(watt_hours for *_, watt_hours in used)


def of_site(settings_for: SettingsFor, site: str) -> list[Any]:
    return [r for r in readings(settings_for("operator"), "readings.home") if r.key == site.encode()]


def stored(job: Job, site: str) -> dict[str, float]:
    rows = job.warehouse.rows(
        "SELECT device_id, sum(watt_hours) AS watt_hours FROM energy_hours WHERE site = :site GROUP BY 1", site=site
    )
    return {row["device_id"]: row["watt_hours"] for row in rows}


def land(job: Job, settings_for: SettingsFor, folder: Path, site: str) -> None:
    """All that Kafka has of the site."""
    last = of_site(settings_for, site)[-1]
    landing = Process(
        "landing", settings_for("landing"), folder / "landing.log", WEIR_LAKE_URI=job.settings.lake,
        WEIR_LANDING_MAX_SECONDS=2,
    )  # fmt: skip
    with landing:
        landing.start()
        wait_for(
            lambda: job.lake.landed_to(last.topic, last.partition) > last.offset, 60, landing.log.read_text, every=0.5
        )
        assert landing.stop() == 0


def replayed(settings: Settings, site: str, to: str, days: int | None) -> dict[str, Any]:
    name = site.removesuffix("-whole")
    file, _, devices = RECORDINGS[name]
    catalog = load_catalog(settings.types_dir)
    recording = recording_of(catalog, name, file, site=site, duration_us=days and days * 86_400_000_000)
    survey = recording.survey()
    source = Source(survey.span_us, recording.format.types, lambda t: recording.readings(survey, t.first_us, False))
    summary = conduct(settings, catalog, Order(to, speed=0, until_us=UNTIL_US), source, {})
    assert summary["published"] == survey.rows * len(devices)
    return summary


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
