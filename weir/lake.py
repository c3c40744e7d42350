"""`weir lake`: the files of the lake, without Airflow."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import typer

from weir._table import AsJson, aligned

lake = typer.Typer(no_args_is_help=True, help="The lake's files: what there is, and fewer of them.")
System = Annotated[str, typer.Option(help="A system of fleet/types, rejected (the dead letters), or all.")]


def register(app: typer.Typer) -> None:
    app.add_typer(lake, name="lake")


@lake.command()
def compact(
    system: System = "all",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which files it would take.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make few files of many small ones, and delete what was replaced a day ago. Exit 1 where files are damaged.

    Readings are the same before and after: nothing is processed again."""
    from etl.compaction import compact as outcomes
    from etl.compaction import summed, waiting
    from etl.lake_tidy import Tidied, tidy
    from weir.etl import lines, open_job

    job, clock, done = open_job(), partial(datetime.now, UTC), []
    of = None if system == "all" else system
    if system not in ("all", "rejected"):
        job.catalog.system(system)
    for one in outcomes(job.lake, clock, of, dry_run):
        done.append(one)
        if not as_json:
            typer.echo(one)
    tidied = Tidied() if dry_run else tidy(job.lake, clock())
    figures = summed(done) if dry_run else {**summed(done), "deleted": tidied.landed + tidied.compacted}
    if as_json:
        typer.echo(json.dumps({**figures, "outcomes": [asdict(one) for one in done], "damaged": tidied.problems}))
    else:
        said = [lines(figures)] if any(figures.values()) else []
        said += [] if done else [str(waiting(job.lake, clock, of))]
        typer.echo("\n".join([*tidied.problems, *said]))
    if tidied.problems or any(one.damaged for one in done):
        raise typer.Exit(1)


@lake.command()
def show(as_json: AsJson = False) -> None:
    """Files of each type: as they landed, and as they are read now; what has expired."""
    from etl.lake_index import read_index
    from weir.etl import open_job

    store = open_job().lake
    index = read_index(store, topics={topic for topic, _ in store.landed_partitions()})
    found: dict[str, dict[str, int]] = {}
    for key in sorted({*index.partitions, *index.expired}):
        row = found.setdefault(key.rpartition("/")[0], dict.fromkeys(COLUMNS, 0))
        row["expired_rows"] += index.expired.get(key, 0)
        if (files := index.partitions.get(key)) is not None:
            for name, number in (
                ("partitions", 1), ("rows", files.rows), ("landed", len(files.files)), ("files", len(files.to_read)),
                ("bytes", files.bytes),
            ):  # fmt: skip
                row[name] += number
    if as_json:
        typer.echo(json.dumps(found))
        return
    rows = [[name, *(f"{row[column]:,}" for column in COLUMNS)] for name, row in found.items()]
    typer.echo("\n".join(aligned([["type", *COLUMNS], *rows])) if rows else "nothing has landed yet")


COLUMNS = ("partitions", "rows", "landed", "files", "bytes", "expired_rows")
