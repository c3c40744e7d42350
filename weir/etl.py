"""`weir etl`: the batch job without Airflow."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import SecretStr

if TYPE_CHECKING:
    from etl.discover import Batch
    from etl.run import Job, Request

etl = typer.Typer(no_args_is_help=True, help="The batch job without Airflow, and the streaming one.")

System = Annotated[str, typer.Option(help="A system of fleet/types, or all.")]
From = Annotated[str | None, typer.Option("--from", help="2026-11-22, 2026-11-22T03:00, -1h (ago); UTC.")]
To = Annotated[str | None, typer.Option(help="As --from; the first moment not to process.")]
Force = Annotated[bool, typer.Option("--force", help="Also partitions that did not change.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")]


def register(app: typer.Typer) -> None:
    app.add_typer(etl, name="etl")


def open_job() -> "Job":
    from etl.run import Job
    from fleet.settings import Settings

    return Job(Settings.load(role="batch"))


def _request(system: str, start: str | None, end: str | None, force: bool) -> "Request":
    from etl.run import Request

    return Request(None if system == "all" else system, start, end, force)


@etl.command()
def discover(
    system: System = "all", start: From = None, to: To = None, force: Force = False, as_json: AsJson = False
) -> None:  # fmt: skip
    """Show what changed in the lake since it was last processed."""
    _, found = open_job().discover(_request(system, start, to, force), datetime.now(UTC))
    batches = found.batches
    if as_json:
        typer.echo(json.dumps([b.as_json() for b in batches]))
        return
    for batch in batches:
        typer.echo(f"{batch.type}: {len(batch.partitions)} partitions, {batch.rows:,} rows")
        typer.echo("\n".join(f"  {key}" for key in batch.partitions))
    if not batches:
        typer.echo("nothing changed")
    for stranger in found.strangers:
        typer.echo(f"{stranger.partition.key}: no spec defines {stranger.partition.type}, so nothing processes it")


@etl.command()
def run(
    system: System = "all", start: From = None, to: To = None, force: Force = False, as_json: AsJson = False
) -> None:  # fmt: skip
    """Process what changed: validate, split, roll up, load, reconcile. Exit 1 when something is wrong."""
    say: Callable[[str], None] = (lambda _: None) if as_json else typer.echo
    figures = run_through(open_job(), new_run_id(), _request(system, start, to, force), say)
    typer.echo(json.dumps(figures) if as_json else lines({k: v for k, v in figures.items() if k != "run_id"}))


def new_run_id() -> str:
    return f"cli-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}"


def run_through(job: "Job", run_id: str, request: "Request", say: Callable[[str], None]) -> dict[str, Any]:
    """All steps of a run; its figures, its `run_id` and `late_alerts`. Raises DataError where something is wrong."""
    from etl.late_alerts import write_late_alerts
    from fleet.errors import DataError, WeirError

    batches = job.begin(run_id, request)
    say(f"partitions to process: {sum(len(b.partitions) for b in batches)}, in batches: {len(batches)}")
    unknown, late_alerts = None, 0
    try:
        try:
            late_alerts = write_late_alerts(job, run_id, [key for batch in batches for key in batch.partitions])
        except DataError as error:  # is no reason not to load
            unknown = error
            say(str(error))
        _process(job, run_id, batches, say)
        figures = {"run_id": run_id, "late_alerts": late_alerts, **job.finish(run_id)}
    except WeirError as error:
        job.fail_if_open(run_id, f"{type(error).__name__}: {error}")
        raise
    if unknown is not None:
        raise unknown
    return figures


def _process(job: "Job", run_id: str, batches: "list[Batch]", say: Callable[[str], None]) -> None:
    from fleet.errors import DataError

    for batch in batches:
        for step in (job.validate, job.load):
            say(f"{step.__name__} {batch.type}")
            try:
                figures = step(run_id, batch)
                say(lines({k: v for k, v in figures.items() if k != "type"}, "  "))
            except DataError as error:  # finish() says it again and fails the run; other partitions go on
                say(f"  {error}")


@etl.command()
def expire() -> None:
    """Delete what is older than its type's retention from the warehouse, and from the lake where the spec says so.

    `weir lake compact` deletes the lake's files a day later."""
    from etl.retention import expire as remove
    from etl.retention import expire_lake

    job, now = open_job(), datetime.now(UTC)
    for type_name, deleted in remove(job.warehouse, job.catalog, now).items():
        typer.echo(f"{type_name}: {lines(deleted)}")
    for type_name, expired in expire_lake(job.lake, job.warehouse, job.catalog, now).items():
        typer.echo(f"{type_name} in the lake: {lines(expired)}")


@etl.command()
def stream(
    system: Annotated[list[str] | None, typer.Option(help="Only this one; else those of WEIR_STREAM_SYSTEMS.")] = None,
    trigger_seconds: Annotated[
        float | None, typer.Option(min=0.1, help="How often it writes; else WEIR_STREAM_TRIGGER_SECONDS.")
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Forget its rows and its place in Kafka, and end.")] = False,
) -> None:
    """Rollups of the running minute, from Kafka into the table rollups_live, by Structured Streaming."""
    from connections.spark import session
    from etl import stream as job
    from fleet.settings import Settings
    from streaming.service import Health, log_lines, stop_on_signals

    settings = Settings.load(role=job.ROLE)
    if trigger_seconds:
        settings = settings.model_copy(update={"stream_trigger_seconds": trigger_seconds})
    log_lines(settings.log_level)
    streams = job.Streams(settings, system or settings.stream_systems.replace(",", " ").split())
    if reset:
        for one in streams.systems:
            job.reset(settings, one.name)
            typer.echo(f"{one.name}: nothing is left; the next start begins an hour before it")
        return
    health = Health(settings.stream_metrics_port, streams.problem, settings.bind)
    health.registry.register(streams)
    own = settings.model_copy(update={"spark_remote": SecretStr(""), "spark_master": job.MASTER})
    with session(own, "weir-stream", job.DRIVER) as spark:
        streams.run(spark, stop_on_signals())
    health.close()


def lines(figures: dict[str, Any], indent: str = "") -> str:
    """Numbers in lines of at most 80 characters, then each name and path in a line of its own, whole."""
    numbers = [f"{name} {value:,}" for name, value in figures.items() if isinstance(value, int)]
    others = [(k, v if isinstance(v, list) else [v]) for k, v in figures.items() if not isinstance(v, int | None)]
    words = [f"{indent}{name.replace('_', ' ')}: {value}" for name, values in others for value in values]
    lines = [fill(", ".join(numbers), 80, initial_indent=indent, subsequent_indent=indent)] if numbers else []
    return "\n".join([*lines, *words])
