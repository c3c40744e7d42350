"""`weir alerts`: what is wrong now, what was, how one alert went, and ending one by hand."""

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

if TYPE_CHECKING:
    from connections.warehouse import Warehouse
    from fleet.settings import Settings

alerts = typer.Typer(
    invoke_without_command=True, no_args_is_help=False, help="Alerts: active ones, or with --history those of the past."
)
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
WATCH_SECONDS = 2.0
READINGS_BEFORE = "5 minutes"
"""Shown before an alert's breach began."""
MOST = 20
"""Readings shown for one alert."""


def register(app: typer.Typer) -> None:
    app.add_typer(alerts, name="alerts")


@alerts.callback()
def list_(
    context: typer.Context,
    history: Annotated[bool, typer.Option("--history", help="Resolved ones too.")] = False,
    system: Annotated[str | None, typer.Option(help="Of this system only.")] = None,
    rule: Annotated[str | None, typer.Option(help="Of this rule only.")] = None,
    device: Annotated[str | None, typer.Option(help="Of this device only.")] = None,
    severity: Annotated[str | None, typer.Option(help="info, warning or critical.")] = None,
    since: Annotated[str, typer.Option(help="Started from then on: -1h, 2026-11-22; with --history.")] = "-24h",
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the latest first.")] = 100,
    watch: Annotated[bool, typer.Option("--watch", help=f"Again every {WATCH_SECONDS:.0f} s, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    if context.invoked_subcommand:
        return
    from connections.warehouse import Warehouse
    from etl.window import moment
    from fleet.settings import Settings

    start = moment(since, "since", datetime.now(UTC)) if history else None
    warehouse = Warehouse.of(Settings.load())
    filters = {"system": system, "rule": rule, "device_id": device, "severity": severity}

    def show() -> None:
        rows = _found(warehouse, {k: v for k, v in filters.items() if v is not None}, start, history, limit)
        typer.echo(json.dumps(rows, default=_plain)) if as_json else _table(rows, history)

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


def _table(rows: list[dict[str, Any]], history: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    if not rows:
        typer.echo("no alerts in that time" if history else "no active alerts")
        return
    columns = ("severity", "title", "device", "site", "since", *(("resolved",) if history else ()), "id")
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        resolved = [_moment(row["resolved_at"]) if row["resolved_at"] else "active"] if history else []
        marks = "".join(f" ({mark})" for mark in ("flapping", "capped") if row[mark])
        table.add_row(
            row["severity"], row["title"] + marks, row["device_id"], row["site"], _moment(row["since"]), *resolved,
            row["alert_id"][:12],
        )  # fmt: skip
    Console(markup=False, highlight=False).print(table)


@alerts.command()
def show(
    alert_id: Annotated[str, typer.Argument(help="The alert's id, or the beginning of it.")], as_json: AsJson = False
) -> None:
    """One alert: its transitions, the readings around them, and where in Kafka and the lake each came from."""
    from connections.lake import Lake
    from connections.warehouse import Warehouse
    from fleet.settings import Settings

    settings = Settings.load()
    warehouse = Warehouse.of(settings)
    try:
        alert = _alert(warehouse, alert_id)
        transitions = warehouse.rows(
            "SELECT * FROM alert_transitions WHERE alert_id = :id ORDER BY number", id=alert["alert_id"]
        )
        readings = _readings(warehouse, alert)
    finally:
        warehouse.close()
    lake, topic = Lake(settings.lake), _topic(settings, alert["system"])
    for transition in transitions:
        transition["source"] = {
            "topic": topic,
            "partition": transition.pop("source_partition"),
            "offset": (offset := transition.pop("source_offset")),
        }
        files = lake.files_of(topic, transition["source"]["partition"], offset)
        transition["files"] = [lake.url(f.path) for f in files if f"type={alert['type']}/" in f.path]
    if as_json:
        typer.echo(json.dumps({**alert, "transitions": transitions, "readings": readings}, default=_plain))
    else:
        _show(alert, transitions, readings)


def _alert(warehouse: "Warehouse", alert_id: str) -> dict[str, Any]:
    from fleet.errors import ConfigurationError

    found = warehouse.rows(
        "SELECT * FROM alerts WHERE left(alert_id, length(:id)) = :id ORDER BY starts_at DESC LIMIT 2", id=alert_id
    )
    if not found or not alert_id:
        raise ConfigurationError(f"no alert {alert_id!r}; `weir alerts --history` shows the ids there are")
    if len(found) > 1:
        raise ConfigurationError(f"more than one alert begins with {alert_id!r}; give more of its id")
    return found[0]


def _readings(warehouse: "Warehouse", alert: dict[str, Any]) -> list[dict[str, Any]]:
    """The device's values of the rule's metrics, from before the breach to the alert's last transition."""
    return warehouse.rows(
        "SELECT event_time, metric, value, kafka_partition, kafka_offset FROM readings"
        " WHERE type = :type AND device_id = :device AND metric = ANY(:metrics) AND event_time <= :last"
        " AND event_time >= :since - CAST(:before AS interval) ORDER BY event_time DESC, kafka_offset DESC LIMIT :most",
        type=alert["type"], device=alert["device_id"], metrics=list(alert["values"]), since=alert["since"],
        last=alert["event_time"], before=READINGS_BEFORE, most=MOST,
    )[::-1]  # fmt: skip


def _topic(settings: "Settings", system: str) -> str:
    from fleet.catalog import load_catalog

    return load_catalog(settings.types_dir).system(system).topic


def _show(alert: dict[str, Any], transitions: list[dict[str, Any]], readings: list[dict[str, Any]]) -> None:
    typer.echo(f"{alert['title']}  [{alert['severity']}]  {alert['device_id']} at {alert['site']}")
    typer.echo(f"rule {alert['rule']} of {alert['system']}/{alert['type']}, alert {alert['alert_id']}")
    for name, said in alert["annotations"].items():
        typer.echo(f"{name}: {said}")
    lines = [(r["event_time"], r["kafka_offset"], f"{r['metric']} {_value(r['value'])}") for r in readings]
    for t in transitions:
        source = t["source"]
        files = ", ".join(t["files"]) or "not in the lake yet"
        values = ", ".join(f"{name} {_value(value)}" for name, value in t["values"].items())
        reason = f" ({t['reason']})" if t["reason"] else ""
        lines.append(
            (t["event_time"], source["offset"] + 0.5,
             f"▶ {t['to']}{reason}, {t['severity']}; {values}; from {source['topic']}-{source['partition']} offset"
             f" {source['offset']}, {files}; detected {_moment(t['detected_at'])}")
        )  # fmt: skip
    for moment, _, said in sorted(lines):
        typer.echo(f"{_moment(moment)}  {said}")
    typer.echo("active" if alert["resolved_at"] is None else f"resolved {_moment(alert['resolved_at'])}")


@alerts.command()
def resolve(
    alert_id: Annotated[str, typer.Argument(help="The alert's id, or the beginning of it.")],
    by: Annotated[str, typer.Option(help="Who says so.", envvar="USER")] = "operator",
) -> None:
    """End an alert by hand. It stays quiet until its condition was false once."""
    from connections.warehouse import Warehouse
    from fleet.errors import ConfigurationError
    from fleet.settings import Settings
    from weir.devices import catalog_of_types, change

    warehouse = Warehouse.of(Settings.load())
    try:
        alert = _alert(warehouse, alert_id)
    finally:
        warehouse.close()
    if alert["resolved_at"] is not None:
        raise ConfigurationError(f"alert {alert['alert_id']} was resolved at {_moment(alert['resolved_at'])} already")
    catalog = catalog_of_types()
    with change(catalog) as changes:
        changes.resolve(catalog.type(alert["type"]), alert["device_id"], alert["rule"], by)
    typer.echo(f"{alert['title']} of {alert['device_id']} is being resolved")


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _value(value: float | None) -> str:
    return "unknown" if value is None else f"{value:g}"


def _plain(value: Any) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)
