"""`weir alerts`: what is wrong now, what was, and ending one by hand; the other commands about alerts stand beside."""

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from weir import _alert_people, _alert_silences, _alert_story, _filters
from weir._alert_rows import AlertId, By, found_alert, moment_text, plain
from weir._table import AsJson, aligned, at_most

if TYPE_CHECKING:
    from connections.warehouse import Warehouse

alerts = typer.Typer(
    invoke_without_command=True, no_args_is_help=False, help="Alerts: active ones, or with --history those of the past."
)
WATCH_SECONDS = 2.0


def register(app: typer.Typer) -> None:
    alerts.command()(_alert_story.show)
    for command in (*_alert_people.COMMANDS, *_alert_silences.COMMANDS):
        alerts.command()(command)
    app.add_typer(alerts, name="alerts")


@alerts.callback()
def list_(
    context: typer.Context,
    history: Annotated[bool, typer.Option("--history", help="Resolved ones too.")] = False,
    system: Annotated[str | None, typer.Option(help="Of this system only.")] = None,
    rule: Annotated[str | None, typer.Option(help="Of this rule only.")] = None,
    device: Annotated[str | None, typer.Option(help="Of this device only.")] = None,
    severity: Annotated[str | None, typer.Option(help="info, warning or critical.")] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Started from then on: -1h, 2026-11-22.", show_default="-24h with --history, else any"),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the latest first.")] = 100,
    watch: Annotated[bool, typer.Option("--watch", help=f"Again every {WATCH_SECONDS:.0f} s, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    if context.invoked_subcommand:
        return
    from connections.warehouse import Warehouse
    from etl.window import moment
    from fleet.settings import Settings

    since = since or ("-24h" if history else None)
    filters = _filters.given(system=system, rule=rule, device_id=device, severity=severity)
    warehouse = Warehouse.of(Settings.load())

    def show() -> None:
        start = moment(since, "since", datetime.now(UTC)) if since else None
        rows = _found(warehouse, filters, start, history, limit)
        if not rows:
            _filters.check(warehouse, "alerts", filters)
        if len(rows) == limit and not as_json:
            typer.echo(at_most(limit), err=True)
        none = f"no {'' if history else 'active '}alerts{' that started since then' if since else ''}"
        typer.echo(json.dumps(rows, default=plain) if as_json else _table(rows, history) if rows else none)

    try:
        show()
        while watch:
            time.sleep(WATCH_SECONDS)
            if not as_json:
                click.clear()
            show()
    except KeyboardInterrupt:
        pass
    finally:
        warehouse.close()


def _found(
    warehouse: "Warehouse", filters: dict[str, str], start: datetime | None, history: bool, limit: int
) -> list[dict[str, Any]]:
    where = [f"{name} = :{name}" for name in filters]
    where += [] if history else ["resolved_at IS NULL"]
    where += ["starts_at >= :start"] if start else []
    return warehouse.rows(
        f"SELECT * FROM alerts {'WHERE ' + ' AND '.join(where) if where else ''}"  # noqa: S608
        " ORDER BY starts_at DESC, alert_id LIMIT :limit",
        start=start, limit=limit, **filters,
    )  # fmt: skip


def _table(rows: list[dict[str, Any]], history: bool) -> str:
    lines = [("started", *(("resolved",) if history else ()), "severity", "rule", "device", "site", "id", "what")]
    for row in rows:
        resolved = [moment_text(row["resolved_at"])[:-4] if row["resolved_at"] else "active"] if history else []
        marks = "".join(f" ({mark})" for mark in ("flapping", "capped") if row[mark])
        lines.append(
            (moment_text(row["starts_at"])[:-4], *resolved, row["severity"], row["rule"], row["device_id"], row["site"],
             row["alert_id"][:12], row["title"] + marks)
        )  # fmt: skip
    return "\n".join(aligned(lines))


@alerts.command()
def resolve(
    alert_id: AlertId,
    by: By = "operator",
) -> None:
    """End an alert by hand. It stays quiet until its condition was false once."""
    from connections.warehouse import Warehouse
    from fleet.errors import ConfigurationError
    from fleet.settings import Settings
    from weir.devices import catalog_of_types, change

    warehouse = Warehouse.of(Settings.load())
    try:
        alert = found_alert(warehouse, alert_id)
    finally:
        warehouse.close()
    if alert["resolved_at"] is not None:
        resolved_at = moment_text(alert["resolved_at"])
        raise ConfigurationError(f"alert {alert['alert_id']} was resolved at {resolved_at} already")
    catalog = catalog_of_types()
    with change(catalog) as changes:
        changes.resolve(catalog.type(alert["type"]), alert["device_id"], alert["rule"], by)
    typer.echo(f"{alert['title']} of {alert['device_id']} is being resolved")
