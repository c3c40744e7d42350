"""Which port each server listens on."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields

from fleet.errors import ConfigurationError
from fleet.settings import Settings
from stack.conflicts import LOOPBACK, chosen, conflict_message, conflicts_of

__all__ = ["LOOPBACK", "Ports", "check_free"]


@dataclass(frozen=True)
class Ports:
    """Field `mqtt` is the variable `WEIR_PORT_MQTT`. In the order of `fleet.default_ports`."""

    mqtt: int
    kafka: int
    kafka_controller: int
    postgres: int
    airflow: int
    spark: int
    bridge_metrics: int
    landing_metrics: int
    live_metrics: int
    alerts_metrics: int
    history_metrics: int
    dispatcher_metrics: int
    alertmanager: int
    inbox: int
    inbox_smtp: int
    grafana: int
    stream_metrics: int
    gateway_metrics: int
    gateway_http: int
    gateway_coap: int
    commander_metrics: int

    @classmethod
    def from_base(cls, base: int) -> "Ports":
        return cls(*(base + place for place in range(len(fields(cls)))))

    @classmethod
    def from_settings(cls, settings: Settings, environ: Mapping[str, str]) -> "Ports":
        """A port named in the environment wins over WEIR_PORT_BASE, which wins over what an earlier set-up chose."""
        try:
            return cls(**chosen({f.name: getattr(settings, f"port_{f.name}") for f in fields(cls)}, environ))
        except ValueError as error:
            raise ConfigurationError(str(error)) from None

    @classmethod
    def free(cls) -> "Ports":
        """Ports that nobody listens on now, for tests."""
        held = [socket.socket() for _ in fields(cls)]
        try:
            for each in held:
                each.bind((LOOPBACK, 0))
            return cls(*(each.getsockname()[1] for each in held))
        finally:
            for each in held:
                each.close()


def check_free(wanted: Mapping[str, int]) -> None:
    """Raises ConfigurationError naming every port that is taken and its holder."""
    conflicts = conflicts_of(wanted)
    if conflicts:
        raise ConfigurationError(conflict_message(conflicts))
