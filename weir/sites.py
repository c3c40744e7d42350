"""`weir sites`: where devices stand, and in which time zone that is."""

import json
from typing import Annotated

import typer

from weir._table import AsJson, aligned
from weir.devices import catalog_of_types, change, read, refuse

sites = typer.Typer(no_args_is_help=True, help="Sites and their time zones, which rules with local times go by.")


def register(app: typer.Typer) -> None:
    app.add_typer(sites, name="sites")


@sites.command(name="list")
def list_(as_json: AsJson = False) -> None:
    """The sites of the registry."""
    found = read(lambda registry: registry.sites())
    if as_json:
        typer.echo(json.dumps([place._asdict() for place in found]))
        return
    rows = [("system", "site", "time zone", "devices")]
    rows += [(place.system, place.site, place.time_zone, f"{place.devices:,}") for place in found]
    typer.echo("\n".join(aligned(rows)))


@sites.command(name="set")
def set_(
    system: Annotated[str, typer.Argument(help="A system of fleet/types, such as occupancy.")],
    site: Annotated[str, typer.Argument(help="As in the MQTT topic.")],
    time_zone: Annotated[str, typer.Option(help="Such as Europe/Berlin.")],
) -> None:
    """Say in which time zone a site is. One that nobody has set is in UTC."""
    from fleet.registry import site_problem, time_zone_problem

    catalog = catalog_of_types()
    topic = catalog.system(system).topic
    refuse([site_problem(site), time_zone_problem(time_zone)])
    with change(catalog) as changes:
        changed = changes.set_time_zone(topic, system, site, time_zone)
    typer.echo(f"{site} of {system} is in {time_zone}" + ("" if changed else ", as it was"))
