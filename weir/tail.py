"""`weir tail`: what comes on a topic."""

from typing import Annotated

import typer


def tail(
    topic: Annotated[str, typer.Argument(help="MQTT, such as 'dt/weather/#', or Kafka, such as sensor.")],
    count: Annotated[int | None, typer.Option("-n", help="Stop after this many.", min=1)] = None,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Kafka only: what is there already, too.")
    ] = False,
    all_: Annotated[bool, typer.Option("--all", help="Heartbeats and control records, too.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="JSON lines.")] = False,
) -> None:
    """Show MQTT messages (a topic with / # or +) or Kafka records as they come, until Ctrl-C.

    Times are UTC. Kafka records begin with partition/offset and key.
    """
    import sys

    from rich.console import Console
    from rich.text import Text

    from fleet.errors import ConfigurationError
    from fleet.settings import Settings
    from simulators.session import stop_on_signals
    from simulators.tail import as_json, as_text, is_mqtt, listen

    if from_beginning and is_mqtt(topic):
        raise ConfigurationError("--from-beginning is for Kafka: MQTT keeps nothing that has been")
    console = Console(highlight=False, soft_wrap=True)
    shown = 0
    with stop_on_signals() as stop:
        for heard in listen(Settings.load(), topic, from_beginning, stop.is_set):
            if not (heard.is_reading or all_):
                continue
            if json_:
                print(as_json(heard))
            else:
                where, said = as_text(heard)
                console.print(Text.assemble((where, "cyan"), " ", said, style="" if heard.is_reading else "dim"))
            sys.stdout.flush()
            shown += 1
            if shown == count:
                return


def register(app: typer.Typer) -> None:
    app.command()(tail)
