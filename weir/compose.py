"""`weir compose`: the steps of docker/compose.yaml and docker/Dockerfile; a person has no need of them."""

import os
from pathlib import Path
from typing import Annotated

import typer

from stack.clock import say

compose = typer.Typer(no_args_is_help=True, help="The one-shot steps of docker/compose.yaml.")
Made = Annotated[Path, typer.Option(help="The volume of the secrets.")]
SECRETS = Path("/secrets")


def register(app: typer.Typer) -> None:
    app.add_typer(compose, name="compose", hidden=True)


def _ports():  # type: ignore[no-untyped-def]
    from fleet.settings import Settings
    from stack.ports import Ports

    return Ports.from_settings(Settings.from_values({}), os.environ)


@compose.command()
def image() -> None:
    """At the building of the image: Java, and the jars that Spark sessions add."""
    from stack import java, pins, prefix

    home = java.ensure(prefix.PREFIX / "java")
    prefix.fetch_jars(prefix.PREFIX, pins.read().jars_in("spark"), home)


@compose.command()
def configure(secrets: Made = SECRETS, volumes: Annotated[Path, typer.Option()] = Path("/config")) -> None:
    """Secrets, and each service's configuration into its own volume."""
    from stack import compose as steps
    from stack.layout import Layout

    steps.configure(Layout(secrets), volumes, _ports(), os.environ, steps.chown)
    say(f"configured: {', '.join(steps.OWNERS)}")


@compose.command()
def provision(secrets: Made = SECRETS) -> None:
    """Topics, users and rights; databases, logins and tables, when the servers are up."""
    from stack import compose as steps
    from stack.layout import Layout

    steps.provision_servers(Layout(secrets), _ports(), os.environ, say)


@compose.command()
def finish(secrets: Made = SECRETS) -> None:
    """What Airflow is told when it answers."""
    from stack import compose as steps
    from stack.layout import Layout

    steps.finish(Layout(secrets), _ports())
