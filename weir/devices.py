"""`weir devices`: the registry of devices. Add, change, retire, import; each change goes into the log at once."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weir import _credentials
from weir._table import AsJson, aligned

if TYPE_CHECKING:
    from connections.registry import Changes
    from fleet.catalog import Catalog
    from fleet.registry import Entry
    from fleet.registry_csv import Row

devices = typer.Typer(no_args_is_help=True, help="The registry of devices: what is known of them beside what they say.")

Type = Annotated[str, typer.Argument(metavar="type", help="Device type, such as weather_station.")]
DeviceId = Annotated[str, typer.Argument(metavar="device", help="Its id, unique within the type.")]
Room = Annotated[str | None, typer.Option(help="Where at the site, in words.")]
Params = Annotated[list[str] | None, typer.Option("--param", help="NAME=NUMBER of its type's rules; may be repeated.")]


def register(app: typer.Typer) -> None:
    app.add_typer(devices, name="devices")
    devices.add_typer(_credentials.credentials, name="credentials")


def catalog_of_types() -> "Catalog":
    from fleet.catalog import load_catalog
    from fleet.settings import Settings

    return load_catalog(Settings.load(role="registry").types_dir)


@contextmanager
def change(catalog: "Catalog") -> "Iterator[Changes]":
    """One change of the registry, published when the block ends: all of it or nothing."""
    from connections.publication import publish_now
    from connections.registry import Registry
    from connections.warehouse import Warehouse
    from fleet.settings import Settings

    settings = Settings.load(role="registry")
    warehouse = Warehouse.of(settings)
    try:
        with Registry(warehouse).changes() as changes:
            yield changes
        problem = publish_now(settings, warehouse, [system.topic for system in catalog.systems.values()])
    finally:
        warehouse.close()
    if problem:
        typer.echo(
            f"weir: the change stands in the registry; the bridge will tell the log of it when it can: {problem}",
            err=True,
        )


def refuse(problems: Iterable[str]) -> None:
    """Raises RegistryError where there are any."""
    from fleet.errors import RegistryError

    if lines := [problem for problem in problems if problem]:
        raise RegistryError("\n".join(lines))


@devices.command()
def add(
    type_: Type,
    device_id: DeviceId,
    site: Annotated[str | None, typer.Option(help="Where it stands; of a retired one, where it stood.")] = None,
    room: Room = None,
    param: Params = None,
) -> None:
    """Register a device. One that is retired becomes a new device, without its room and params."""
    from fleet.errors import RegistryError
    from fleet.registry import new_entry, problems_of

    catalog = catalog_of_types()
    spec, params = catalog.type(type_), _params(param)
    refuse(problems_of(spec, device_id, "any" if site is None else site, room, params))
    with change(catalog) as changes:
        before = changes.entries([(spec.type, device_id)]).get((spec.type, device_id))
        if before is not None and before.retired_at is None:
            raise RegistryError(f"{type_} {device_id} is registered already; `weir devices set` changes it")
        if site is None and before is not None:
            site = before.site
        if site is None:
            raise RegistryError(f"{type_} {device_id} was never registered: say where it stands with --site")
        changes.put(spec, before, new_entry(spec, device_id, site, changes.at, room, params))
    typer.echo(f"registered {type_} {device_id} at {site}")


@devices.command(name="set")
def set_(
    type_: Type,
    device_id: DeviceId,
    site: Annotated[str | None, typer.Option(help="It stands there now.")] = None,
    room: Room = None,
    param: Params = None,
    unset_param: Annotated[list[str] | None, typer.Option(help="As the rules have it; may be repeated.")] = None,
) -> None:
    """Change a device's site, room or params; what is not named stays. An empty --room removes it."""
    from msgspec.structs import replace

    from fleet.registry import problems_of

    catalog = catalog_of_types()
    spec, given, gone = catalog.type(type_), _params(param), set(unset_param or ())
    refuse(problems_of(spec, device_id, site or "any", room or None, given))
    with change(catalog) as changes:
        before = changes.entry(spec, device_id)
        refuse(f"param {name[:80]!r} is not set on this device" for name in sorted(gone - set(before.params)))
        after = replace(
            before,
            site=site or before.site,
            room=before.room if room is None else room or None,
            params={name: value for name, value in before.params.items() if name not in gone} | given,
        )
        if after != before:
            changes.put(spec, before, after)
    typer.echo(f"changed {type_} {device_id}" if after != before else "nothing to change")


@devices.command()
def retire(type_: Type, device_id: DeviceId) -> None:
    """The device is no more: its alerts resolve. What it said stays."""
    from msgspec.structs import replace

    catalog = catalog_of_types()
    spec = catalog.type(type_)
    with change(catalog) as changes:
        before = changes.entry(spec, device_id)
        changes.put(spec, before, replace(before, retired_at=changes.at))
    typer.echo(f"retired {type_} {device_id}")


@devices.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV: type,device_id,site and, if wanted, room,time_zone,params.")],
) -> None:
    """Register or change the devices of a CSV file, all of them or none. `time_zone` is the site's, `params` are
    NAME=NUMBER with blanks between them."""
    from fleet.registry_csv import read_csv

    catalog = catalog_of_types()
    rows = read_csv(file, catalog)
    with change(catalog) as changes:
        done = _take(changes, catalog, rows)
    typer.echo(", ".join(f"{what} {n:,}" for what, n in done.items()))


def _take(changes: "Changes", catalog: "Catalog", rows: "list[Row]") -> dict[str, int]:
    from msgspec.structs import replace

    from fleet.registry import new_entry

    done = {"registered": 0, "changed": 0, "unchanged": 0}
    there = changes.entries([(row.type, row.device_id) for row in rows])
    zones = {(catalog.type(r.type).system, r.site): r.time_zone for r in rows if r.time_zone}
    for (system, site), zone in zones.items():
        changes.set_time_zone(catalog.system(system).topic, system, site, zone)
    for row in rows:
        spec, before = catalog.type(row.type), there.get((row.type, row.device_id))
        if before is None or before.retired_at is not None:
            after = new_entry(spec, row.device_id, row.site, changes.at, row.room, row.params)
            what = "registered"
        else:
            after = replace(before, site=row.site, room=row.room, params=row.params)
            what = "unchanged" if after == before else "changed"
        if what != "unchanged":
            changes.put(spec, before, after)
        done[what] += 1
    return done


@devices.command()
def publish() -> None:
    """Tell the log of every spec, site and device again: for a reader that is new, or has lost the log's beginning."""
    catalog = catalog_of_types()
    with change(catalog) as changes:
        sites, told = changes.repeat(catalog)
    typer.echo(f"told again: {sites:,} sites, {told:,} devices")


@devices.command(name="list")
def list_(
    type_: Annotated[str | None, typer.Option("--type", help="Of this type only.")] = None,
    site: Annotated[str | None, typer.Option(help="At this site only.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Retired ones, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """The devices of the registry."""
    if type_:
        catalog_of_types().type(type_)
    found = read(lambda registry: registry.devices(type_, site))
    retired = 0 if all_ else sum(entry.retired_at is not None for entry in found)
    found = [entry for entry in found if all_ or entry.retired_at is None]
    if as_json:
        typer.echo(json.dumps([_plain(entry) for entry in found]))
        return
    rows = [("type", "device", "site", "registered", "by")]
    rows += [(e.type, e.device_id, e.site, f"{e.registered_at:%Y-%m-%d %H:%M}", e.registered_by) for e in found]
    for line, below in zip(aligned(rows), ["", *map(_more, found)], strict=True):
        typer.echo(line + below)
    hidden = f"; {retired:,} retired: see --all" if retired else ""
    typer.echo(f"{len(found):,} device{'s' * (len(found) != 1)}{hidden}")


def _more(entry: "Entry") -> str:
    """What few devices have, on a line of its own; empty where there is nothing."""
    params = " ".join(f"{name}={value:g}" for name, value in entry.params.items())
    retired = f"retired {entry.retired_at:%Y-%m-%d %H:%M}" if entry.retired_at else ""
    said = "; ".join(filter(None, (entry.room, params, retired)))
    return f"\n  {said}" if said else ""


@devices.command()
def show(type_: Type, device_id: DeviceId, as_json: AsJson = False) -> None:
    """All that the registry has of one device."""
    from fleet.errors import RegistryError
    from fleet.registry import params_of

    spec = catalog_of_types().type(type_)
    found, zones = read(lambda r: (r.devices(type_, device_id=device_id), {(p.system, p.site): p for p in r.sites()}))
    if not found:
        raise RegistryError(f"the registry has no {type_} {device_id[:80]!r}; `weir devices list --type {type_}`")
    (entry,) = found
    said = _plain(entry) | {"time_zone": zones[entry.system, entry.site].time_zone}
    said["rule_params"] = params_of(spec) | entry.params
    if as_json:
        typer.echo(json.dumps(said))
        return
    for name, value in said.items():
        if isinstance(value, dict):
            value = " ".join(f"{n}={v:g}" for n, v in value.items())
        typer.echo(f"{name:14} {'-' if value in (None, '') else value}")


def read(ask: Callable[[Any], Any]) -> Any:
    """With the operator's own rights, which are to read."""
    from connections.registry import Registry
    from connections.warehouse import Warehouse
    from fleet.settings import Settings

    warehouse = Warehouse.of(Settings.load())
    try:
        return ask(Registry(warehouse))
    finally:
        warehouse.close()


def _plain(entry: "Entry") -> dict[str, Any]:
    from msgspec import to_builtins

    return dict(to_builtins(entry))


def _params(given: list[str] | None) -> dict[str, float]:
    from fleet.errors import RegistryError
    from fleet.registry import parse_params

    try:
        return parse_params(given or [])
    except ValueError as error:
        raise RegistryError(str(error)) from None
