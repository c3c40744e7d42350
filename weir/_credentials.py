"""`weir devices credentials`: what devices show to be let in, by HTTP, CoAP and MQTT. A token is shown once."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weir._table import AsJson, aligned

if TYPE_CHECKING:
    from connections.credentials import Credentials, Issued
    from fleet.spec import DeviceType

credentials = typer.Typer(no_args_is_help=True, help="Tokens of devices, for HTTP, CoAP and MQTT.")

Type = Annotated[str, typer.Argument(metavar="type", help="Device type, such as weather_station.")]
DeviceId = Annotated[str, typer.Argument(metavar="device", help="Its id, unique within the type.")]
ValidFor = Annotated[str | None, typer.Option("--for", help="Valid so long, such as 365d; for good if left out.")]


@contextmanager
def _open(type_name: str) -> "Iterator[tuple[DeviceType, Credentials]]":
    from connections.credentials import Credentials
    from fleet.catalog import load_catalog
    from fleet.settings import Settings

    settings = Settings.load(role="registry")
    spec = load_catalog(settings.types_dir).type(type_name)
    table = Credentials.of(settings)
    try:
        yield spec, table
    finally:
        table.warehouse.close()


@credentials.command()
def issue(
    type_: Type,
    device_ids: Annotated[list[str], typer.Argument(metavar="device...", help="One or more, all of them or none.")],
    site: Annotated[
        str | None, typer.Option(help="Of devices that will register themselves: where they stand.")
    ] = None,
    valid_for: ValidFor = None,
    as_json: AsJson = False,
) -> None:
    """A device's first token."""
    from fleet.registry import problems_of
    from weir.devices import refuse

    with _open(type_) as (spec, table), table.changes() as changes:
        refuse(problem for device_id in device_ids for problem in problems_of(spec, device_id, site or "any"))
        until = _until(changes.at, valid_for)
        issued = changes.issue(spec, [(device_id, site) for device_id in dict.fromkeys(device_ids)], until)
    _take_effect()
    _show(issued, as_json)


@credentials.command()
def rotate(
    type_: Type,
    device_id: DeviceId,
    overlap: Annotated[str, typer.Option(help="So long the old one stays valid, such as 2h; 0s ends it now.")] = "24h",
    valid_for: ValidFor = None,
    as_json: AsJson = False,
) -> None:
    """A new token beside the old one, which ends after the overlap."""
    from fleet.duration import parse_duration
    from fleet.errors import ConfigurationError

    try:
        span = parse_duration(overlap)
    except ValueError as error:
        raise ConfigurationError(f"--overlap {overlap!r}: {error}") from None
    with _open(type_) as (spec, table), table.changes() as changes:
        issued = changes.rotate(spec, device_id, span, _until(changes.at, valid_for))
    _take_effect()
    _show([issued], as_json)
    if not as_json:
        typer.echo(f"the old one ends in {overlap}")


@credentials.command()
def revoke(
    type_: Type,
    device_id: DeviceId,
    number: Annotated[int | None, typer.Option(help="This one alone, as `list` numbers them.")] = None,
) -> None:
    """End a device's tokens now: within seconds it is refused, and its MQTT connection closed."""
    with _open(type_) as (spec, table), table.changes() as changes:
        ended = changes.revoke(spec, device_id, number)
    typer.echo(f"revoked {ended} credential{'s' * (ended != 1)} of {type_} {device_id}")


@credentials.command(name="list")
def list_(
    type_: Annotated[str | None, typer.Option("--type", help="Of this type only.")] = None,
    device_id: Annotated[str | None, typer.Option("--device", help="Of this device only.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Those that have ended, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Who has a token, and until when; no token is shown."""
    from connections.credentials import Credentials
    from fleet.settings import Settings

    table = Credentials.of(Settings.load(role="registry"))
    try:
        found, now = table.all(type_name=type_, device_id=device_id), datetime.now(UTC)
    finally:
        table.warehouse.close()
    shown = [one for one in found if all_ or one.is_valid(now)]
    if as_json:
        typer.echo(json.dumps([_plain(one) | {"is_valid": one.is_valid(now)} for one in shown]))
        return
    rows = [("type", "device", "number", "issued", "ends")]
    for one in shown:
        ends = "never" if one.ends_at is None else f"{one.ends_at:%Y-%m-%d %H:%M}"
        rows.append((one.type, one.device_id, str(one.number), f"{one.issued_at:%Y-%m-%d %H:%M}", ends))
    for line in aligned(rows):
        typer.echo(line)
    hidden = f"; {len(found) - len(shown):,} ended: see --all" if len(found) > len(shown) else ""
    typer.echo(f"{len(shown):,} credential{'s' * (len(shown) != 1)}{hidden}")


def _take_effect() -> None:
    """A token that is shown is one that the gateway takes."""
    from time import sleep

    from streaming.badges import LOOK_SECONDS

    sleep(1.2 * LOOK_SECONDS)


def _until(at: datetime, valid_for: str | None) -> datetime | None:
    from fleet.duration import parse_duration
    from fleet.errors import ConfigurationError

    try:
        return None if valid_for is None else at + parse_duration(valid_for)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(f"--for {valid_for!r}: {error}") from None


def _show(issued: "list[Issued]", as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([_plain(one.credential) | {"token": one.token} for one in issued]))
        return
    for one in issued:
        typer.echo(f"{one.credential.type} {one.credential.device_id}")
        typer.echo(f"  token      {one.token}")
        typer.echo(f"  MQTT user  {one.credential.user}")
    typer.echo("The token is the password of the MQTT user, too. It is not shown again.")


def _plain(one: Any) -> dict[str, Any]:
    return {
        "type": one.type,
        "device_id": one.device_id,
        "number": one.number,
        "site": one.site,
        "mqtt_user": one.user,
        "issued_at": one.issued_at.isoformat(),
        "ends_at": one.ends_at and one.ends_at.isoformat(),
    }
