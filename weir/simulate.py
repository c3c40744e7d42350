"""`weir simulate`: devices that are not there, for a system or one type."""

from typing import Annotated

import typer

from weir._run_options import AsJson, FaultsFile, OneFault, Out, Seed, Seq, Site, Speed, To, Truth, Until

HELP = """Simulated devices send readings, by the profiles in the specs; with a seed, the same values every time.

A run covers --duration of event time that ends now. At --speed 1 it takes as long as it covers; at --speed 120, two
hours take a minute: event times begin two hours ago, run 120 times as fast and meet the clock at the end.

--fault KIND=SHARE[,OPTION=VALUE…] spoils that share of the messages; options are length, device, metric, by:
{faults}; malformed stands for five of them in equal parts. --truth writes what was done to which message and what the
books must show for it.

\b
weir simulate weather --devices 100 --rate 50 --duration 60 --seed 7
weir simulate weather --duration 2h --speed 120 --fault spike=0.001 --fault malformed=0.002 --truth truth.jsonl
weir simulate weather --duration 1h --to file --out weather.jsonl.gz
"""
KINDS = (
    "stuck, spike, out_of_range, clock_skew, truncated, not_utf8, wrong_type, unknown_metric, oversized, dropout,"
    " duplicate, reordering"
)
"""tests/unit/test_session.py holds this to the table in simulators/fault_plan.py, whose import would cost time."""


def simulate(
    name: Annotated[str, typer.Argument(help="A system, such as weather, or one of its types.")],
    devices: Annotated[int | None, typer.Option(help="How many; default: the spec's.")] = None,
    rate: Annotated[
        float | None, typer.Option(help="Messages a second of event time, all devices together; default: the cadence.")
    ] = None,
    duration: Annotated[str, typer.Option(help="Event time to cover: seconds, or 90s, 15m, 2h.")] = "60",
    speed: Speed = None,
    follow: Annotated[bool, typer.Option("--follow", help="Then go on at real time until stopped.")] = False,
    until: Until = "",
    seed: Seed = 0,
    seq: Seq = False,
    site: Site = None,
    to: To = "mqtt",
    out: Out = None,
    fault: OneFault = None,
    faults: FaultsFile = None,
    truth: Truth = None,
    json_: AsJson = False,
) -> None:
    import json

    from fleet.catalog import load_catalog
    from fleet.settings import Settings
    from simulators.arguments import span_us, time_us
    from simulators.session import Order, Source, conduct, figures
    from simulators.simulation import plan_parts, simulated_readings, simulated_types

    settings = Settings.load(role="simulator")
    catalog = load_catalog(settings.types_dir)
    parts = plan_parts(simulated_types(catalog, name), devices, rate, site)
    span = span_us(duration, "--duration")
    for part in parts if to == "mqtt" else ():
        if not part.spec.self_registration:
            typer.echo(
                f"weir: what is expected of {part.spec.type} holds where its devices are registered: the type does not"
                " register them itself (`weir devices import`)", err=True,
            )  # fmt: skip
    order = Order(to, out, seed, speed, time_us(until, "--until"), tuple(fault or ()), faults, truth)
    source = Source(
        span,
        tuple(part.spec.type for part in parts),
        lambda timeline: simulated_readings(
            parts, first_us=timeline.first_us, end_us=None if follow else timeline.first_us + span, seed=seed,
            with_seq=seq,
        ),
    )  # fmt: skip
    about = {"run": "simulate", "name": name, "to": to, "seed": seed, "speed": order.pace}
    summary = conduct(settings, catalog, order, source, about)
    typer.echo(json.dumps(summary) if json_ else figures(summary))


def register(app: typer.Typer) -> None:
    app.command(help=HELP.format(faults=KINDS))(simulate)
