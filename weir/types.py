"""`weir types`: the device types. Add one, check them, list them."""

from pathlib import Path
from textwrap import fill
from typing import Annotated

import typer

from weir._table import aligned

TEMPLATE = """\
type: {name}
version: 1
system: {system}
title: {title}
cadence: 10s                   # expected time between readings; `event` where only changes are reported
partition_by: device           # or site, where a rule looks at several devices of one site
self_registration: true        # false: only devices of the registry are let in

metrics:                       # units and what else may stand here: fleet/units.py, fleet/spec.py
  temperature:
    {{unit: degC, range: [-40, 85], outside: quarantine, simulate: {{shape: walk, range: [15, 30], step: 0.5}}}}

simulation: {{devices: 10, site: site-1}}

examples:                      # run as tests by `weir types check`
  good:
    - payload: {{device_id: d1, event_time: 1732985789000, values: {{temperature: 21.5}}}}
      values: {{temperature: 21.5}}
  bad:
    - payload: {{device_id: d1, event_time: 1732985789000, values: {{temperature: warm}}}}
      reason: wrong_type

alerts:
  - {{id: too_warm, severity: warning, when: temperature > 30, clear: temperature < 28, for: 1m}}
"""

types = typer.Typer(no_args_is_help=True, help="Device types: one YAML each, from which everything else is derived.")


def register(app: typer.Typer) -> None:
    app.add_typer(types, name="types")


@types.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the type, such as roof_sensor.")],
    system: Annotated[str, typer.Option(help="The system it belongs to; a new name makes a new system.")] = "demo",
) -> None:
    """Write a first spec for a device type, to be edited."""
    from fleet.errors import ConfigurationError
    from fleet.settings import Settings
    from fleet.spec_file import load_spec

    path = Settings.load().types_dir / f"{name}.yaml"
    if path.exists():
        raise ConfigurationError(f"{path} exists already; edit it, or choose another name")
    text = TEMPLATE.format(name=name, system=system, title=name.replace("_", " ").capitalize())
    load_spec(text, str(path))
    path.write_text(text, encoding="utf-8")
    typer.echo(f"{path}\nEdit it, then: weir types check {name} && make generate")


@types.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Types or files; none: all.")] = None,
) -> None:
    """Say what is wrong with the specs, by file and line, and run their examples."""
    from fleet.catalog import check_sites, load_catalog
    from fleet.errors import SpecError
    from fleet.examples import failures
    from fleet.nearest import did_you_mean
    from fleet.settings import Settings
    from fleet.spec_file import load_spec

    folder = Settings.load().types_dir
    if names:
        files = [Path(n) if n.endswith(".yaml") else folder / f"{n}.yaml" for n in names]
        others = [other.stem for other in folder.glob("*.yaml")]
        missing = [f"{file}{did_you_mean(file.stem, others)}" for file in files if not file.is_file()]
        if missing:
            raise SpecError(f"no such file: {', '.join(missing)}")
        specs = [load_spec(f.read_text(encoding="utf-8"), str(f)) for f in files]
        for spec, file in zip(specs, files, strict=True):
            check_sites(spec, file, folder)
    else:
        specs = list(load_catalog(folder))
    wrong = [line for spec in specs for line in failures(spec)]
    if wrong:
        raise SpecError("\n".join(wrong))
    for spec in specs:
        good, bad = len(spec.examples.good), len(spec.examples.bad)
        typer.echo(f"{spec.type}: good; {good} good and {bad} bad examples behave as they say")


@types.command(name="list")
def list_() -> None:
    """The device types, their systems, topics and metrics."""
    from fleet.catalog import load_catalog
    from fleet.duration import format_duration
    from fleet.settings import Settings

    rows, metrics = [("type", "v", "system", "Kafka topic", "cadence", "rules")], ["  metrics"]
    for t in load_catalog(Settings.load().types_dir):
        cadence = "event" if t.cadence == "event" else format_duration(t.cadence)
        rows.append((t.type, str(t.version), t.system, t.topic, cadence, str(len(t.alerts))))
        metrics.append(fill(", ".join(t.metrics), 80, initial_indent="  ", subsequent_indent="  "))
    for row, below in zip(aligned(rows), metrics, strict=True):
        typer.echo(f"{row}\n{below}")
