"""`weir quarantine`: what was held back and why, and what becomes of it once specs or the registry have changed."""

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weir import _filters
from weir._table import AsJson, aligned, at_most

if TYPE_CHECKING:
    from etl.quarantine import Filter
    from etl.replay import Replay
    from etl.run import Job

quarantine = typer.Typer(no_args_is_help=True, help="Messages and values that were held back, and their way back.")

System = Annotated[str | None, typer.Option(help="A system of fleet/types.")]
Type = Annotated[str | None, typer.Option("--type", help="A device type.")]
Reason = Annotated[str | None, typer.Option(help="Such as out_of_range, unknown_metric; stats shows them.")]
Device = Annotated[str | None, typer.Option(help="Its id; a dead letter has none.")]
MetricName = Annotated[str | None, typer.Option("--metric", help="Values of this metric alone.")]
From = Annotated[str | None, typer.Option("--from", help="2026-11-22, 2026-11-22T03:00, -1h (ago); UTC.")]
To = Annotated[str | None, typer.Option(help="As --from; the first moment to leave out.")]

LANDING_SECONDS = 300
SHOWN_BYTES = 2000


def register(app: typer.Typer) -> None:
    app.add_typer(quarantine, name="quarantine")


def _filter(
    system: str | None, type_: str | None, reason: str | None, device: str | None, metric: str | None,
    start: str | None, to: str | None,
) -> "Filter":  # fmt: skip
    from etl.quarantine import Filter
    from etl.window import parse_window

    return Filter(system, type_, reason, device, metric, parse_window(start, to, datetime.now(UTC)))


@quarantine.command("list")
def list_(
    system: System = None, type_: Type = None, reason: Reason = None, device: Device = None,
    metric: MetricName = None, start: From = None, to: To = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 50, as_json: AsJson = False,
) -> None:  # fmt: skip
    """What is held back, the newest first; `show` takes the place."""
    from etl.quarantine import rows

    asked, warehouse = _filter(system, type_, reason, device, metric, start, to), _warehouse()
    found = rows(warehouse, asked, limit)
    if not found:
        _filters.check(warehouse, "quarantine", asked.columns)
    if as_json:
        typer.echo(json.dumps(found, default=_plain))
        return
    columns = ("at", "what", "reason", "type", "device_id", "metric", "value", "place", "replayed_at")
    _table([{**row, "type": row["type"] or row["system"]} for row in found], columns)
    if len(found) == limit:
        typer.echo(at_most(limit))


@quarantine.command()
def stats(
    system: System = None, type_: Type = None, reason: Reason = None, device: Device = None,
    metric: MetricName = None, start: From = None, to: To = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """How much is held back, by reason, as of the last batch."""
    from etl import quarantine as held

    asked, warehouse = _filter(system, type_, reason, device, metric, start, to), _warehouse()
    found = held.stats(warehouse, asked)
    if not found:
        _filters.check(warehouse, "quarantine", asked.columns)
    if as_json:
        typer.echo(json.dumps(found, default=_plain))
        return
    _table(found, ("what", "reason", "system", "type", "metric", "rows", "devices", "first", "last", "replayed"))


@quarantine.command()
def show(
    place: Annotated[str, typer.Argument(help="topic/partition/offset, as `list` shows it.")], as_json: AsJson = False
) -> None:
    """All that is known of one: whence it came, why it is held back, what it says, and what came of it."""
    from etl.quarantine import at_place

    found = at_place(_warehouse(), place)
    if as_json:
        typer.echo(json.dumps(found, default=_plain))
        return
    for row in found:
        for name, value in row.items():
            if value is not None and name not in ("payload", "payload_sha256"):
                typer.echo(f"{name:16} {_plain_text(value)}")
        if row["payload"] is not None:
            _show_payload(bytes(row["payload"]), row["payload_bytes"])
        typer.echo("")


def _show_payload(kept: bytes, size: int) -> None:
    shown = kept[:SHOWN_BYTES].decode("utf-8", "backslashreplace")
    rest = f" … ({size:,} bytes in all; the lake has them)" if size > SHOWN_BYTES else ""
    typer.echo(f"{'payload':16} {_plain_text(shown)}{rest}")


@quarantine.command()
def replay(
    system: System = None, type_: Type = None, reason: Reason = None, device: Device = None,
    metric: MetricName = None, start: From = None, to: To = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would come back, and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Let what is good by today's specs and registry go where it belongs, and process its partitions again.

    Nothing comes back twice. Alert rules pass over it: a replay pages nobody. Values come back with all that is good
    of their partitions."""
    from etl.late_alerts import write_late_alerts
    from etl.replay import replay as bring_back
    from etl.run import Request
    from weir.etl import lines, new_run_id, open_job, run_through

    say = (lambda _: None) if as_json else typer.echo
    job, run_id = open_job(), new_run_id()
    asked = _filter(system, type_, reason, device, metric, start, to)
    found = bring_back(job, asked, run_id, dry_run)
    if not (spoken := _spoken(found)):
        _filters.check(job.warehouse, "quarantine", asked.columns)
    figures: dict[str, Any] = {**vars(found), "partitions": sorted(found.partitions), "dry_run": dry_run}
    say(lines(spoken) or "nothing that you ask for is held back")
    if not dry_run:
        _wait(job, found)
        if found.partitions:
            figures["run"] = run_through(job, run_id, Request(partitions=tuple(sorted(found.partitions))), say)
            figures["late_alerts"] = figures["run"].pop("late_alerts")
            say(lines({k: v for k, v in figures["run"].items() if k != "run_id"}))
        else:  # what an earlier one, that was killed, has given back
            figures["late_alerts"] = write_late_alerts(job, run_id)
    if as_json:
        typer.echo(json.dumps(figures))


def _spoken(found: "Replay") -> dict[str, Any]:
    """For people; empty where there is nothing to say."""
    return {
        **{f"readings of {name}": n for name, n in sorted(found.letters.items())},
        **{f"values of {name}": n for name, n in sorted(found.values.items())},
        **{f"still {reason}": n for reason, n in sorted(found.still.items())},
        **({"came back before": found.before} if found.before else {}),
        **({"partitions": sorted(found.partitions)} if found.partitions else {}),
    }


@quarantine.command()
def alerts(
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 50, as_json: AsJson = False
) -> None:
    """Alerts that would have fired, had what was given back come in time. Nobody was told of them."""
    found = _warehouse().rows(
        "SELECT system, type, rule, device_id, site, severity, fired_at, resolved_at, at AS known_at FROM late_alerts"
        " ORDER BY fired_at DESC LIMIT :limit",
        limit=limit,
    )
    if as_json:
        typer.echo(json.dumps(found, default=_plain))
        return
    _table(found, ("fired_at", "resolved_at", "severity", "type", "rule", "device_id", "site", "known_at"), "none")


def _wait(job: "Job", found: "Replay") -> None:
    """Until landing has written what was given back. Raises Unavailable."""
    from etl.replay import has_landed
    from fleet.errors import Unavailable

    deadline = time.monotonic() + LANDING_SECONDS
    while not has_landed(job, found.ends):
        if time.monotonic() > deadline:
            raise Unavailable(
                f"what came back is on Kafka, and has not landed within {LANDING_SECONDS} s: is landing up"
                " (`weir status`)? The next run of sensor_etl takes it"
            )
        time.sleep(1)


def _warehouse() -> Any:
    from connections.warehouse import Warehouse
    from fleet.settings import Settings

    return Warehouse.of(Settings.load(role="operator"))


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...], nothing: str = "nothing is held back") -> None:
    shown = [["" if row[name] is None else _plain_text(row[name]) for name in columns] for row in rows]
    typer.echo("\n".join(aligned([[name.replace("_", " ") for name in columns], *shown])) if rows else nothing)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else _plain_text(value)


def _plain_text(value: object) -> str:
    """Payloads and details are other people's text: no control character reaches the terminal."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, memoryview | bytes):
        return bytes(value).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))
