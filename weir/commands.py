"""`weir commands`: what devices were told to do, by whom and why, and what became of it."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from weir import _filters
from weir._alert_rows import moment_text, plain
from weir._table import AsJson, aligned, at_most

commands = typer.Typer(no_args_is_help=True, help="Commands to devices: what was asked for, and what became of it.")


def register(app: typer.Typer) -> None:
    app.add_typer(commands, name="commands")


@commands.command(name="list")
def list_(
    device: Annotated[str | None, typer.Option(help="To this device only.")] = None,
    system: Annotated[str | None, typer.Option(help="Of this system only.")] = None,
    site: Annotated[str | None, typer.Option(help="At this site only.")] = None,
    state: Annotated[str | None, typer.Option(help="In this state only, such as expired.")] = None,
    since: Annotated[str, typer.Option(help="From then on: -1h, 2026-11-22.")] = "-24h",
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the latest first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Commands, the latest first."""
    from typing import get_args

    from connections.warehouse import Warehouse
    from etl.window import moment
    from fleet.command_state import State
    from fleet.errors import ConfigurationError
    from fleet.nearest import nearest
    from fleet.settings import Settings

    if state is not None and state not in get_args(State):
        raise ConfigurationError(f"no state {state!r}{nearest(state, get_args(State))}")
    filters = _filters.given(device_id=device, system=system, site=site, state=state)
    where = "".join(f" AND {name} = :{name}" for name in filters)
    warehouse = Warehouse.of(Settings.load())
    try:
        rows = warehouse.rows(
            f"SELECT * FROM commands WHERE requested_at >= :start{where}"  # noqa: S608
            " ORDER BY requested_at DESC, command_id LIMIT :limit",
            start=moment(since, "since", datetime.now(UTC)), limit=limit, **filters,
        )  # fmt: skip
        if not rows:
            _filters.check(warehouse, "commands", filters)
    finally:
        warehouse.close()
    if as_json:
        typer.echo(json.dumps(rows, default=plain))
        return
    lines = [("asked for", "state", "device", "site", "command", "by", "id", "why", "reason")]
    lines += [
        (moment_text(r["requested_at"])[:-4], r["state"], r["device_id"], r["site"], _words(r), r["by"],
         r["command_id"][:12], r["why"], r["reason"])
        for r in rows
    ]  # fmt: skip
    typer.echo("\n".join(aligned(lines)) if rows else "no commands in that time")
    if len(rows) == limit:
        typer.echo(at_most(limit))


@commands.command()
def show(
    command_id: Annotated[str, typer.Argument(help="The command's id, or the beginning of it.")],
    as_json: AsJson = False,
) -> None:
    """All that is known of one command, and when it came to each state."""
    from connections.warehouse import Warehouse
    from fleet.settings import Settings
    from streaming.command_table import found, full_id

    warehouse = Warehouse.of(Settings.load())
    try:
        row = found(warehouse, full_id(warehouse, command_id))
    finally:
        warehouse.close()
    if as_json:
        typer.echo(json.dumps(row, default=plain))
        return
    history = row.pop("history")
    for name, value in row.items():
        if isinstance(value, dict):
            value = " ".join(f"{n}={v:g}" for n, v in value.items())
        shown = moment_text(value) if isinstance(value, datetime) else value
        typer.echo(f"{name:14} {'-' if shown in (None, '') else shown}")
    typer.echo("")
    typer.echo("\n".join(aligned([(moment_text(h["at"]), h["state"], h["reason"]) for h in history])))


def _words(row: dict[str, Any]) -> str:
    return " ".join([row["command"], *(f"{name}={value:g}" for name, value in row["args"].items())])
