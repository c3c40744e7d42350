"""Readings of `home_energy` without servers: what the batch would have known at that moment, and no more."""

from datetime import timedelta

import numpy as np
import pytest

from fleet.catalog import load_catalog
from fleet.reading import to_datetime
from fleet.settings import CHECKOUT
from simulators.home_batch import LATER_US, QUARTER_US, Counted, home_readings
from tests.unit.test_homes import HOUR_US, MONDAY_US

CATALOG = load_catalog(CHECKOUT / "fleet" / "types")
SECOND = 1_000_000
EVERY = 30 * SECOND


def steady(type_name: str, device: str, kilowatts: float, per_kilowatt_hour: float, hours: int, late_us: int = 0):
    """From the day's beginning on."""
    at = MONDAY_US + np.arange(0, hours * HOUR_US, EVERY)
    counter = (at - MONDAY_US) / HOUR_US * kilowatts * per_kilowatt_hour + 100
    return Counted(type_name, device, at + late_us, at, counter)


def test_it_comes_when_its_dag_does():
    quarter, later = (us // (60 * SECOND) for us in (QUARTER_US, LATER_US))
    assert f'at("{later}-59/{quarter} * * * *")' in (CHECKOUT / "dags" / "home_energy.py").read_text()


def test_each_quarter_what_was_sent_until_then():
    """One value says nothing yet."""
    said = [steady("energy_meter", "meter", 2.0, 1.0, 3), steady("smart_plug", "washer", 1.0, 1000.0, 3)]
    found = list(home_readings(CATALOG, "home-1", said, MONDAY_US, MONDAY_US + 2 * HOUR_US))
    assert [(due - MONDAY_US) // (60 * SECOND) for due, _ in found] == [20, 35, 50, 65, 80, 95, 110]
    for due, reading in found:
        known_hours = (due - LATER_US - MONDAY_US) / HOUR_US
        assert (reading.device_id, reading.site, reading.event_time_us) == ("home-1", "home-1", due)
        assert reading.values["today"] == pytest.approx(2 * known_hours, abs=0.001)
        assert reading.values["month"] == reading.values["today"]
        assert reading.values["forecast_day"] is None


def test_what_comes_late_is_known_late():
    said = [steady("energy_meter", "meter", 2.0, 1.0, 3, late_us=QUARTER_US)]
    found = dict(home_readings(CATALOG, "home-1", said, MONDAY_US, MONDAY_US + HOUR_US))
    assert found[MONDAY_US + HOUR_US // 2 + LATER_US].values["today"] == pytest.approx(0.5, abs=0.001)


def test_with_four_weeks_before_there_is_a_forecast():
    """The same each hour, so it goes on like that to the ends of day and month: Monday 30 March has 48 hours left."""
    meter = steady("energy_meter", "meter", 0.5, 1.0, 29 * 24)
    before = meter._replace(due_us=meter.due_us - 28 * 24 * HOUR_US, event_us=meter.event_us - 28 * 24 * HOUR_US)
    found = dict(home_readings(CATALOG, "home-1", [before], MONDAY_US, MONDAY_US + HOUR_US))
    values = found[MONDAY_US + HOUR_US // 2 + LATER_US].values
    assert to_datetime(MONDAY_US) + timedelta(days=2) == to_datetime(MONDAY_US).replace(month=4, day=1)
    assert values["forecast_day"] == pytest.approx(12, rel=0.001)
    assert values["forecast_month"] == pytest.approx(values["month"] + 47.5 * 0.5, rel=0.001)
