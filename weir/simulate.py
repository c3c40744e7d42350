"""`weir simulate`: devices that are not there, for a system or one type."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from fleet.catalog import Catalog
    from fleet.settings import Settings
    from simulators.session import Order

HELP = """Simulated devices send readings, by the profiles in the specs; with a seed, the same values every time.

A run covers --duration of event time that ends now. At --speed 1 it takes as long as it covers; at --speed 120, two
hours take a minute: event times begin two hours ago, run 120 times as fast and meet the clock at the end.

--fault KIND=SHARE[,OPTION=VALUE…] spoils that share of the messages; options are length, device, metric, by:
{faults}; malformed stands for five of them in equal parts. --truth writes what was done to which message and what the
books must show for it.

\b
weir simulate weather --devices 100 --rate 50 --duration 60 --seed 7
weir simulate weather --duration 2h --speed 120 --fault spike=0.001 --fault malformed=0.002 --truth truth.jsonl
weir simulate weather --duration 1h --to file:weather.jsonl.gz

home is homes with residents: what they do drives presence, movement, doors, lamps, appliances and rooms, and of each
kind something goes wrong now and then: {incidents}. --registry writes their devices for `weir devices import`, --score
runs the rules over a run, without servers.

A --speed may be more than gets through: 20 homes at 600 would be 67,000 messages a second. Measured on two cores, short
runs of it: 44,000 to a file, 18,000 by MQTT with the bridge alone beside it, 12,000 to Kafka. Such a run takes longer;
nothing is left out, and the summary says by how much it was behind (late_seconds).

\b
weir simulate home --homes 20 --registry homes.csv
weir simulate home --homes 20 --days 2 --speed 600 --seed 7
weir simulate home --homes 20 --days 2 --seed 7 --score
"""
KINDS = (
    "stuck, spike, out_of_range, clock_skew, truncated, not_utf8, wrong_type, unknown_metric, oversized, dropout,"
    " duplicate, reordering"
)
"""tests/unit/test_session.py holds this to the table in simulators/fault_plan.py, whose import would cost time."""
INCIDENTS = (
    "burglary, smoke, stove_left_on, fridge_failing, meter_reset, sensor_stuck, battery_dying, clock_skew, duplicate,"
    " reordering, washer_failing, damp_room"
)
"""Likewise, of simulators/incidents.py, by tests/unit/test_homes.py."""


def simulate(
    name: Annotated[str, typer.Argument(help="A system, such as weather, or one of its types.")],
    devices: Annotated[int | None, typer.Option(help="How many; default: the spec's.")] = None,
    rate: Annotated[
        float | None, typer.Option(help="Messages a second of event time, all devices together; default: the cadence.")
    ] = None,
    homes: Annotated[int | None, typer.Option(help="Of home: how many homes; default 1.")] = None,
    days: Annotated[float | None, typer.Option(help="Event time to cover, in days; instead of --duration.")] = None,
    every: Annotated[str | None, typer.Option(help="Of home: between two readings of a device; default 5s.")] = None,
    incidents: Annotated[
        float | None, typer.Option(help="Of home: of each kind, a home and a day; default 0.1, at least one.")
    ] = None,
    registry: Annotated[
        Path | None, typer.Option(help="Of home: write the devices there, for weir devices import; nothing is sent.")
    ] = None,
    score: Annotated[
        bool, typer.Option("--score", help="Of home: no servers; what the rules tell, against the truth.")
    ] = False,
    duration: Annotated[str, typer.Option(help="Event time to cover: seconds, or 90s, 15m, 2h.")] = "60",
    speed: Speed = None,
    follow: Annotated[bool, typer.Option("--follow", help="Then go on at real time until stopped.")] = False,
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
    from fleet.errors import ConfigurationError
    from fleet.settings import Settings
    from simulators.arguments import span_us, target, time_us
    from simulators.household import SYSTEM
    from simulators.session import Order, Source, conduct, figures
    from simulators.simulation import plan_parts, simulated_readings, simulated_types
    from weir._registration import warn_of_unregistered

    settings = Settings.load(role="simulator")
    catalog = load_catalog(settings.types_dir)
    to, out = target(to, out)
    span = span_us(duration if days is None else f"{days * 86400:f}", "--duration" if days is None else "--days")
    order = Order(
        to, out, seed, speed, time_us(until, "--until"), tuple(fault or ()), faults, truth, gateway, tokens
    )  # fmt: skip
    about = {"run": "simulate", "name": name, "to": to, "seed": seed, "speed": order.pace}
    if name == SYSTEM:
        if devices is not None or rate is not None or site is not None:
            raise ConfigurationError("--devices, --rate and --site are for one type; homes are alike: --homes")
        if not (score or registry):
            warn_of_unregistered(to, catalog, (spec.type for spec in catalog.systems[SYSTEM].types))
        _homes(settings, catalog, order, about, homes, span, every, incidents, registry, score, seq, follow, json_)
        return
    if any(option is not None for option in (homes, every, incidents, registry)) or score:
        raise ConfigurationError(f"--homes, --every, --incidents, --registry and --score are for {SYSTEM}, not {name}")
    parts = plan_parts(simulated_types(catalog, name), devices, rate, site)
    warn_of_unregistered(to, catalog, (part.spec.type for part in parts))
    source = Source(
        span,
        tuple(part.spec.type for part in parts),
        lambda timeline: simulated_readings(
            parts, first_us=timeline.first_us, end_us=None if follow else timeline.first_us + span, seed=seed,
            with_seq=seq,
        ),
    )  # fmt: skip
    summary = conduct(settings, catalog, order, source, about)
    typer.echo(json.dumps(summary) if json_ else figures(summary))


def _homes(
    settings: "Settings", catalog: "Catalog", order: "Order", about: dict[str, Any], homes: int | None, span: int,
    every: str | None, incidents: float | None, registry: Path | None, score: bool, seq: bool, follow: bool,
    json_: bool,
) -> None:  # fmt: skip
    import json

    from simulators.arguments import span_us
    from simulators.homes import Town
    from simulators.household import registry_lines
    from simulators.incidents import OFTEN
    from simulators.session import figures
    from weir import _home_score, _simulate_homes
    from weir._registration import write_registry

    apart = timedelta(microseconds=span_us(every or "5s", "--every"))
    first = _simulate_homes.first_of_score(span, order.until_us)
    town = Town(
        1 if homes is None else homes, first, span, order.seed, apart, OFTEN if incidents is None else incidents
    )
    if registry is not None:
        typer.echo(write_registry(registry, registry_lines(town.homes)))
    elif score:
        found = _home_score.scored(town)
        typer.echo(json.dumps(_home_score.as_object(found)) if json_ else "\n".join(_home_score.as_lines(found)))
    else:
        summary = _simulate_homes.run(settings, catalog, order, town, seq, follow, about)
        typer.echo(json.dumps(summary) if json_ else figures(summary))


def register(app: typer.Typer) -> None:
    app.command(help=HELP.format(faults=KINDS, incidents=INCIDENTS))(simulate)
