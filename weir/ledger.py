"""`weir ledger`: the books, from the logs themselves: Kafka's offsets, the lake's manifests, the warehouse's tables."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from etl.books import Books

LAST = 24


def register(app: typer.Typer) -> None:
    app.command()(ledger)


def ledger(
    system: Annotated[str, typer.Option(help="A system of fleet/types, or all.")] = "all",
    all_: Annotated[
        bool, typer.Option("--all", help=f"Every partition, not only the last {LAST} of each type.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """The books: what each topic wrote and landed, and what became of the rows. Exit 1 where they do not balance,
    records were lost or a partition failed; what is not yet landed or processed is said, and is no error."""
    from etl.books import read_books
    from fleet.settings import Settings

    books = read_books(Settings.load(), None if system == "all" else system, datetime.now(UTC))
    typer.echo(json.dumps(_as_json(books))) if as_json else _show(books, all_)
    if not books.verdict.good:
        raise typer.Exit(1)


def _as_json(books: "Books") -> dict[str, Any]:
    report = books.report
    return {
        "topics": [{**asdict(t), "pending": t.pending} for t in report.topics],
        "partitions": [
            {
                "partition": row.partition.key,
                "status": row.status,
                "failure": row.failure,
                **({} if row.books is None else {k: v for k, v in asdict(row.books).items() if k != "key"}),
                "anomalies": row.anomalies,
            }
            for row in report.partitions
        ],
        "mqtt_dropped": books.mqtt.dropped,
        "unprocessed": books.unprocessed,
        "rejects": books.rejects,
        "lost": report.lost,
        "seq": {name: asdict(gaps) for name, gaps in books.seq.items()},
        "verdict": {"text": str(books.verdict), "good": books.verdict.good, **asdict(books.verdict)},
        "imbalances": [str(i) for i in report.imbalances],
    }


def _show(books: "Books", every: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    # No markup: names and failures are other people's text, in which [/x] would be an error.
    console, report = Console(width=max(Console().width, 130), markup=False), books.report

    def table(title: str, *columns: str) -> Table:
        made = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for number, column in enumerate(columns):
            made.add_column(column, justify="left" if number == 0 else "right")
        return made

    topics = table(
        "Kafka → lake", "topic/partition", "written", "landed", "rows", "unreadable", "heartbeats", "controls",
        "missing", "pending",
    )  # fmt: skip
    for t in report.topics:
        figures = (t.end_offset, t.landed_to, t.rows, t.unreadable, t.heartbeats, t.controls, t.missing, t.pending)
        topics.add_row(t.name, *map(_number, figures))
    console.print(topics)
    if books.mqtt.dropped is not None:
        console.print(f"dropped by the MQTT broker since its start: {books.mqtt.dropped:,}", highlight=False)
    elif books.mqtt.unknown:
        console.print(f"dropped by the MQTT broker: not known ({books.mqtt.unknown})", highlight=False)

    rows = table("Lake → warehouse", "partition", "landed", "valid", "quarantined", "duplicate", "values", "bad values",
                 "anomalies", "status")  # fmt: skip
    shown: dict[str, int] = {}
    for row in reversed(report.partitions):
        shown[row.partition.type] = shown.get(row.partition.type, 0) + 1
        if not every and shown[row.partition.type] > LAST and row.status == "loaded":
            continue
        b = row.books
        fates = (b.landed, b.valid, b.quarantined, b.duplicate) if b else (None, None, None, None)
        known = sum(m.known for m in b.metrics) if b else None
        bad = sum(m.quarantined for m in b.metrics) if b else None
        rows.add_row(row.partition.key, *map(_number, (*fates, known, bad, row.anomalies)), row.status)
    console.print(rows)
    hidden = sum(max(0, n - LAST) for n in shown.values())
    if hidden and not every:
        console.print(f"… and {hidden} older partitions (--all shows them)")
    if books.rejects:
        rejects = table("Rejects", "reason", "dead letters")
        for reason, n in books.rejects.items():
            rejects.add_row(reason, _number(n))
        console.print(rejects)
    if books.seq:
        gaps = table(
            "Sequence numbers (as devices count; not part of the balance)", "type", "devices", "seen", "missing"
        )
        for name, g in books.seq.items():
            gaps.add_row(name, *map(_number, (g.devices, g.seen, g.missing)))
        console.print(gaps)
    for key, n in books.unprocessed.items():
        console.print(f"not yet processed: {key}, {n:,} rows")
    for name, lost in report.lost.items():
        console.print(f"lost before landing: {name}, {lost:,} records (Kafka's retention ran out)", style="yellow")
    for row in report.partitions:
        if row.status == "failed":
            console.print(f"failed: {row.partition.key}: {row.failure}", style="red", highlight=False)
    for imbalance in report.imbalances:
        console.print(f"imbalance: {imbalance}", style="red", highlight=False)
    console.print(str(books.verdict), style=None if books.verdict.good else "red", highlight=False)


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
