"""`weir energy`: what appliances use, when and for how much; who uses much; what a home will have used."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weir import _filters
from weir._alert_rows import plain
from weir._table import AsJson

if TYPE_CHECKING:
    from connections.warehouse import Warehouse
    from etl.consumption import Span
    from fleet.catalog import Catalog
    from fleet.settings import Settings
    from fleet.spec import DeviceType

energy = typer.Typer(no_args_is_help=True, help="What meters counted, by appliance and local hour, and what it cost.")

System = Annotated[str, typer.Option(help="A system of fleet/types, or all.")]
Site = Annotated[str | None, typer.Option(help="One site alone.")]
From = Annotated[str, typer.Option("--from", help="2026-11-22, 2026-11-22T03:00, -7d (ago); UTC.")]
To = Annotated[str, typer.Option(help="As --from; the first moment to leave out.")]
WEEK = "-7d"


def register(app: typer.Typer) -> None:
    app.add_typer(energy, name="energy")


@energy.command()
def show(
    system: System = "all", site: Site = None, start: From = "-1d", to: To = "now",
    by: Annotated[str, typer.Option(help="hour, day (the site's) or all: one row an appliance.")] = "day",
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Energy of each appliance, and what no hour has: gaps, and what cannot be."""
    from etl import consumption
    from fleet.errors import ConfigurationError

    if by not in ("hour", "day", "all"):
        raise ConfigurationError(f"--by {by}: it is one of hour, day, all")
    warehouse, span, _ = _asked(system, site, start, to)
    rows, lost = consumption.shown(warehouse, span, by), consumption.unattributed(warehouse, span)
    if as_json:
        typer.echo(json.dumps({"energy": rows, "unattributed": lost}, default=plain))
        return
    _print(
        f"Energy {_said(span)}", (by, "site", "type", "device", "kWh", "cost"),
        [(_moment(r["at"]), r["site"], r["device_type"], r["device_id"], _kwh(r["watt_hours"]),
          _money(r["cost"], r["currency"])) for r in rows],
        "nothing was measured",
    )  # fmt: skip
    if lost:
        _print(
            "Unattributed", ("from", "to", "site", "type", "device", "kWh", "reason"),
            [(_moment(r["starts_at"]), _moment(r["ends_at"]), r["site"], r["device_type"], r["device_id"],
              _kwh(r["watt_hours"]), r["reason"]) for r in lost], "", text=5,
        )  # fmt: skip


@energy.command()
def hogs(
    system: System = "all", site: Site = None, start: From = WEEK, to: To = "now", as_json: AsJson = False
) -> None:
    """Appliances by their share of the home, beside their usual use (the same weekdays and hours of eight weeks before)
    and beside others of their kind (a plug's param says which, as fridge=1); and what they draw at night when they do
    nothing."""
    from etl.consumption import hogs_of

    warehouse, span, types = _asked(system, site, start, to)
    found = hogs_of(warehouse, span, types)
    if as_json:
        typer.echo(json.dumps([
            {**hog.appliance._asdict(), "watt_hours": hog.watt_hours, "share": hog.share,
             "usual_watt_hours": hog.usual_watt_hours, "score": hog.score, "peers_watt_hours": hog.peers_watt_hours,
             "peers_score": hog.peers_score, "standby_watts": hog.standby_watts, "unusual": hog.is_unusual,
             "above_peers": hog.is_above_peers} for hog in found
        ]))  # fmt: skip
        return
    _print(
        f"Appliances {_said(span)}", ("site", "type", "device", "kWh", "share", "usual", "peers", "standby", ""),
        [(*hog.appliance, _kwh(hog.watt_hours), "-" if hog.share is None else f"{hog.share:.0%}",
          _kwh(hog.usual_watt_hours), _kwh(hog.peers_watt_hours),
          "-" if hog.standby_watts is None else f"{hog.standby_watts:.1f} W", hog.verdict) for hog in found],
        "nothing was measured", text=3,
    )  # fmt: skip


@energy.command()
def cost(
    system: System = "all", site: Site = None, start: From = "-30d", to: To = "now", as_json: AsJson = False
) -> None:
    """What each home's energy costs by today's tariffs (fleet/tariffs.yaml), by band, with standing charges. Of meters
    behind meters only those count that add up to the home."""
    from etl.consumption import bills, used
    from etl.energy import tariffs_of
    from fleet.consumption import counting_types, totals

    warehouse, span, _ = _asked(system, site, start, to)
    hours = used(warehouse, span)
    counting = counting_types(totals(hours))
    found = bills((one for one in hours if counting[one.appliance.site] == one.appliance.type), tariffs_of(_settings()))
    if as_json:
        typer.echo(json.dumps([bill._asdict() for bill in found]))
        return
    _print(
        f"Cost {_said(span)}", ("site", "tariff", "band", "kWh", "cost"),
        [(bill.site, bill.tariff or "none", bill.band or (f"standing, {bill.days} days" if bill.tariff else ""),
          _kwh(bill.watt_hours) if bill.band or not bill.tariff else "", _money(bill.cost, bill.currency))
         for bill in found],
        "nothing was measured", text=3,
    )  # fmt: skip


@energy.command()
def forecast(
    system: System = "all", site: Site = None,
    publish: Annotated[bool, typer.Option("--publish", help="Tell the rules, as the DAG home_energy does.")] = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """What each home has used today and this month, what it will have, and how that comes."""
    from etl import home_energy
    from weir.etl import open_job

    now, warehouse = datetime.now(UTC), _warehouse()
    _check_site(warehouse, site)
    if publish:
        found = [home for home in home_energy.publish(open_job(), now) if site in (None, home.site)]
    else:
        of = None if system == "all" else system
        found = home_energy.home_energies(warehouse, _catalog(), of, now, site)
    if as_json:
        typer.echo(json.dumps([
            {"site": home.site, "known_to": home.known_to, **home.values, "day": home.day.explanation,
             "month_explained": home.month.explanation} for home in found
        ], default=plain))  # fmt: skip
        return
    for home in found:
        typer.echo(f"{home.site}, as of {_moment(home.known_to)} UTC")
        typer.echo(f"  today       {home.day.explanation}\n  this month  {home.month.explanation}")
    if not found:
        typer.echo("nothing was measured")


@energy.command("reprice")
def reprice_(system: System = "all") -> None:
    """Give the hours that are stored the prices of fleet/tariffs.yaml as it is now."""
    from etl.consumption import measured_types
    from etl.energy import places, reprice
    from weir.etl import open_job

    job = open_job()
    for spec in measured_types(job.catalog, None if system == "all" else system):
        done = reprice(job.warehouse, spec, places(job.settings, job.warehouse, spec))
        typer.echo(f"{spec.type}: {done:,} hours")


def _settings() -> "Settings":
    from fleet.settings import Settings

    return Settings.load(role="operator")


def _warehouse() -> "Warehouse":
    from connections.warehouse import Warehouse

    return Warehouse.of(_settings())


def _catalog() -> "Catalog":
    from fleet.catalog import load_catalog

    return load_catalog(_settings().types_dir)


def _asked(
    system: str, site: str | None, start: str, to: str
) -> "tuple[Warehouse, Span, Sequence[DeviceType]]":  # fmt: skip
    from etl.consumption import Span, measured_types
    from etl.window import parse_window

    types = measured_types(_catalog(), None if system == "all" else system)
    now = datetime.now(UTC)
    window = parse_window(start, to, now)
    begin, end = window.start or now - timedelta(days=1), window.end or now
    warehouse = _warehouse()
    _check_site(warehouse, site)
    return warehouse, Span(begin, end, tuple(spec.type for spec in types), site), types


def _print(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], nothing: str, text: int = 4) -> None:
    """The first `text` columns are words, the rest figures."""
    from rich.console import Console
    from rich.table import Table

    # No markup: names are other people's text, in which [/x] would be an error.
    console = Console(width=max(Console().width, 110), markup=False, highlight=False)
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < text or column in ("", "reason") else "right")
    count = 0
    for row in rows:
        table.add_row(*row)
        count += 1
    console.print(table if count else nothing)


def _said(span: "Span") -> str:
    return f"from {_moment(span.start)} to {_moment(span.end)} UTC"


def _moment(moment: Any) -> str:
    if isinstance(moment, datetime):
        return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
    return str(moment or "")


def _kwh(watt_hours: float | None) -> str:
    return "-" if watt_hours is None else f"{watt_hours / 1000:,.3f}"


def _money(amount: float | None, currency: str | None) -> str:
    return "-" if amount is None else f"{amount:,.2f} {currency or ''}".rstrip()


def _check_site(warehouse: "Warehouse", site: str | None) -> None:
    if site is not None:
        _filters.check(warehouse, "energy_hours", {"site": site})
