"""`weir report`: key findings and performance of a span, as a PDF."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(report)


def report(
    system: Annotated[list[str] | None, typer.Option(help="Of this system; again for more. Else of all.")] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", help="2026-11-22, 2026-11-22T03:00, -7d (ago); UTC.", show_default="last week's Monday"),
    ] = None,
    to: Annotated[str | None, typer.Option(help="As --from.", show_default="now, or with it that week's end")] = None,
    out: Annotated[Path | None, typer.Option(help="The file.", show_default="a name in var/reports/")] = None,
) -> None:
    """Write a PDF: a page of all systems, and of each its key findings and how Weir performed."""
    from connections.warehouse import Warehouse
    from etl.report import figures, file_of, span_of, write
    from fleet.catalog import load_catalog
    from fleet.settings import Settings

    settings = Settings.load()
    catalog, window = load_catalog(settings.types_dir), span_of(start, to, datetime.now(UTC))
    systems = [catalog.system(name) for name in system or catalog.systems]
    warehouse = Warehouse.of(settings)
    try:
        found = figures(warehouse, systems, window)
    finally:
        warehouse.close()
    file = out or file_of(settings, window, system or ())
    pages = write(settings, found, file)
    typer.echo(f"{file}: {pages} pages, {file.stat().st_size:,} bytes")
