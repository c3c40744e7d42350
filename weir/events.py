"""`weir events`: what happened at a site, as far as its safety goes."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from weir._alert_rows import moment_text, plain
from weir._table import AsJson, aligned, at_most


def register(app: typer.Typer) -> None:
    app.command()(events)


def events(
    system: Annotated[str, typer.Option(help="A system with types of the area security.")] = "home",
    site: Annotated[str | None, typer.Option(help="Of this site only.")] = None,
    start: Annotated[str, typer.Option("--from", help="2026-11-22, 2026-11-22T03:00, -1h (ago); UTC.")] = "-24h",
    to: Annotated[str, typer.Option(help="As --from.")] = "now",
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the latest first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Security events: doors, motion, smoke, tampering, coming and going, alerts, with who was at home."""
    from connections.warehouse import Warehouse
    from etl.security_log import events as found
    from etl.window import parse_window
    from fleet.catalog import load_catalog
    from fleet.settings import Settings
    from weir import _filters

    settings = Settings.load()
    of = load_catalog(settings.types_dir).system(system)
    warehouse = Warehouse.of(settings)
    try:
        rows = found(warehouse, of, parse_window(start, to, datetime.now(UTC)), site, limit)
        if not rows:
            _filters.check(warehouse, "devices", _filters.given(site=site))
    finally:
        warehouse.close()
    if len(rows) == limit and not as_json:
        typer.echo(at_most(limit), err=True)
    typer.echo(json.dumps(rows, default=plain) if as_json else _table(rows) if rows else "no events")


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [("when", "local", "site", "device", "event", "severity", "at home")]
    for row in rows:
        event = f"{row['title']}: {row['event']}" if row["title"] else row["event"]
        home = "not known" if row["at_home"] is None else ", ".join(row["at_home"]) or "nobody"
        lines.append(
            (moment_text(row["at"])[:-4], f"{row['local_time']:%H:%M}", row["site"], row["device_id"], event,
             row["severity"] or "", home)
        )  # fmt: skip
    return "\n".join(aligned(lines))
