"""Every query of every dashboard, on a warehouse of its own with an hour and a half of each type."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Connection, create_engine

from connections.warehouse import Warehouse
from etl.consumption import Span, hogs_of, measured_types
from fleet.catalog import Catalog, build_catalog, load_catalog
from fleet.dashboard import dashboards
from fleet.settings import CHECKOUT
from fleet.spec_file import load_spec
from stack.credentials import login_url
from stack.stack import Stack
from tests.grafana import Answer, Range, answer, answers, missing_columns, queries, too_slow
from tests.integration.dashboard_data import END, scripts
from tests.integration.own_database import own_database

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
DATABASE = "dashboards"

METER = """\
type: meter
version: 1
system: grid
cadence: 10s
metrics:
  energy: {unit: watt_hour, kind: counter, range: [0, 1000000]}
  is_on: {unit: bool, kind: state, range: [0, 1]}
alerts:
  - {id: much, levels: {warning: {when: energy > 500}, critical: {when: energy > 900}}}
examples:
  good: [{payload: {device_id: m1, event_time: 0, values: {energy: 1}}, values: {energy: 1}}]
  bad: [{payload: {}, reason: missing_field}]
"""


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return build_catalog([*load_catalog(CHECKOUT / "fleet" / "types"), load_spec(METER, "meter.yaml")])


@pytest.fixture(scope="module")
def reader(stack: Stack, catalog: Catalog) -> Iterator[Connection]:
    """As Grafana: by the login that may only read."""
    owner = own_database(stack, DATABASE, "weir_reader")
    filling = create_engine(owner)
    with filling.begin() as connection:
        for script in scripts(catalog):
            connection.exec_driver_sql(script)
    filling.dispose()
    reading = create_engine(login_url("weir_reader", stack.secrets, stack.ports, DATABASE))
    with reading.connect() as connection:
        yield connection
    reading.dispose()


@pytest.fixture(scope="module")
def answered(reader: Connection, catalog: Catalog) -> dict[str, list[Answer]]:
    return {name: list(answers(reader, name, made, END)) for name, made in dashboards(catalog).items()}


def test_every_query_has_an_answer(answered: dict[str, list[Answer]]) -> None:
    """Weather, occupancy, Weir itself, a system with counters and states, one with areas, and the first page."""
    areas = {"home-energy", "home-security", "home-environment", "home-automation"}
    assert set(answered) == {"fleet", "grid", "home", "occupancy", "weather", "weir", *areas}
    empty = [found.query.where for of_dashboard in answered.values() for found in of_dashboard if not found.rows]
    assert empty == []


def test_no_query_takes_long(answered: dict[str, list[Answer]]) -> None:
    assert too_slow(found for of_dashboard in answered.values() for found in of_dashboard) == {}


def test_what_overrides_name_is_there(answered: dict[str, list[Answer]], catalog: Catalog) -> None:
    for name, made in dashboards(catalog).items():
        assert missing_columns(made, answered[name]) == [], name


def test_a_line_has_time_first_and_numbers_or_one_name(answered: dict[str, list[Answer]]) -> None:
    """What Grafana makes a series of: `time`, then numbers; or `time`, `metric` and one number."""
    for found in (f for fs in answered.values() for f in fs if f.query.kind == "timeseries"):
        assert found.columns[0] == "time", found.query.where
        assert ("metric" in found.columns) == (found.columns[1:2] == ["metric"] and len(found.columns) == 3)
        moments = [row[0] for row in found.rows]
        assert moments == sorted(moments)


@pytest.mark.parametrize("hours", [1, 24, 24 * 30], ids=["readings", "minutes", "hours"])
def test_each_table_tells_the_same(reader: Connection, catalog: Catalog, hours: int) -> None:
    """The mean of all devices and times is that of the readings, whichever table answers."""
    (query,) = (q for q in queries("weather", dashboards(catalog)["weather"]) if q.where == "weather: Temperature")
    found = answer(reader, query, Range(END - timedelta(hours=hours), END), {"site": ["here"], "device": "d7"})
    of_device = [row[found.columns.index("device")] for row in found.rows]
    assert all(low <= median <= high for _, low, median, high, _ in found.rows)
    assert sum(of_device) / len(of_device) == pytest.approx(20, abs=3)


def test_minutes_that_the_batch_has_not_loaded_are_those_of_the_stream_job(
    reader: Connection, catalog: Catalog
) -> None:
    (query,) = (q for q in queries("weather", dashboards(catalog)["weather"]) if q.where == "weather: Temperature")
    found = answer(reader, query, Range(END - timedelta(hours=24), END), {"site": ["here"], "device": "d7"})
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    assert max(row["time"] for row in rows) == END - timedelta(minutes=5)
    assert all(0 <= row["p10"] <= row["p90"] <= 40 for row in rows)


@pytest.mark.parametrize("hours", [1.5, 24], ids=["readings", "minutes"])
def test_a_counter_shows_what_was_added(reader: Connection, catalog: Catalog, hours: float) -> None:
    """It grows by one a second. A reset is no fall, and what came while a device was away is no bar."""
    (query,) = (q for q in queries("grid", dashboards(catalog)["grid"]) if q.where.startswith("grid: Energy"))
    shown = Range(END - timedelta(hours=hours), END)
    of = {
        device: [row[2] for row in answer(reader, query, shown, {"site": ["here"], "device": device}).rows if row[2]]
        for device in ("d1", "d2", "d3")
    }
    whole = sum(of["d3"])
    assert 4800 < whole <= 5400
    assert whole - 100 < sum(of["d1"]) <= whole
    assert whole - 1300 < sum(of["d2"]) < whole - 600 - 1
    assert max(of["d2"]) <= max(of["d3"])
    assert min(of["d1"]) >= 0


@pytest.mark.parametrize(("system", "late"), [("weather", 30), ("grid", 6)])
def test_late_is_what_came_behind_newer_readings(reader: Connection, catalog: Catalog, system: str, late: int) -> None:
    """d3's of a minute did; d4's of it came in time, and again. All other minutes have a clear zero."""
    (query,) = (q for q in queries(system, dashboards(catalog)[system]) if q.where == f"{system}: Late readings")
    found = answer(reader, query, Range(END - timedelta(hours=1), END), {"site": ["here"], "device": "d1"})
    assert {at: count for at, count in found.rows if count} == {END - timedelta(minutes=45): late}
    assert len(found.rows) == 59


def test_a_minute_shows_what_was_estimated_last(reader: Connection, catalog: Catalog) -> None:
    """Both champions estimated it: the newer one counts. What each was not trained on tells how good it is."""
    of = {q.where: q for q in queries("occupancy", dashboards(catalog)["occupancy"])}
    shown, chosen = Range(END - timedelta(hours=1), END), {"site": ["here"], "device": "d1"}
    found = answer(reader, of["occupancy: Head count: estimate and truth"], shown, chosen)
    assert {tuple(row[1:]) for row in found.rows if row[1] is not None} == {(2, 2)}
    table = answer(reader, of["occupancy: Head count: models"], shown, chosen)
    seen = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [(r["model"], r["state"], r["since: accuracy"], r["since: off by"]) for r in seen] == [
        ("m2", "champion", 1, 0), ("m1", "", 0, 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "answer_", "within"),
    [
        ("dew_point_celsius(20, 50)", 9.3, 0.05),
        ("dew_point_celsius(25, 100)", 25, 1e-9),
        ("dew_point_celsius(20, 0)", None, 0),
        ("saturation_hpa(0)", 6.112, 1e-9),
        ("saturation_hpa(20)", 23.33, 0.05),
        ("corner_humidity_percent(20, 50, -5)", 80, 1),
        ("corner_humidity_percent(20, 50, 20)", 50, 1e-9),
        ("corner_humidity_percent(20, 90, -20)", 100, 0),
    ],
    ids=["a room", "saturated", "no humidity", "at 0", "at 20", "as DIN 4108-2 has it", "as warm outside", "wet"],
)
def test_moist_air(reader: Connection, asked: str, answer_: float | None, within: float) -> None:
    """By published tables: 50 % at 20 °C has its dew point at 9.3 °C, and at -5 °C outside 80 % in a corner."""
    found = reader.exec_driver_sql(f"SELECT {asked}").scalar_one()
    assert found is None if answer_ is None else found == pytest.approx(answer_, abs=within)


def test_the_power_of_each_adds_up(reader: Connection, catalog: Catalog) -> None:
    of = {q.where: q for q in queries("home-energy", dashboards(catalog)["home-energy"])}
    shown, chosen = Range(END - timedelta(hours=24), END), {"site": ["here"], "device": "d1"}
    each = answer(reader, of["home-energy: Power of each"], shown, chosen)
    rows = [dict(zip(each.columns, row, strict=True)) for row in each.rows]
    sums = answer(reader, of["home-energy: Power, all together"], shown, chosen)
    for title, total in zip(sums.columns, sums.rows[0], strict=True):
        of_kind = [row for row in rows if row["what"] == title]
        assert sum(row["power"] for row in of_kind) == pytest.approx(total)
        assert sum(row["share"] for row in of_kind) == pytest.approx(1)


def test_hogs_are_ranked_beside_their_home_and_their_past(reader: Connection, catalog: Catalog) -> None:
    """Plug n uses 100 n Wh in an hour, and did on such days before; the meter before them counts 1,200 Wh, but is none.
    The other plugs at its site are its peers; of the one at another the registry knows nothing."""
    of = {q.where: q for q in queries("home-energy", dashboards(catalog)["home-energy"])}
    shown, chosen = Range(END - timedelta(hours=24), END), {"site": ["here", "there"], "device": "d1"}
    found = answer(reader, of["home-energy: Energy hogs"], shown, chosen)
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    told = ("device", "site", "share of its home", "times its usual", "times its peers", "standby")
    peers = {4: 200, 3: 200, 2: 300, 1: 300}
    assert [tuple(row[name] for name in told) for row in rows] == [
        *((f"d{n}", "here", pytest.approx(n / 12), pytest.approx(1), pytest.approx(100 * n / of), pytest.approx(10 * n))
          for n, of in peers.items()),
        ("d1", "there", 1, pytest.approx(1), None, None),
    ]  # fmt: skip
    drawn = answer(reader, of["home-energy: Energy of appliances"], shown, chosen)
    assert {watt_hours for _, name, watt_hours in drawn.rows if name == "d4"} == {400}


def test_hogs_are_those_of_the_command(reader: Connection, catalog: Catalog) -> None:
    """For whole hours, all sites and a week at most: the panel's own query, and what `weir energy hogs` computes."""
    of = {q.where: q for q in queries("home-energy", dashboards(catalog)["home-energy"])}
    begin = END - timedelta(hours=24)
    within = Range(begin, END - timedelta(seconds=1))  # an hour that begins as a range ends is in it
    shown = answer(reader, of["home-energy: Energy hogs"], within, {"site": ["here", "there"], "device": "d1"})
    types = measured_types(catalog, "home")
    warehouse = Warehouse(reader.engine.url.render_as_string(hide_password=False))
    told = hogs_of(warehouse, Span(begin, END, tuple(spec.type for spec in types)), types)
    warehouse.close()

    def beside(value: float, other: float | None) -> float | None:
        return value / other if other else None

    names = ("device", "site", "energy", "share of its home", "times its usual", "times its peers", "standby")
    rows = [dict(zip(shown.columns, row, strict=True)) for row in shown.rows]
    approximately = [
        tuple(pytest.approx(value) if isinstance(value, float) else value for value in of_one)
        for of_one in (
            (hog.appliance.device, hog.appliance.site, hog.watt_hours, hog.share,
             beside(hog.watt_hours, hog.usual_watt_hours), beside(hog.watt_hours, hog.peers_watt_hours),
             hog.standby_watts)
            for hog in told
        )
    ]  # fmt: skip
    assert len(told) == 5
    assert sorted((tuple(row[name] for name in names) for row in rows), key=lambda row: row[:2]) == sorted(
        approximately, key=lambda row: row[:2]
    )


def test_of_what_cannot_be_the_energy_is_not_told(reader: Connection, catalog: Catalog) -> None:
    of = {q.where: q for q in queries("home-energy", dashboards(catalog)["home-energy"])}
    shown, chosen = Range(END - timedelta(hours=24), END), {"site": ["here"], "device": "d1"}
    found = answer(reader, of["home-energy: Energy that nobody is charged with"], shown, chosen)
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    assert {row["reason"]: row["energy"] for row in rows if row["reason"] != "gap"} == {"implausible": None}
    assert sorted(row["energy"] for row in rows if row["reason"] == "gap") == [70, 600, 900]
