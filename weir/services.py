"""`weir service`: the long-running processes, as supervisord starts them. Each stops cleanly on SIGTERM."""

from typing import Annotated

import typer

services = typer.Typer(no_args_is_help=True, help="The long-running services; supervisord runs these.")


def register(app: typer.Typer) -> None:
    app.add_typer(services, name="service")


@services.command()
def bridge(
    only: Annotated[
        list[str] | None, typer.Option(help="Run these workers only, such as weather_station or room_node.co2.")
    ] = None,
) -> None:
    """MQTT to Kafka: one worker for each device type or feature, and heartbeats."""
    from streaming.bridge_service import Bridge
    from streaming.service import run

    run(lambda settings: Bridge(settings, only))


@services.command()
def gateway() -> None:
    """HTTP and CoAP to Kafka, and the MQTT broker's logins of devices."""
    from streaming.gateway_service import Gateway
    from streaming.service import run

    run(Gateway)


@services.command()
def landing() -> None:
    """Kafka to the lake: Parquet files, and the manifests that commit them."""
    from streaming.landing import Landing
    from streaming.service import run

    run(Landing)


@services.command()
def alerts() -> None:
    """Kafka through the rules to transitions of alerts, exactly once."""
    from streaming.alerts import Alerts
    from streaming.service import run

    run(Alerts)


@services.command()
def history() -> None:
    """Transitions of alerts to the warehouse."""
    from streaming.history import History
    from streaming.service import run

    run(History)


@services.command()
def dispatcher() -> None:
    """Transitions of alerts to people: who is told, what is held back, each message until it has arrived."""
    from streaming.dispatcher import Dispatcher
    from streaming.service import run

    run(Dispatcher)


@services.command()
def commander() -> None:
    """Commands of people and rules to devices: each sent, and followed until it is obeyed, refused or expired."""
    from streaming.commander import Commander
    from streaming.service import run

    run(Commander)


@services.command()
def live() -> None:
    """Kafka to the warehouse's table of recent readings."""
    from streaming.live import Live
    from streaming.service import run

    run(Live)


@services.command()
def inbox() -> None:
    """The people of the demo: a webhook and a mail server that check what they get and show it on a page."""
    from simulators.inbox import Inbox
    from streaming.service import run

    run(Inbox)
