"""`weir alerts show`: how one alert went, from the readings that began it to who was told."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weir._alert_rows import found_alert, moment_text, plain
from weir._table import AsJson

if TYPE_CHECKING:
    from connections.warehouse import Warehouse
    from fleet.settings import Settings

READINGS_BEFORE = "5 minutes"
"""Shown before an alert's breach began."""
MOST = 20
"""Readings shown for one alert."""


def show(
    alert_id: Annotated[str, typer.Argument(help="The alert's id, or the beginning of it.")], as_json: AsJson = False
) -> None:
    """One alert: its transitions, the readings around them, and where in Kafka and the lake each came from."""
    from connections.lake import Lake
    from connections.warehouse import Warehouse
    from etl.landed_files import Expired, LandedFiles
    from fleet.settings import Settings

    settings = Settings.load()
    warehouse = Warehouse.of(settings)
    try:
        alert = found_alert(warehouse, alert_id)
        transitions = warehouse.rows(
            "SELECT * FROM alert_transitions WHERE alert_id = :id ORDER BY number", id=alert["alert_id"]
        )
        readings = _readings(warehouse, alert)
        alert |= _acknowledgement(warehouse, alert["alert_id"])
    finally:
        warehouse.close()
    lake, topic = Lake.of(settings), _topic(settings, alert["system"])
    landed = LandedFiles(lake)
    for transition in transitions:
        transition["source"] = {
            "topic": topic,
            "partition": transition.pop("source_partition"),
            "offset": (offset := transition.pop("source_offset")),
        }
        try:
            path, expired = landed.file_of(topic, transition["source"]["partition"], offset), False
        except Expired:
            path, expired = "", True
        url = lake.url(path) if path else None
        transition["source"] |= {"landed": path is not None, "expired": expired, "file": url}
    if as_json:
        typer.echo(json.dumps({**alert, "transitions": transitions, "readings": readings}, default=plain))
    else:
        _show(alert, transitions, readings)


def _readings(warehouse: "Warehouse", alert: dict[str, Any]) -> list[dict[str, Any]]:
    """The device's values of the rule's metrics, from before the breach to the alert's last transition."""
    return warehouse.rows(
        "SELECT event_time, metric, value, kafka_partition, kafka_offset FROM readings"
        " WHERE type = :type AND device_id = :device AND metric = ANY(:metrics) AND event_time <= :last"
        " AND event_time >= :since - CAST(:before AS interval) ORDER BY event_time DESC, kafka_offset DESC LIMIT :most",
        type=alert["type"], device=alert["device_id"], metrics=list(alert["values"]), since=alert["since"],
        last=alert["event_time"], before=READINGS_BEFORE, most=MOST,
    )[::-1]  # fmt: skip


def _acknowledgement(warehouse: "Warehouse", alert_id: str) -> dict[str, str | None]:
    """Who has taken it on, and what was said; while it is under way."""
    found = warehouse.rows(
        "SELECT so_far->'alert'->>'acknowledged_by' AS acknowledged_by,"
        " so_far->'alert'->>'acknowledged_comment' AS acknowledged_comment FROM dispatch_alerts WHERE alert_id = :id",
        id=alert_id,
    )
    return found[0] if found else {"acknowledged_by": None, "acknowledged_comment": None}


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
        no_file = "no reading" if source["landed"] else "not in the lake yet"
        no_file = "expired" if source["expired"] else no_file
        values = ", ".join(f"{name} {_value(value)}" for name, value in t["values"].items())
        reason = f" ({t['reason']})" if t["reason"] else ""
        lines.append(
            (t["event_time"], source["offset"] + 0.5,
             f"▶ {t['to']}{reason}, {t['severity']}; {values}; from {source['topic']}-{source['partition']} offset"
             f" {source['offset']}, {source['file'] or no_file}; detected {moment_text(t['detected_at'])}")
        )  # fmt: skip
    for moment, _, said in sorted(lines):
        typer.echo(f"{moment_text(moment)}  {said}")
    if alert["acknowledged_by"]:
        typer.echo(f"acknowledged by {alert['acknowledged_by']}: {alert['acknowledged_comment'] or 'nothing said'}")
    typer.echo("active" if alert["resolved_at"] is None else f"resolved {moment_text(alert['resolved_at'])}")


def _value(value: float | None) -> str:
    return "unknown" if value is None else f"{value:g}"
