"""From a receiver of the file to what sends to it. Each kind's library is loaded where the kind is used."""

from importlib import import_module

from fleet.notification import Receiver
from fleet.receivers import Options
from fleet.settings import Settings

CLASSES = {
    "webhook": "connections.webhook.Webhook",
    "email": "connections.email.Email",
    "alertmanager": "connections.alertmanager.Alertmanager",
    "grafana": "connections.grafana.Grafana",
    "mqtt": "connections.mqtt_state.MqttState",
}
TAKES_SETTINGS = ("mqtt",)
"""It may be the stack's own."""


def sender_of(options: Options, settings: Settings) -> Receiver:
    """Opens no connection yet. Raises ConfigurationError where the options cannot be right."""
    module, _, name = CLASSES[options.kind].rpartition(".")
    sender = getattr(import_module(module), name)
    made: Receiver = sender(options, settings) if options.kind in TAKES_SETTINGS else sender(options)
    return made
