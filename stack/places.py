"""Where each server is for its clients, and on which address all of them listen."""

from dataclasses import dataclass

from stack.ports import LOOPBACK


@dataclass(frozen=True)
class Places:
    """A field named as in `Ports` is the host by which clients know that server. Spark Connect has none: its clients
    are on its own loopback, wherever that is, as they send their token over nothing else."""

    bind: str = LOOPBACK
    mqtt: str = LOOPBACK
    kafka: str = LOOPBACK
    postgres: str = LOOPBACK
    airflow: str = LOOPBACK
    alertmanager: str = LOOPBACK
    inbox: str = LOOPBACK
    grafana: str = LOOPBACK
    page: str = LOOPBACK
    """The host by which a person's browser knows the pages."""


HERE = Places()
"""The native stack: all on this machine, for nobody else."""
COMPOSE = Places(
    bind="0.0.0.0",  # noqa: S104  the containers' own network; docker/compose.yaml says what is published of it
    mqtt="mosquitto",
    kafka="kafka",
    postgres="postgres",
    airflow="airflow-api-server",
    alertmanager="alertmanager",
    inbox="inbox",
    grafana="grafana",
)
"""docker/compose.yaml: a host is the name of its service."""
