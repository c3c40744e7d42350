"""Energy in a real warehouse: each hour right, whatever lands when, and however often it is processed."""

import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from connections.warehouse import Warehouse
from etl.consumption import Span, hogs_of, measured_types, shown
from etl.energy import places, reprice
from etl.home_energy import home_energies, publish
from etl.retention import expire
from etl.run import Job, Request
from fleet.channels import CONTROL, TRANSITIONS, mark_of
from fleet.reading import decode_reading
from fleet.settings import CHECKOUT, Settings
from fleet.transition import decode_transition
from stack.stack import Stack
from tests.command import Weir, command
from tests.integration.batch_runs import run
from tests.integration.logs import records
from tests.integration.processes import Process, wait_for
from tests.integration.small_lake import T0, SmallLake

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
HOUR = timedelta(hours=1)
TARIFFS = """\
tariffs:
  - name: t
    currency: EUR
    from: 2026-01-01
    price_per_kwh: 0.30
    bands: [{name: night, hours: 22-6, price_per_kwh: 0.20}]
"""


@pytest.fixture
def job(settings: Settings) -> Iterator[Job]:
    """With a plug, a meter and prices; the plug's rules ask who is at home."""
    for name in ("smart_plug", "energy_meter", "home_energy", "presence_tag"):
        (settings.types_dir / f"{name}.yaml").write_text((CHECKOUT / "fleet" / "types" / f"{name}.yaml").read_text())
    file = settings.home / "tariffs.yaml"
    file.write_text(TARIFFS)
    made = Job(settings.model_copy(update={"tariffs_file": file}))
    yield made
    made.warehouse.close()


def plug(second: float, watt_hours: float, device: str = "p1", **more: Any) -> dict[str, Any]:
    return {"device_id": device, "site": "home-1", "event_time": T0 + timedelta(seconds=second), "energy": watt_hours,
            **more}  # fmt: skip


def steady(first: int, last: int, start: float, watts: float = 720.0, **more: Any) -> list[dict[str, Any]]:
    """Every 5 s, counting up from `start`: 1 Wh each time."""
    return [plug(s, start + (s - first) * watts / 3600, **more) for s in range(first, last, 5)]


def hours(job: Job) -> dict[tuple[str, int], float]:
    rows = job.warehouse.rows("SELECT device_id, hour, watt_hours FROM energy_hours ORDER BY 1, 2")
    return {(row["device_id"], (row["hour"] - T0) // HOUR): row["watt_hours"] for row in rows}


def unattributed(job: Job) -> list[tuple[float, float, float, str]]:
    rows = job.warehouse.rows("SELECT * FROM energy_unattributed ORDER BY starts_at, device_id")
    return [
        ((r["starts_at"] - T0).total_seconds(), (r["ends_at"] - T0).total_seconds(), pytest.approx(r["watt_hours"]),
         r["reason"]) for r in rows
    ]  # fmt: skip


def everything(job: Job) -> dict[str, list[str]]:
    names = ("energy_hours", "energy_unattributed", "energy_pieces", "energy_ends")
    return {name: sorted(r["t"] for r in job.warehouse.rows(f"SELECT t::text AS t FROM {name} t")) for name in names}


def test_hours_resets_gaps_and_what_cannot_be(job: Job, lake: SmallLake) -> None:
    spec = job.catalog.type("smart_plug")
    day = [
        *steady(3, 7203, 1000.0),      # two hours: 1 Wh each 5 s, the hour is crossed from 3598 to 3603
        *steady(7203, 9003, 0.0),      # reset
        *steady(12_603, 14_403, 900),  # an hour without a word
        plug(14_405, 90_000),          # 89 MWh in two seconds
    ]  # fmt: skip
    lake.land(spec, day)
    run(job, "r1")
    assert hours(job) == pytest.approx({("p1", 0): 719.4, ("p1", 1): 719.6, ("p1", 2): 359, ("p1", 3): 359})
    assert unattributed(job) == [(8998.0, 12_603.0, 541.0, "gap"), (14_398.0, 14_405.0, 88_741.0, "implausible")]
    before = everything(job)
    run(job, "r2", force=True)
    assert everything(job) == before


def test_whatever_lands_first(job: Job, lake: SmallLake) -> None:
    """Four hours of two plugs, by halves, in an order of chance."""
    spec, chance = job.catalog.type("smart_plug"), random.Random(5)
    by_hour = [
        [*steady(n * 3600 + 1, (n + 1) * 3600, 100 + n * 720, device="p1"),
         *steady(n * 3600 + 2, n * 3600 + 1800 * (n % 2), n * 9, device="p2")]
        for n in range(4)
    ]  # fmt: skip
    order = list(range(4))
    chance.shuffle(order)
    for hour in order:
        half = len(by_hour[hour]) // 2
        chance.shuffle(by_hour[hour])
        for number, part in enumerate((by_hour[hour][:half], by_hour[hour][half:])):
            lake.land(spec, part)
            run(job, f"hour {hour}, part {number}")
    found = everything(job)
    run(job, "all", force=True)
    assert everything(job) == found
    assert hours(job)["p1", 2] == pytest.approx(720)
    gaps = job.warehouse.rows("SELECT device_id, starts_at, ends_at, watt_hours FROM energy_unattributed ORDER BY 2")
    assert {row["device_id"] for row in gaps} == {"p2"}


def test_a_late_hour_replaces_a_gap(job: Job, lake: SmallLake) -> None:
    spec = job.catalog.type("smart_plug")
    lake.land(spec, [*steady(0, 3600, 0), *steady(7200, 10_800, 1440)])
    run(job, "r1")
    assert unattributed(job) == [(3595.0, 7200.0, 721.0, "gap")]
    assert hours(job) == pytest.approx({("p1", 0): 719, ("p1", 2): 719})
    lake.land(spec, steady(3600, 7200, 720))
    assert [batch.partitions for batch in run(job, "r2")[0]] == [("home/smart_plug/2026-11-22T04",)]
    assert unattributed(job) == []
    assert hours(job) == pytest.approx({("p1", 0): 720, ("p1", 1): 720, ("p1", 2): 719})


def test_folders_that_load_at_once(job: Job, lake: SmallLake) -> None:
    spec = job.catalog.type("smart_plug")
    for n in range(4):
        lake.land(spec, steady(n * 3600, (n + 1) * 3600, n * 720))
    run(job, "r1")
    before = everything(job)
    (batch,) = job.begin("r2", Request(force=True))
    stores = [store for _, store in job._derived(batch, job._files("r2", batch), "r2")]
    with ThreadPoolExecutor(len(stores)) as pool:
        assert list(pool.map(lambda store: store(), stores)) == [True] * 4
    assert everything(job) == before


DAYS = [("2026-03-29", 23), ("2026-10-25", 25)]


@pytest.fixture
def in_zone(settings_for: Callable[[str], Settings]) -> Iterator[Callable[[str], None]]:
    warehouse = Warehouse.of(settings_for("registry"))

    def put(zone: str) -> None:
        with warehouse.transaction() as c:
            c.execute(
                text(
                    "INSERT INTO sites VALUES ('home', 'home-1', :zone)"
                    " ON CONFLICT (system, site) DO UPDATE SET time_zone = excluded.time_zone"
                ),
                {"zone": zone},
            )

    yield put
    put("UTC")
    warehouse.close()


@pytest.mark.parametrize(("day", "count"), DAYS, ids=["spring", "autumn"])
def test_a_day_where_the_clocks_change(
    job: Job, lake: SmallLake, in_zone: Callable[[str], None], day: str, count: int
) -> None:
    """1 kWh an hour: 0.30 by day, 0.20 at the eight hours of night, of which one is missing in spring and one twice in
    autumn."""
    in_zone("Europe/Berlin")
    begin = datetime.fromisoformat(day).replace(tzinfo=UTC) - timedelta(hours=6)
    meter = [
        {"device_id": "m1", "site": "home-1", "event_time": begin + timedelta(minutes=n), "energy": n / 60}
        for n in range(36 * 60)
    ]
    lake.land(job.catalog.type("energy_meter"), meter)
    run(job, "r1")
    days = {f"{row['day']}": row for row in job.warehouse.rows("SELECT * FROM energy_days")}
    night = 8 + count - 24
    assert days[day]["hours"] == count
    assert days[day]["watt_hours"] == pytest.approx(1000.0 * count)
    assert days[day]["cost"] == pytest.approx(night * 0.20 + 16 * 0.30)
    assert days[day]["currency"] == "EUR"


def test_local_hours_of_a_zone_with_a_half(job: Job, lake: SmallLake, in_zone: Callable[[str], None]) -> None:
    in_zone("Asia/Kolkata")
    lake.land(job.catalog.type("smart_plug"), steady(0, 7200, 0))
    run(job, "r1")
    rows = job.warehouse.rows("SELECT hour, watt_hours, time_zone FROM energy_hours ORDER BY hour")
    assert [(row["hour"] - T0, row["watt_hours"], row["time_zone"]) for row in rows] == [
        (timedelta(minutes=minute), pytest.approx(wh), "Asia/Kolkata")
        for minute, wh in ((-30, 360), (30, 720), (90, 359))
    ]  # fmt: skip


def test_prices_that_change_are_given_to_stored_hours(job: Job, lake: SmallLake) -> None:
    lake.land(job.catalog.type("smart_plug"), steady(0, 3600 * 4, 0))
    run(job, "r1")
    cost = "SELECT round(sum(cost)::numeric, 6)::float AS cost FROM energy_hours"
    assert job.warehouse.rows(cost) == [{"cost": pytest.approx((720 * 3 * 0.2 + 719 * 0.3) / 1000)}]
    job.settings.tariffs_file.write_text(TARIFFS.replace("0.30", "0.60").replace("0.20", "0.40"))
    spec = job.catalog.type("smart_plug")
    assert reprice(job.warehouse, spec, places(job.settings, job.warehouse, spec)) == 4
    assert job.warehouse.rows(cost) == [{"cost": pytest.approx((720 * 3 * 0.4 + 719 * 0.6) / 1000)}]


def test_a_day_in_which_the_currency_changes(job: Job, lake: SmallLake) -> None:
    """Each has its own row: kroner and euro add up to nothing. The second hour's last value comes with the third."""
    spec = job.catalog.type("smart_plug")
    one = "tariffs: [{name: t, currency: %s, from: 2026-01-01, price_per_kwh: %s}]"
    for currency, price, first, last in (("DKK", 3, 0, 7200), ("EUR", 0.4, 7200, 10_800)):
        job.settings.tariffs_file.write_text(one % (currency, price))
        lake.land(spec, steady(first, last, first / 5))
        run(job, currency)
    expected = [("DKK", 1, pytest.approx(0.720 * 3)), ("EUR", 2, pytest.approx(1.439 * 0.4))]
    span = Span(T0, T0 + timedelta(days=1), (spec.type,))
    days = job.warehouse.rows("SELECT currency, hours, cost FROM energy_days ORDER BY 1")
    for rows in (shown(job.warehouse, span, "all"), shown(job.warehouse, span, "day"), days):
        assert [(row["currency"], row["hours"], row["cost"]) for row in rows] == expected


def test_what_is_old_expires(job: Job, lake: SmallLake) -> None:
    old = 2 * max(t.retention.rollups for t in job.catalog).total_seconds()
    lake.land(job.catalog.type("smart_plug"), [*steady(0, 100, 0), *(plug(s - old, s) for s in range(0, 100, 5))])
    run(job, "r1")
    assert expire(job.warehouse, job.catalog, T0)["smart_plug"]["energy_hours_deleted"] == 1
    assert {key: len(rows) for key, rows in everything(job).items()} == {
        "energy_hours": 1, "energy_unattributed": 0, "energy_pieces": 1, "energy_ends": 1,
    }  # fmt: skip


WEEKS = """
INSERT INTO energy_hours (site, device_type, device_id, hour, watt_hours)
SELECT 'home-1', of.type, of.device, hour, of.wh
  FROM generate_series(CAST(:t0 AS timestamptz) - INTERVAL '5 weeks', CAST(:t0 AS timestamptz) - INTERVAL '1 hour',
                       '1 hour') hour,
       (VALUES ('energy_meter', 'm1', 1000), ('smart_plug', 'fridge', 30)) AS of (type, device, wh)"""
NIGHTS = """
INSERT INTO rollups
SELECT at, '1m', 'home', 'smart_plug', 'home-1', 'fridge', 'power', 12, w, w, w, 0, w, 0, 1
  FROM (SELECT at, CASE WHEN extract(minute FROM at) < 10 THEN 60 ELSE 12 END AS w
          FROM generate_series(CAST(:t0 AS timestamptz) - INTERVAL '2 days',
                               CAST(:t0 AS timestamptz) - INTERVAL '1 hour', '1 minute') at) t"""


def test_hogs_forecasts_and_the_command(job: Job, lake: SmallLake, stack: Stack) -> None:
    """Five weeks of a meter, each hour 1 kWh, and of a fridge behind it, which uses twice its own in the last night."""
    now = T0 + timedelta(hours=9)
    with job.warehouse.transaction() as c:
        c.execute(text(WEEKS), {"t0": T0})
        c.execute(text(NIGHTS), {"t0": T0})
    meter = [
        {"device_id": "m1", "site": "home-1", "event_time": T0 + timedelta(minutes=10 * n), "energy": n / 6}
        for n in range(55)
    ]
    lake.land(job.catalog.type("energy_meter"), meter)
    lake.land(job.catalog.type("smart_plug"), [plug(600 * n, 10 * n, "fridge") for n in range(55)])
    run(job, "r1")
    types = measured_types(job.catalog, "home")
    span = Span(T0, now, tuple(spec.type for spec in types))
    (hog,) = hogs_of(job.warehouse, span, types)
    assert (hog.appliance.device, hog.share, hog.is_unusual) == ("fridge", pytest.approx(540 / 9000), True)
    assert (hog.usual_watt_hours, hog.standby_watts) == (pytest.approx(270), None)
    night = span._replace(start=T0 - timedelta(days=3))
    (hog,) = hogs_of(job.warehouse, night, types)
    assert hog.standby_watts == pytest.approx(12.0)

    (home,) = home_energies(job.warehouse, job.catalog, "home", now)
    assert home.known_to == now
    assert home.values == {
        "today": pytest.approx(12), "month": pytest.approx(21 * 24 + 12), "forecast_day": pytest.approx(24),
        "forecast_month": pytest.approx(30 * 24),
    }  # fmt: skip
    told = shown(job.warehouse, span, "all")
    assert [(row["device_id"], row["watt_hours"]) for row in told] == [
        ("m1", pytest.approx(9000)), ("fridge", pytest.approx(540)),
    ]  # fmt: skip

    weir = command(WEIR_HOME=stack.layout.home, WEIR_TYPES_DIR=job.settings.types_dir,
                   WEIR_TARIFFS_FILE=job.settings.tariffs_file)  # fmt: skip
    when = ("--from", "2026-11-22", "--to", "2026-11-22T12:00", "--system", "home", "--site", "home-1")
    assert "fridge" in weir("energy", "hogs", *when).stdout
    found = json.loads(weir("energy", "show", *when, "--by", "hour", "--json").stdout)
    assert len(found["energy"]) == 24 and found["unattributed"] == []
    bills = json.loads(weir("energy", "cost", *when, "--json").stdout)
    assert {(bill["band"], round(bill["watt_hours"])) for bill in bills} == {("night", 6000), ("rest", 6000)}
    assert "did you mean 'home'" in weir("energy", "show", "--system", "hmoe", code=1).stderr
    assert "no site 'nope' is known" in weir("energy", "show", "--site", "nope", code=1).stderr


def test_homes_are_told_to_the_rules_and_people_by_them(
    job: Job, lake: SmallLake, settings_for: Callable[[str], Settings], own_types: Path, own_bridge: Process,
    weir: Weir, tmp_path: Path,
) -> None:  # fmt: skip
    """Landed, processed, published as readings in the topic of their system, and an alert by the home's own limit."""
    operator = settings_for("operator")
    weir("devices", "add", "home_energy", "home-9", "--site", "home-9", "--param", "day_limit=0.01")
    own_bridge.start().ready()

    def log(mark: bytes | None) -> list[bytes]:
        return [r.value for r in records(operator, "readings.home") if mark_of(r.headers) == mark]

    wait_for(lambda: any(b'"home-9"' in value for value in log(CONTROL)), 30, own_bridge.log.read_text, every=0.5)

    now = datetime.now(UTC)
    start = max(now - timedelta(minutes=30), now.replace(hour=0, minute=0, second=0, microsecond=0))
    rows = [
        {"device_id": "m9", "site": "home-9", "event_time": start + (now - start) * n / 300, "energy": n / 1000}
        for n in range(300)
    ]
    lake.land(job.catalog.type("energy_meter"), rows)
    run(job, "r1")
    batch = settings_for("batch")
    told = Job(job.settings.model_copy(update={"kafka_user": batch.kafka_user}))
    (home,) = publish(told, now)
    told.warehouse.close()
    assert home.site == "home-9"
    (reading,) = [one for value in log(None) if (one := decode_reading(value)).device_id == "home-9"]
    assert (reading.device_type, reading.site, reading.values) == ("home_energy", "home-9", home.values)
    assert home.values["today"] == pytest.approx(0.299)
    assert home.values["forecast_day"] is None and "too little is known" in home.day.explanation

    def fired() -> list[tuple[str, str, float | None]]:
        log = [decode_transition(r.value) for r in records(operator, TRANSITIONS, isolation_level="read_committed")]
        return [(t.rule, t.to, t.values["today"]) for t in log if (t.type, t.device) == ("home_energy", "home-9")]

    with Process("alerts", settings_for("alerts"), tmp_path / "alerts.log", WEIR_TYPES_DIR=own_types) as alerts:
        alerts.start().ready()
        wait_for(fired, 60, alerts.log.read_text, every=0.5)
    assert fired() == [("day_above_limit", "firing", home.values["today"])]
