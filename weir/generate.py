"""`weir generate`: the files that are derived from the specs, written or checked."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fleet.catalog import Catalog


def register(app: typer.Typer) -> None:
    app.command()(generate)


def generate(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 where a file is stale.")] = False,
) -> None:
    """Write what follows from fleet/types: expectations/, docs/data-model.md, docker/grafana/dashboards/."""
    from fleet.catalog import load_catalog
    from fleet.settings import CHECKOUT, Settings

    wanted = derived(load_catalog(Settings.load().types_dir))
    stale = stale_files(CHECKOUT, wanted)
    for path, problem in stale.items():
        typer.echo(f"{path}: {problem if check else 'removed' if path not in wanted else 'written'}")
        if check:
            continue
        if path in wanted:
            (CHECKOUT / path).parent.mkdir(parents=True, exist_ok=True)
            (CHECKOUT / path).write_text(wanted[path], encoding="utf-8")
        else:
            (CHECKOUT / path).unlink()
    if check and stale:
        typer.echo("run `make generate` and commit what it writes")
        raise typer.Exit(1)


def derived(catalog: "Catalog") -> dict[str, str]:
    """Path below the checkout → content."""
    from etl.suite import suite
    from fleet.dashboard import files as dashboard_files
    from fleet.data_model import page

    files = {f"expectations/{spec.type}.json": json.dumps(suite(spec), indent=1) + "\n" for spec in catalog}
    return {**files, **dashboard_files(catalog), "docs/data-model.md": page(catalog)}


def stale_files(checkout: Path, wanted: dict[str, str]) -> dict[str, str]:
    """Path → what is wrong with it: missing, not what the specs say, or of what is gone."""
    found = {}
    for path, content in wanted.items():
        file = checkout / path
        if not file.is_file():
            found[path] = "missing"
        elif file.read_text(encoding="utf-8") != content:
            found[path] = "not what the specs say"
    for folder in ("expectations", "docker/grafana/dashboards"):
        for file in sorted((checkout / folder).glob("*.json")):
            path = f"{folder}/{file.name}"
            if path not in wanted:
                found[path] = "of a type or system that is gone"
    return found
