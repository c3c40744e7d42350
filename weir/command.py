"""`weir command`: tell a device what to do, and wait for it to be done."""

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weir._alert_rows import By, plain
from weir._table import AsJson

if TYPE_CHECKING:
    from connections.warehouse import Warehouse

LOOK_SECONDS = 0.1
SO_FAR = {
    "requested": "it is kept, and the commander has not sent it yet (`weir status` says whether it runs)",
    "sent": "the broker has it, the device has not answered, and its readings do not show it yet",
    "delivered": "the device has it, and its readings do not show it yet",
}
"""Of commands that have not ended."""


def register(app: typer.Typer) -> None:
    app.command()(command)


def command(
    device: Annotated[str, typer.Argument(help="The device's id.")],
    name: Annotated[str, typer.Argument(metavar="COMMAND", help="One of its type's: see docs/data-model.md.")],
    args: Annotated[list[str] | None, typer.Argument(metavar="ARG=VALUE", help="Such as level=40.")] = None,
    wait: Annotated[str, typer.Option(help="For its end, so long at most; 0s: not at all.")] = "10s",
    why: Annotated[str, typer.Option(help="For the record.")] = "",
    type_: Annotated[str | None, typer.Option("--type", help="Where several types have a device of that id.")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="The same id again is the same command.")] = None,
    by: By = "operator",
    as_json: AsJson = False,
) -> None:
    """Send a command to a device; exit 1 unless it was obeyed in time."""
    from connections.warehouse import Warehouse
    from fleet.catalog import load_catalog
    from fleet.command import parse_args
    from fleet.duration import parse_duration
    from fleet.errors import ConfigurationError
    from fleet.settings import Settings
    from streaming.command_requests import request
    from streaming.command_table import found

    settings = Settings.load()
    given = parse_args(args or [])
    try:
        patience = parse_duration(wait).total_seconds()
    except ValueError as error:
        raise ConfigurationError(f"--wait {wait!r}: {error}") from None
    warehouse = Warehouse.of(settings)
    try:
        command_id, is_new = request(
            warehouse, load_catalog(settings.types_dir), device, name, given,
            via="cli", by=by, why=why, type_name=type_, command_id=id_,
        )  # fmt: skip
        row = _waited(warehouse, command_id, patience)
        if as_json:
            typer.echo(json.dumps(found(warehouse, command_id), default=plain))
        else:
            typer.echo(told(row["state"], row["reason"], command_id, is_new))
    finally:
        warehouse.close()
    if patience and row["state"] != "obeyed":
        raise typer.Exit(1)


def told(state: str, reason: str, command_id: str, is_new: bool = True) -> str:
    """How it stands, and where it has not ended, how to look again."""
    said = "; ".join(filter(None, (SO_FAR.get(state), reason)))
    line = f"{state}{f': {said}' if said else ''}  ({command_id}{'' if is_new else ', asked for before'})"
    return f"{line}\nto look again: weir commands show {command_id[:12]}" if state in SO_FAR else line


def _waited(warehouse: "Warehouse", command_id: str, seconds: float) -> dict[str, Any]:
    """How the command stands when it has ended, or after so long."""
    from fleet.command_state import UNDER_WAY

    deadline = time.monotonic() + seconds
    while True:
        (row,) = warehouse.rows("SELECT state, reason FROM commands WHERE command_id = :id", id=command_id)
        if row["state"] not in UNDER_WAY or time.monotonic() >= deadline:
            return row
        time.sleep(LOOK_SECONDS)
