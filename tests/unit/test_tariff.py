"""Tariffs: which price an hour has, what a day costs before anything is used, what is wrong with a file, by line."""

from datetime import date, datetime
from textwrap import dedent

import pytest

from fleet.errors import SpecError
from fleet.settings import CHECKOUT
from fleet.tariff import Tariffs, load_tariffs

GOOD = """\
tariffs:
  - name: house
    currency: EUR
    from: 2026-01-01
    until: 2027-01-01
    price_per_kwh: 0.30
    standing_charge_per_day: 0.5
    bands:
      - {name: night, hours: 22-6, price_per_kwh: 0.20}
      - {name: sunday, days: [sun], hours: 6-22, price_per_kwh: 0.25}
  - {name: cabin, currency: NOK, from: 2026-06-01, sites: [cabin-1], price_per_kwh: 1.5}
  - {name: new, currency: EUR, from: 2027-01-01, price_per_kwh: 0.4}
"""
PRICES = [
    ("home-1", "2026-01-05T21:00", ("house", "rest", 0.30)),
    ("home-1", "2026-01-05T22:00", ("house", "night", 0.20)),
    ("home-1", "2026-01-05T05:00", ("house", "night", 0.20)),
    ("home-1", "2026-01-05T06:00", ("house", "rest", 0.30)),
    ("home-1", "2026-01-04T12:00", ("house", "sunday", 0.25)),
    ("home-1", "2026-01-04T23:00", ("house", "night", 0.20)),
    ("home-1", "2026-12-31T12:00", ("house", "rest", 0.30)),
    ("home-1", "2027-01-01T12:00", ("new", "rest", 0.4)),
    ("home-1", "2025-12-31T12:00", None),
    ("cabin-1", "2026-05-31T12:00", ("house", "sunday", 0.25)),
    ("cabin-1", "2026-06-01T12:00", ("cabin", "rest", 1.5)),
]


@pytest.mark.parametrize(("site", "local", "expected"), PRICES, ids=[f"{s} {at}" for s, at, _ in PRICES])
def test_an_hour_has_one_price(site, local, expected):
    price = load_tariffs(GOOD, "t.yaml").price(site, datetime.fromisoformat(local))
    assert (price and (price.tariff, price.band, price.per_kwh)) == expected


def test_cost_is_by_the_kilowatt_hour():
    price = load_tariffs(GOOD, "t.yaml").price("home-1", datetime(2026, 1, 5, 12))
    assert price.cost(2500) == pytest.approx(0.75)


def test_standing_charges_are_of_days_not_of_appliances():
    days = [("home-1", date(2026, 12, 30)), ("home-1", date(2026, 12, 31)), ("home-1", date(2026, 12, 31)),
            ("home-1", date(2027, 1, 1)), ("cabin-1", date(2026, 7, 1))]  # fmt: skip
    assert load_tariffs(GOOD, "t.yaml").standing_charges(days) == {("home-1", "house", "EUR"): (2, 1.0)}


BAD = {
    "no mapping": ("- a\n", "t.yaml:1: expected `tariffs:`, found list"),
    "unknown key": ("tariff: []\n", "t.yaml:1: tariff: unknown key; did you mean 'tariffs'?"),
    "no price": (
        "tariffs:\n  - {name: a, currency: EUR, from: 2026-01-01}\n",
        "t.yaml:2: tariffs.0.price_per_kwh: is required and missing",
    ),
    "a price below zero": (
        "tariffs:\n  - {name: a, currency: EUR, from: 2026-01-01, price_per_kwh: -1}\n",
        "t.yaml:2: tariffs.0.price_per_kwh: input should be greater than or equal to 0; found -1",
    ),
    "a currency": (
        "tariffs:\n  - {name: a, currency: euro, from: 2026-01-01, price_per_kwh: 1}\n",
        "t.yaml:2: tariffs.0.currency: must match ^[A-Z]{3}$; found 'euro'",
    ),
    "no date": (
        "tariffs:\n  - name: a\n    currency: EUR\n    from: soon\n    price_per_kwh: 1\n",
        "t.yaml:4: tariffs.0.from: input should be a valid date; found 'soon'",
    ),
    "ends before it begins": (
        "tariffs:\n  - {name: a, currency: EUR, from: 2026-01-02, until: 2026-01-02, price_per_kwh: 1}\n",
        "until 2026-01-02 must be after from 2026-01-02",
    ),
    "hours": (
        "tariffs:\n  - name: a\n    currency: EUR\n    from: 2026-01-01\n    price_per_kwh: 1\n    bands:\n"
        "      - {name: n, hours: 22-25, price_per_kwh: 1}\n",
        "t.yaml:7: tariffs.0.bands.0.hours: hours are from-to of 0 to 24, such as 6-22, or 22-6 over midnight; found"
        " '22-25'",
    ),
    "weekday": (
        "tariffs:\n  - name: a\n    currency: EUR\n    from: 2026-01-01\n    price_per_kwh: 1\n    bands:\n"
        "      - {name: n, days: [monday], price_per_kwh: 1}\n",
        "t.yaml:7: tariffs.0.bands.0.days: 'monday' is no weekday; allowed: mon, tue, wed, thu, fri, sat, sun",
    ),
    "two bands of an hour": (
        "tariffs:\n  - name: a\n    currency: EUR\n    from: 2026-01-01\n    price_per_kwh: 1\n    bands:\n"
        "      - {name: n, hours: 22-6, price_per_kwh: 1}\n      - {name: m, hours: 5-8, price_per_kwh: 1}\n",
        "bands 'n' and 'm' both have mon 5:00; an hour has one price",
    ),
    "two tariffs of a day": (
        "tariffs:\n  - {name: a, currency: EUR, from: 2026-01-01, sites: [x], price_per_kwh: 1}\n"
        "  - {name: b, currency: EUR, from: 2026-03-01, sites: [y, x], price_per_kwh: 1}\n",
        "t.yaml:3: tariffs.1: 'b' and 'a' are both valid on 2026-03-01 for x; end one with `until`",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_named(text, said):
    with pytest.raises(SpecError) as raised:
        load_tariffs(dedent(text), "t.yaml")
    assert said in str(raised.value)


@pytest.mark.parametrize("text", ["", "# none\n", "tariffs: []\n"], ids=["empty", "comment", "none"])
def test_without_tariffs_nothing_has_a_price(text):
    assert load_tariffs(text, "t.yaml") == Tariffs()


def test_the_example_is_good():
    file = CHECKOUT / "fleet" / "tariffs.yaml"
    assert load_tariffs(file.read_text(), "tariffs.yaml").price("home-1", datetime(2026, 11, 2, 23)).band == "night"
