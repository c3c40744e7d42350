"""`weir up`, `down`, `status`, …: the native stack."""

import os
from typing import Annotated

import typer

from fleet.errors import ConfigurationError
from fleet.settings import Settings
from stack.clock import say


def _stack(services: list[str] | None = None):  # type: ignore[no-untyped-def]
    from stack.ports import Ports
    from stack.programs import everything
    from stack.stack import Stack

    settings = Settings.load()
    external = os.environ.get("WEIR_DB_URL", "")
    ports = Ports.from_settings(settings, os.environ)
    return Stack(settings.home, ports, services or everything(os.environ), os.environ, external)


def progress(name: str, what: str, seconds: float) -> None:
    """`seconds`: what this program took by itself."""
    if what != "starting":
        say(f"{name:<22} {what} after {seconds:.1f} s")


def setup() -> None:
    """Fetch the native parts, make secrets and configuration. Starts nothing."""
    _stack().setup(say)
    say("set up")


def up(services: Annotated[list[str] | None, typer.Argument(help="Only these and what they need.")] = None) -> None:
    """Start the stack and wait until all of it answers."""
    stack = _stack(services)
    stack.up(progress)
    ports = stack.ports
    servers = f"MQTT {ports.mqtt}, Kafka {ports.kafka}, PostgreSQL {ports.postgres}"
    say(f"all up: {servers}")
    if "airflow-api-server" in stack.services:
        print(f"Airflow http://127.0.0.1:{ports.airflow}  user admin, password in {stack.layout.env_file('operator')}")
    if "grafana" in stack.services:
        print(f"Grafana http://127.0.0.1:{ports.grafana}  user admin, password in {stack.layout.env_file('operator')}")


def down() -> None:
    """Stop the stack. Data stays."""
    _stack().down()
    print("The stack is down.")


def restart(service: str) -> None:
    """Stop and start one program and wait until it answers."""
    _stack().restart(service)


def status() -> None:
    """What runs, since when, on which port, with how much memory."""
    from rich.console import Console
    from rich.table import Table

    from stack.status import rows

    table = Table("program", "state", "pid", "port", "up for", "memory PSS", box=None, pad_edge=False)
    lines = rows(_stack())
    for row in lines:
        table.add_row(*row)
    Console(highlight=False).print(table if lines else "The stack is not up. `make up` starts it.")


def logs(
    service: str,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing what comes.")] = False,
) -> None:
    """Print a program's log."""
    stack = _stack()
    path = stack.layout.log(service)
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in stack.layout.logs.glob("*.log"))) or "none yet"
        raise ConfigurationError(f"no log of {service!r}; there are: {there}")
    print(stack.log_tail(service, lines))
    while follow:
        os.execvp("tail", ["tail", "-n0", "-F", str(path)])  # noqa: S606


def airflow(context: typer.Context) -> None:
    """Airflow's own command line, of the stack's Airflow; `weir airflow --help` is Airflow's too."""
    program = _stack().airflow()
    os.chdir(program.directory)
    os.execve(program.command[0], ["airflow", *context.args], dict(program.environment))  # noqa: S606


def clean(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Stop the stack and delete all it made: data, lake, secrets, native parts. The download cache stays."""
    from stack.cache import cache_folder

    stack = _stack()
    home = stack.layout.home
    if home.is_dir() and not stack.layout.is_weirs():
        stack.layout.delete()  # says why it does not
    if not yes:
        typer.confirm(f"Delete {home} with all data, the lake and the secrets?", abort=True)
    stack.down()
    left = stack.layout.delete()
    print(f"{home} is gone." if not left else f"What was Weir's in {home} is gone; this is not: {', '.join(left)}.")
    print(f"Downloads stay in {cache_folder()}; delete that folder to free their space.")


def register(app: typer.Typer) -> None:
    for command in (setup, up, down, restart, status, logs, clean):
        app.command()(command)
    unread = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(context_settings=unread)(airflow)
