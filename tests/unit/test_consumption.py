"""Hogs: shares of a home that is counted once, beside the past and beside others; bills; forecasts that explain."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from etl.consumption import bills
from fleet.consumption import Appliance, Used, counting_types, hogs, totals
from fleet.forecast import day_of, forecast, hours_between, month_of
from fleet.meter import kind_of
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


WASHES = {0: (1, 9), 1: (0, 20), 2: (3, 7), 3: (5, 15), 4: (2, 11), 5: (6, 18), 6: (4, 13), 7: (1, 22), 8: (0, 6)}
"""Week before → weekday and hour of one wash; two more follow, each two days and three hours later."""


def washes(weeks, times=1):
    """1 kWh each, and 1 Wh in all other hours, in which it is ready."""
    found = []
    for week in weeks:
        day, hour = WASHES[week]
        at = {((day + 2 * n) % 7, (hour + 3 * n) % 24) for n in range(3)}
        for n in range(168):
            local = MONDAY - week * WEEK + n * HOUR
            found.append(used(OVEN, times * 1000 if (local.weekday(), local.hour) in at else 1, local))
    return found


@pytest.mark.parametrize(("times", "unusual"), [(1, False), (2, True)], ids=["as ever", "twice as much"])
def test_what_runs_at_another_hour_each_week_is_not_unusual(times, unusual):
    (hog,) = hogs(washes([0], times), washes(range(1, 9)), {})
    assert (hog.usual_watt_hours, hog.is_unusual) == (3165, unusual)


def test_what_runs_on_some_days_is_not_unusual_on_one_of_them():
    before = [used(OVEN, 1000 if n in (2, 5, 7) else 0, MONDAY - n * WEEK) for n in range(1, 9)]
    assert [hogs([used(OVEN, wh)], before, {})[0].is_unusual for wh in (1000, 9000)] == [False, True]


def test_a_week_counts_though_some_of_its_hours_are_missing():
    before = [used(FRIDGE, 100, MONDAY - week * WEEK + n * HOUR) for week in (1, 2, 3) for n in range(20 - week % 2)]
    (hog,) = hogs([used(FRIDGE, 100, MONDAY + n * HOUR) for n in range(20)], before, {})
    assert (hog.usual_watt_hours, hog.score) == (pytest.approx(2000), pytest.approx(0))
    (hog,) = hogs([used(FRIDGE, 100, MONDAY + n * HOUR) for n in range(24)], before, {})
    assert hog.usual_watt_hours is None


def test_a_span_longer_than_a_week_counts_its_weekdays():
    before = [used(FRIDGE, 10, MONDAY - n * HOUR) for n in range(1, 3 * 168 + 1)]
    (hog,) = hogs([used(FRIDGE, 10, MONDAY + n * HOUR) for n in range(10 * 24)], before, {})
    assert (hog.usual_watt_hours, hog.score) == (pytest.approx(2400), pytest.approx(0))


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


KINDS = {
    "kettles are no measure of a fridge": (["kettle"] * 4, "fridge", None),
    "other fridges are": (["fridge"] * 4, "fridge", 100),
    "of what nobody said what it is": (["fridge"] * 4, None, None),
    "nor is what nobody said what it is": ([None] * 4, "fridge", None),
}


@pytest.mark.parametrize(("others", "own", "peers"), KINDS.values(), ids=KINDS)
def test_peers_are_of_the_same_kind(others, own, peers):
    kinds = {Appliance(f"home-{n}", "smart_plug", f"p{n}"): kind for n, kind in enumerate([own, *others])}
    known = {appliance: kind for appliance, kind in kinds.items() if kind is not None}
    found = {hog.appliance: hog for hog in hogs([used(appliance, 100) for appliance in kinds], [], {}, known)}
    assert found[next(iter(kinds))].peers_watt_hours == peers


PLUG = {"stove": 0, "idle": 100, "fridge": 0}
KIND = {
    "a fridge": (PLUG, {"fridge": 1, "idle": 30}, "fridge"),
    "not known": (PLUG, {"idle": 30}, None),
    "said not to be one": (PLUG, {"fridge": 0}, None),
    "a type of one kind": ({"day_limit": 30}, {"day_limit": 9}, ""),
}


@pytest.mark.parametrize(("defaults", "params", "kind"), KIND.values(), ids=KIND)
def test_which_appliance_a_device_measures(defaults, params, kind):
    assert kind_of(defaults, params) == kind


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


def hours_of(watt_hours, days):
    """`watt_hours`: of a local beginning; days before noon of MONDAY, beginning at midnight."""
    locals_ = [MONDAY + 11 * HOUR - n * HOUR for n in range(days * 24 + 12)]
    return [(local, watt_hours(local)) for local in locals_]


def test_a_forecast_is_what_was_used_and_what_is_usual_in_what_is_left():
    past = hours_of(lambda _: 200.0, 28)
    found = forecast(5.0, MONDAY + timedelta(hours=12, minutes=30), MONDAY + timedelta(days=1), UTC, past)
    assert (found.used, found.rest, found.total) == (5.0, pytest.approx(0.2 * 11.5), pytest.approx(7.3))
    assert found.explanation == (
        "5.00 kWh so far + 2.30 kWh usual in the 11.5 hours left (by 4 weeks before) = 7.30 kWh"
    )


def test_a_forecast_knows_what_runs_at_another_hour_each_week():
    """An oven of 2 kWh on each afternoon, at another hour."""
    past = hours_of(lambda local: 2000.0 if local.hour == 12 + local.toordinal() // 7 % 8 else 0.0, 56)
    found = forecast(0.0, MONDAY + 12 * HOUR, MONDAY + timedelta(days=1), UTC, past)
    assert (found.rest, found.basis) == (pytest.approx(2.0), "8 weeks")


def test_where_weeks_are_missing_any_day_is_taken():
    noon, midnight = MONDAY + 12 * HOUR, MONDAY + timedelta(days=1)
    known = forecast(1.0, noon, midnight, UTC, hours_of(lambda local: 100.0 * (local.weekday() + 1), 3))
    assert (known.rest, known.basis) == (pytest.approx(0.6 * 12), "3 days")
    unknown = forecast(1.0, noon, midnight, UTC, hours_of(lambda _: 100.0, 2))
    assert (unknown.rest, unknown.total) == (None, None)
    assert "no forecast: too little is known" in unknown.explanation


def test_at_its_end_a_day_is_what_was_used():
    assert forecast(1.0, MONDAY, MONDAY, UTC, []).total == 1.0


def test_the_median_does_not_mind_a_feast():
    values = [(MONDAY - n * WEEK, wh) for n, wh in enumerate([100.0, 9000.0, 110.0, 105.0], 1)]
    assert forecast(0, MONDAY, MONDAY + HOUR, UTC, values).rest == pytest.approx(0.1075)


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
