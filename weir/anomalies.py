"""`weir anomalies`: how well the batch's anomalies tell of what is really wrong."""

import json
from pathlib import Path
from typing import Annotated

import typer

from weir._table import AsJson, aligned

anomalies = typer.Typer(no_args_is_help=True, help="What the batch flags as anomalies, and how well.")


def register(app: typer.Typer) -> None:
    app.add_typer(anomalies, name="anomalies")


@anomalies.callback()
def about() -> None:
    """What the batch flags as anomalies, and how well."""


@anomalies.command()
def score(
    name: Annotated[str | None, typer.Argument(help="A type or system that is simulated; default: all.")] = None,
    readings: Annotated[int, typer.Option(help="Of each type.", min=1_000)] = 100_000,
    seed: Annotated[int, typer.Option(help="Of the readings and their faults.")] = 0,
    nab: Annotated[
        Path | None,
        typer.Option(
            help="Recordings and windows.json of the Numenta Anomaly Benchmark.", exists=True, file_okay=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score each kind of anomaly on simulated devices with faults, or on recordings of the Numenta Anomaly Benchmark.

    No servers are needed: readings go through the batch's own kernel. Of the faults, precision is the share of a kind's
    anomalies that tell of any of them, and each column how many of those faults the kind tells of; `range` is the plain
    limit. Of recordings, limits are learned from the rows that do not count, and the score is the benchmark's: 0 says
    nothing, 100 is perfect.
    """
    if nab is None:
        from weir._anomaly_faults import as_lines, as_object, scored

        found = scored(name, readings, seed)
        typer.echo(json.dumps(as_object(found)) if as_json else "\n".join(as_lines(found)))
        return
    from weir._anomaly_nab import scored as scored_nab
    from weir._anomaly_nab import table

    results = scored_nab(nab)
    typer.echo(json.dumps(results) if as_json else "\n".join(aligned(table(results))))
