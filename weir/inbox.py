"""`weir inbox`: files of readings that people drop, without Airflow."""

import json
from typing import Annotated, Any

import typer

from weir._table import AsJson, aligned, at_most

inbox = typer.Typer(no_args_is_help=True, help="Files of readings that are dropped in a folder for each device type.")
COLUMNS = ("at", "type", "name", "outcome", "rows", "readings", "old", "rejected", "detail")


def register(app: typer.Typer) -> None:
    app.add_typer(inbox, name="inbox")


@inbox.command()
def take(as_json: AsJson = False) -> None:
    """Take all that lies there and is whole, each content once. Exit 1 where a file was refused.

    Its rows go to Kafka as if devices had sent them; those that are none are among the dead letters, with file and
    line."""
    from etl.inbox import take as take_all
    from weir.etl import new_run_id, open_job

    found = []
    for one in take_all(open_job(), new_run_id()):
        found.append(one)
        if not as_json:
            typer.echo(line(one))
    if as_json:
        typer.echo(json.dumps([vars(one) for one in found]))
    elif not found:
        typer.echo("nothing is there that is whole")
    if any(one.is_refused for one in found):
        raise typer.Exit(1)


def line(one: Any) -> str:
    """Of one outcome: names are other people's text."""
    named = _plain(f"{one.type}/{one.name}" if one.type else one.name)
    if one.outcome == "taken":
        old = f" ({one.old:,} of them old: rules pass over these)" if one.old else ""
        return f"{named}: taken: rows {one.rows:,}, readings {one.readings:,}{old}, rejected {one.rejected:,}"
    return f"{named}: {one.outcome}: {_plain(one.detail)}"


@inbox.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 50, as_json: AsJson = False
) -> None:
    """What became of each file, the newest first."""
    from connections.warehouse import Warehouse
    from fleet.settings import Settings

    found = Warehouse.of(Settings.load(role="operator")).rows(
        f"SELECT {', '.join(COLUMNS)}, bytes, sha256, run_id FROM inbox_files ORDER BY id DESC LIMIT :limit",  # noqa: S608
        limit=limit,
    )
    if as_json:
        typer.echo(json.dumps(found, default=str))
        return
    shown = [
        [_plain(f"{row[name]:%Y-%m-%d %H:%M:%S}" if name == "at" else row[name]) for name in COLUMNS] for row in found
    ]
    typer.echo("\n".join(aligned([list(COLUMNS), *shown])) if found else "no file was taken yet")
    if len(found) == limit:
        typer.echo(at_most(limit))


def _plain(value: object) -> str:
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in str(value)
    )
