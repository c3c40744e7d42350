"""Hogs: shares of a home that is counted once, beside the past and beside others; bills; forecasts that explain."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from etl.consumption import bills
from fleet.consumption import Appliance, Used, counting_types, hogs, totals
from fleet.forecast import Usual, day_of, forecast, history, hours_between, month_of
from fleet.tariff import load_tariffs

MONDAY = datetime(2026, 11, 2, tzinfo=UTC)
HOUR, WEEK = timedelta(hours=1), timedelta(weeks=1)
MAIN, FRIDGE, OVEN = (
    Appliance("home-1", "energy_meter", "main"),
    Appliance("home-1", "smart_plug", "fridge"),
    Appliance("home-1", "smart_plug", "oven"),
)


def used(appliance, watt_hours, local=MONDAY):
    return Used(appliance, local, watt_hours)


COUNTING = {
    "a meter and the plugs behind it": ({MAIN: 900, FRIDGE: 300, OVEN: 200}, "energy_meter"),
    "a meter that was away": ({MAIN: 10, FRIDGE: 300, OVEN: 200}, "smart_plug"),
    "plugs alone": ({FRIDGE: 300, OVEN: 200}, "smart_plug"),
}


@pytest.mark.parametrize(("measured", "expected"), COUNTING.values(), ids=COUNTING)
def test_what_is_measured_twice_counts_once(measured, expected):
    assert counting_types(measured) == {"home-1": expected}


SHARES = {
    "of the meter's total, without the meter": (
        {MAIN: 1000, FRIDGE: 300, OVEN: 200}, [("fridge", 0.3), ("oven", 0.2)]
    ),
    "a meter alone is what there is": ({MAIN: 1000}, [("main", 1.0)]),
    "plugs alone": ({OVEN: 100, FRIDGE: 300}, [("fridge", 0.75), ("oven", 0.25)]),
    "circuits": (
        {MAIN: 300, MAIN._replace(device="heating"): 700, FRIDGE: 100},
        [("heating", 0.7), ("main", 0.3), ("fridge", 0.1)],
    ),
    "nothing used": ({FRIDGE: 0}, [("fridge", None)]),
}  # fmt: skip


@pytest.mark.parametrize(("measured", "shares"), SHARES.values(), ids=SHARES)
def test_shares(measured, shares):
    found = hogs([used(a, wh) for a, wh in measured.items()], [], {})
    assert [(hog.appliance.device, hog.share) for hog in found] == shares


PAST = {
    "as ever": ([100, 110, 90, 105], 104, 102.5, False),
    "twice as much": ([100, 110, 90, 105], 205, 102.5, True),
    "much less is no hog": ([100, 110, 90, 105], 20, 102.5, False),
    "always the same, and a little more": ([100, 100, 100], 110, 100, False),
    "always the same, and much more": ([100, 100, 100], 130, 100, True),
    "one odd week is no measure": ([100, 102, 98, 5000], 101, 101, False),
    "two weeks say too little": ([100, 100], 900, None, False),
}


@pytest.mark.parametrize(("weeks", "now", "usual", "unusual"), PAST.values(), ids=PAST)
def test_beside_its_own_past(weeks, now, usual, unusual):
    before = [used(FRIDGE, wh, MONDAY - (n + 1) * WEEK) for n, wh in enumerate(weeks)]
    other_hour = [used(FRIDGE, 9999, MONDAY - WEEK + HOUR)] * 5
    (hog,) = hogs([used(FRIDGE, now)], before + other_hour, {})
    assert (hog.usual_watt_hours, hog.is_unusual) == (usual, unusual)
    assert ("its usual" in hog.verdict) == unusual


def test_hours_are_compared_with_their_own_weekday_and_summed():
    before = [used(FRIDGE, 100 + 100 * hour, MONDAY - n * WEEK + hour * HOUR) for n in (1, 2, 3) for hour in (0, 1)]
    (hog,) = hogs([used(FRIDGE, 100, MONDAY), used(FRIDGE, 200, MONDAY + HOUR)], before, {})
    assert (hog.watt_hours, hog.usual_watt_hours, hog.score) == (300, 300, 0)


PEERS = {
    "one among equals": ([100, 105, 95, 102], 98, False),
    "thrice the others": ([100, 105, 95, 102], 300, True),
    "too few others": ([100, 100], 900, None),
}


@pytest.mark.parametrize(("others", "own", "above"), PEERS.values(), ids=PEERS)
def test_beside_its_peers(others, own, above):
    homes = [used(Appliance(f"home-{n}", "smart_plug", f"p{n}"), wh) for n, wh in enumerate(others)]
    (hog,) = [one for one in hogs([*homes, used(Appliance("x", "smart_plug", "x"), own)], [], {})
              if one.appliance.site == "x"]  # fmt: skip
    assert (hog.is_above_peers if hog.peers_watt_hours is not None else None) == above


def test_standby_is_told_beside():
    assert [hog.standby_watts for hog in hogs([used(FRIDGE, 1), used(OVEN, 2)], [], {OVEN: 3.5})] == [3.5, None]


def test_totals_add_hours():
    assert totals([used(OVEN, 1), used(OVEN, 2, MONDAY + HOUR)]) == {OVEN: 3}


def test_bills_by_band_with_standing_charges():
    tariffs = load_tariffs(
        "tariffs:\n  - name: t\n    currency: EUR\n    from: 2026-11-02\n    price_per_kwh: 0.3\n"
        "    standing_charge_per_day: 0.5\n    bands: [{name: night, hours: 22-6, price_per_kwh: 0.2}]\n", "t.yaml",
    )  # fmt: skip
    hours = [used(MAIN, 1000, MONDAY + n * HOUR) for n in (0, 12, 13, 36)] + [used(MAIN, 500, MONDAY - HOUR)]
    assert [(b.tariff, b.band, b.watt_hours, b.days, round(b.cost, 9)) for b in bills(hours, tariffs)] == [
        ("t", "rest", 3000, 0, 0.9), ("t", "night", 1000, 0, 0.2), ("t", "", 0, 2, 1.0), ("", "", 500, 0, 0.0),
    ]  # fmt: skip


BERLIN = ZoneInfo("Europe/Berlin")


def weeks_of(watt_hours, weeks=4):
    return Usual(history((MONDAY - n * HOUR, watt_hours) for n in range(weeks * 168)))


def test_a_forecast_is_what_was_used_and_what_is_usual_in_what_is_left():
    found = forecast(5.0, MONDAY + timedelta(hours=12, minutes=30), MONDAY + timedelta(days=1), UTC, weeks_of(200.0))
    assert (found.used, found.rest, found.total) == (5.0, pytest.approx(0.2 * 11.5), pytest.approx(7.3))
    assert "5.00 kWh so far + 2.30 kWh usual in the 11.5 hours left (12 of them by their weekday) = 7.30" in (
        found.explanation
    )


def test_where_weeks_are_missing_any_day_is_taken():
    usual = Usual({(0, 5): [100.0], (1, 5): [300.0], (2, 5): [500.0], (3, 6): [1.0]})
    known = forecast(1.0, MONDAY + 5 * HOUR, MONDAY + 6 * HOUR, UTC, usual)
    assert (known.rest, known.by_weekday) == (0.3, 0)
    unknown = forecast(1.0, MONDAY + 5 * HOUR, MONDAY + 7 * HOUR, UTC, usual)
    assert (unknown.rest, unknown.total, unknown.unknown) == (None, None, "Monday 06:00")
    assert "no forecast: too little is known of Monday 06:00" in unknown.explanation


def test_the_median_does_not_mind_a_feast():
    values = [(MONDAY - n * WEEK, wh) for n, wh in enumerate([100.0, 9000.0, 110.0, 105.0])]
    assert Usual(history(values)).watt_hours((0, 0)) == 107.5


DAYS = [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)]


@pytest.mark.parametrize(("day", "hours"), DAYS, ids=["spring", "autumn", "summer"])
def test_a_day_is_a_local_day(day, hours):
    noon = datetime.fromisoformat(f"{day}T10:00").replace(tzinfo=UTC)
    begin, end = day_of(noon, BERLIN)
    assert (end - begin) == hours * HOUR
    parts = list(hours_between(begin, end, BERLIN))
    assert (len(parts), sum(share for _, share in parts)) == (hours, hours)
    assert {local.date() for local, _ in parts} == {date.fromisoformat(day)}


def test_a_month_is_a_local_month():
    begin, end = month_of(datetime(2026, 10, 31, 23, 30, tzinfo=UTC), BERLIN)
    assert (begin, end - begin) == (datetime(2026, 10, 31, 23, tzinfo=UTC), timedelta(days=30))


def test_hours_of_a_zone_with_a_half():
    parts = list(hours_between(MONDAY, MONDAY + 2 * HOUR, ZoneInfo("Asia/Kolkata")))
    assert [(local.hour, share) for local, share in parts] == [(5, 0.5), (6, 1.0), (7, 0.5)]
