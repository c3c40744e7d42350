"""What is true of a simulated home: limits as rules have them, days and months as they are, energy as it is counted."""

import numpy as np
import pytest

from simulators import home_truth
from simulators.home_truth import Energy, Period, energy_told, periods
from simulators.household import DEVICES
from simulators.incidents import BATTERY_LIMIT, TOLD_WITHIN
from simulators.routine import DAY, HOUR, MINUTE
from tests.unit.test_homes import CATALOG, MONDAY_US, TOWN

RULES = {(spec.type, rule.id): rule for spec in CATALOG.systems["home"].types for rule in spec.alerts}
PARAMS = {
    ("smart_plug", "much_energy_today"): {"day_limit": home_truth.PLUG_LIMITS["day_limit"]},
    ("smart_plug", "much_energy_this_month"): {"month_limit": home_truth.PLUG_LIMITS["month_limit"]},
    ("room_climate", "uncomfortable"): dict(
        zip(("coldest", "warmest", "driest", "dampest"),
            (*home_truth.COMFORT_CELSIUS, *home_truth.COMFORT_PERCENT), strict=True)
    ),
    ("room_climate", "battery_low"): {"limit": BATTERY_LIMIT},
}  # fmt: skip
LASTING = {
    ("room_climate", "uncomfortable"): home_truth.COMFORT_AFTER,
    ("room_climate", "mould_risk"): home_truth.MOULD_AFTER,
    ("smart_plug", "stove_switched_off"): home_truth.STOVE_AFTER,
}


@pytest.mark.parametrize("key", PARAMS, ids=" ".join)
def test_limits_are_those_of_the_rules(key):
    assert RULES[key].params == PARAMS[key]


@pytest.mark.parametrize("key", LASTING, ids=" ".join)
def test_what_must_last_does_for_as_long_as_the_rules_ask(key):
    assert RULES[key].for_.total_seconds() == LASTING[key]


def test_days_and_months_of_a_run():
    span = (6 * HOUR, 2 * DAY + HOUR)
    found = list(periods(span, MONDAY_US))
    assert found == [
        Period("day", 0, DAY), Period("day", DAY, 2 * DAY), Period("day", 2 * DAY, 3 * DAY),
        Period("month", -29 * DAY, 2 * DAY), Period("month", 2 * DAY, 32 * DAY),
    ]  # fmt: skip


def used(watts: float) -> Energy:
    """A day of the washer, alone, and the meter before it."""
    end = np.arange(home_truth.STEP, DAY + 1, home_truth.STEP)
    none, washer = np.zeros(len(end)), np.full(len(end), watts * home_truth.STEP / HOUR)
    return Energy(end, {placed.name: none for placed in home_truth.MEASURED} | {"washer": washer, "meter": washer})


def test_what_is_used_is_told_when_it_passes_a_limit():
    """1 kW: 5 kWh of the plug at five o'clock, 12 of the home at noon. Of a month nothing is known."""
    found = {(told.rule, told.device): told for told in energy_told(used(1000), (0, DAY), MONDAY_US, True)}
    assert set(found) == {
        ("much_energy_today", "washer"), ("much_energy_this_month", "washer"), ("much_energy_today", "meter"),
        ("day_above_limit", ""), ("day_forecast_above_limit", ""),
    }  # fmt: skip
    told = found["much_energy_today", "washer"]
    assert told.begin == pytest.approx(5 * HOUR * 0.995, abs=home_truth.STEP)
    assert told.end == pytest.approx(5 * HOUR + TOLD_WITHIN, abs=home_truth.STEP)
    assert found["day_above_limit", ""].end == pytest.approx(12 * HOUR + 25 * MINUTE, abs=home_truth.STEP)
    assert found["day_forecast_above_limit", ""].begin == 0
    assert list(energy_told(used(200), (0, DAY), MONDAY_US, True)) == []


def test_energy_is_what_the_counters_count():
    planned = TOWN.schedule()
    of = home_truth.energy(TOWN.home(0, planned), 8 * HOUR, 9 * HOUR)
    tracks = {track.placed.name: track for track in TOWN.home(0, planned).hour(8)}
    for placed in DEVICES:
        if placed in home_truth.MEASURED and placed.type == "smart_plug":
            counted = tracks[placed.name].values["energy"]
            assert of.watt_hours[placed.name].sum() == pytest.approx(counted[-1] - counted[0], rel=0.02, abs=0.1)


def test_the_weeks_before_are_other_days_of_the_same_home():
    home = TOWN.home(0, TOWN.schedule())
    monday, sunday = (home_truth.energy(home, day * DAY, (day + 1) * DAY) for day in (-7, -1))
    assert monday.end[-1] == -6 * DAY and sunday.end[-1] == 0
    kwh = [of.watt_hours["meter"].sum() / 1000 for of in (monday, sunday)]
    assert all(1.5 < one < 7 for one in kwh) and kwh[0] != kwh[1]


@pytest.mark.parametrize(
    ("celsius", "percent", "outdoors", "moulds"),
    [(20.0, 49.0, -5.0, False), (20.0, 51.0, -5.0, True), (20.0, 61.0, 10.0, False), (18.0, 90.0, 4.0, True)],
)
def test_walls_mould_as_the_standard_has_it(celsius, percent, outdoors, moulds):
    """DIN 4108-2: 20 °C, 50 % and -5 °C outdoors are the limit."""
    assert home_truth.moulds(*(np.array([value]) for value in (celsius, percent, outdoors))).tolist() == [moulds]
