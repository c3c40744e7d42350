"""What `weir demo` shows in the end."""

import json
from typing import Any

from rich.console import Console
from rich.table import Table
from sqlalchemy import make_url

from fleet.settings import Settings

SAMPLE_LINES = 24


def show(figures: dict[str, Any], settings: Settings, has_grafana: bool) -> None:
    console = Console(highlight=False)
    systems = figures["systems"]
    table = Table("", *systems, box=None, pad_edge=False, title="Readings", title_justify="left")
    for key in ("bridged", "live", "landed", "valid", "quarantined", "duplicate"):
        table.add_row(key, *(f"{of_system[key]:,}" for of_system in systems.values()))
    for label, key in (("values in rollups", "loaded"), ("bad values", "quarantined_values")):
        table.add_row(label, *(f"{of_system[key]:,}" for of_system in systems.values()))
    for column in table.columns[1:]:
        column.justify = "right"
    console.print()
    console.print(table)
    alerts = Table("", "fired", "resolved", box=None, pad_edge=False, title="Alerts", title_justify="left")
    quiet = 0
    for name, of_rule in figures["alerts"].items():
        if of_rule["fired"] or of_rule["resolved"]:
            alerts.add_row(name, f"{of_rule['fired']:,}", f"{of_rule['resolved']:,}")
        else:
            quiet += 1
    alerts.add_row(f"{quiet:,} other rules", "0", "0")
    for column in alerts.columns[1:]:
        column.justify = "right"
    console.print()
    console.print(alerts)
    _show_told(console, figures["told"])
    rejected = ", ".join(f"{reason} {count}" for reason, count in sorted(figures["rejected"].items())) or "none"
    url = make_url(settings.db_url.get_secret_value())
    reconciles = "[red]They do not reconcile.[/]" if figures["differences"] else "[green]They reconcile.[/]"
    refused, audit = sum(figures["rejected"].values()), figures["audit"]
    command = figures["command"]
    reason = f" ({command['reason']})" if command["reason"] else ""
    password = settings.airflow_password.get_secret_value()
    grafana = "not here: unpack Grafana 9.4 or newer and run make up GRAFANA_HOME=/its/folder"
    if has_grafana:
        grafana = f"{settings.grafana_url}  user admin, password {settings.grafana_password.get_secret_value()}"
    console.print(
        f"""
Messages     published {figures["published"]:,} = bridged {figures["bridged"]:,} + rejected {refused:,}. {reconciles}
Rejected     {rejected}
Rollups      {figures["rollups"]:,} rows new, anomalies {figures["anomalies"]:,}
Alerts       {figures["transitions"]:,} transitions; active ones: weir alerts
Audited      {audit["same"]:,} of {audit["published"]:,} transitions are what the rules say of the landed readings
Commanded    {command["what"]}: {command["state"]}{reason}
Figures      {settings.home / "demo.json"}; the books: weir ledger

Airflow      {settings.airflow_url}  user {settings.airflow_user}, password {password}
Grafana      {grafana}
Data Docs    {settings.home / "data-docs" / "index.html"}
Database     PGPASSWORD={url.password} psql -h {url.host} -p {url.port} -U {url.username} {url.database}
Stop         make down""",
        soft_wrap=True,
    )


def _show_told(console: Console, messages: dict[str, Any]) -> None:
    """Who was told how often, and one of what arrived, by each way."""
    table = Table("", "sent", "held", "dead", box=None, pad_edge=False, title="Told", title_justify="left")
    for name, of in messages["receivers"].items():
        table.add_row(name, *(f"{of[key]:,}" for key in ("sent", "held", "dead")))
    for column in table.columns[1:]:
        column.justify = "right"
    console.print()
    console.print(table)
    held = ", ".join(f"{cause} {n:,}" for cause, n in sorted(messages["held"].items())) or "nothing"
    webhook, mail = messages["arrived"]["webhook"], messages["arrived"]["mail"]
    console.print(f"\nHeld back    {held}; weir alerts held says what", soft_wrap=True)
    console.print(
        f"Arrived      {webhook['different']:,} webhooks, all signed; {mail['different']:,} mails in"
        f" {mail['alerts']:,} threads. For example:",
        soft_wrap=True,
    )
    if sample := messages["samples"].get("mail"):
        lines = [f"Subject: {sample['subject']}", *sample["text"].strip().splitlines()]
        console.print("\n".join(f"    {line}" for line in lines[:SAMPLE_LINES]), markup=False, soft_wrap=True)
    if sample := messages["samples"].get("webhook"):
        lines = json.dumps(sample["body"], indent=1).splitlines()
        dots = [f"… {len(lines) - SAMPLE_LINES} lines more"] if len(lines) > SAMPLE_LINES else []
        shown = "\n".join(f"    {line}" for line in [*lines[:SAMPLE_LINES], *dots])
        console.print(f"\n{shown}", markup=False, soft_wrap=True)
