"""`weir replay`: a recording of real devices, as if it were happening now."""

from pathlib import Path
from typing import Annotated

import typer

from weir._run_options import (
    AsJson,
    FaultsFile,
    Gateway,
    OneFault,
    Out,
    Seed,
    Seq,
    Site,
    Speed,
    To,
    Tokens,
    Truth,
    Until,
)  # fmt: skip

HELP = """Replay a recording, record by record, to the topics that its devices would use.

Event times are shifted so that the replayed part ends now: at --speed 100 they begin in the past and meet the clock at
the end. With --loop it starts over then, and goes on at real time, each pass shifted by the data's span.

\b
weir replay occupancy Occupancy_Estimation.csv --speed 100
weir replay occupancy Occupancy_Estimation.csv --duration 2h --speed 240      # two hours in half a minute
weir replay occupancy Occupancy_Estimation.csv --skip 2h --duration 3h        # one o'clock to four
weir replay home OrdonezA_Sensors.txt --registry home.csv                     # its devices, for weir devices import
weir replay home OrdonezA_Sensors.txt --duration 2d --speed 1000
weir replay occupancy Occupancy_Estimation.csv --max-gap 5m --speed 1000 --loop
weir replay household-power household_power.csv.gz --duration 7d --speed 6000 --to kafka
"""


def replay(
    system: Annotated[
        str, typer.Argument(help="Which recording: occupancy, home, household-power, appliances-energy.")
    ],
    file: Annotated[Path, typer.Argument(help="The recording; .gz is unpacked on the way.")],
    speed: Speed = None,
    loop: Annotated[bool, typer.Option("--loop", help="Start over at the end, until stopped.")] = False,
    skip: Annotated[str, typer.Option(help="Leave out this much of its beginning: seconds, or 2h.")] = "",
    limit: Annotated[int | None, typer.Option(help="At most this many rows of the file.", min=1)] = None,
    duration: Annotated[str, typer.Option(help="At most this much from there: seconds, or 2h.")] = "",
    max_gap: Annotated[str, typer.Option(help="Close longer pauses in the recording to this, such as 5m.")] = "",
    registry: Annotated[
        Path | None, typer.Option(help="Write its devices there, for weir devices import; nothing is sent.")
    ] = None,
    until: Until = "",
    seed: Seed = 0,
    seq: Seq = False,
    site: Site = None,
    to: To = "mqtt",
    out: Out = None,
    gateway: Gateway = "",
    tokens: Tokens = None,
    fault: OneFault = None,
    faults: FaultsFile = None,
    truth: Truth = None,
    json_: AsJson = False,
) -> None:
    import json

    from fleet.catalog import load_catalog
    from fleet.settings import Settings
    from simulators.arguments import span_us, target, time_us
    from simulators.recording import Recording, recording_of
    from simulators.session import Order, Source, conduct, figures
    from weir._registration import warn_of_unregistered, write_registry

    settings = Settings.load(role="simulator")
    catalog = load_catalog(settings.types_dir)
    recording: Recording = recording_of(
        catalog, system, file, site=site, limit=limit, skip_us=span_us(skip, "--skip") if skip else 0,
        duration_us=span_us(duration, "--duration") if duration else None,
        max_gap_us=span_us(max_gap, "--max-gap") if max_gap else None,
    )  # fmt: skip
    survey = recording.survey()
    for line in survey.dirty:
        typer.echo(f"skipped {line}", err=True)
    if registry is not None:
        typer.echo(write_registry(registry, recording.registry_lines(survey)))
        return
    to, out = target(to, out)
    warn_of_unregistered(to, catalog, recording.format.types)
    order = Order(
        to, out, seed, speed, time_us(until, "--until"), tuple(fault or ()), faults, truth, gateway, tokens
    )  # fmt: skip
    source = Source(
        survey.span_us,
        recording.format.types,
        lambda timeline: recording.readings(survey, timeline.first_us, loop, seq),
    )
    about = {
        "run": "replay", "name": system, "file": str(file), "to": to, "seed": seed, "speed": order.pace,
        "rows": survey.rows, "skipped": dict(survey.skipped),
    }  # fmt: skip
    summary = conduct(settings, catalog, order, source, about)
    typer.echo(json.dumps(summary) if json_ else figures(summary))


def register(app: typer.Typer) -> None:
    app.command(help=HELP)(replay)
