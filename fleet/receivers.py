"""Who is told of alerts, and when: the models of `fleet/receivers.yaml`. Their docstrings are what the file may say.

The smallest file is one receiver; it is told everything:

    receivers:
      ops: {kind: webhook, url: "https://example.org/hook", secrets: ["${OPS_SECRET}"]}
"""

from collections.abc import Collection, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from fleet.duration import Duration
from fleet.maintenance import Maintenance
from fleet.rule import Strict
from fleet.selection import Names, Selection, listed
from fleet.webhook_body import key_of

ReceiverName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,62}$")]
FilePath = Annotated[Path, Field(strict=False)]
PortNumber = Annotated[int, Field(ge=0, le=65535, strict=False)]
"""Lax, as what `${NAME}` gives is text."""
Url = Annotated[str, Field(pattern=r"^https?://[^\s/]+")]


Shows = Literal["messages", "alerts", "state"]
"""What people see of a kind. messages: each by itself. alerts: each alert as a thread or a region, the end of one too
though its rule fires again. state: one of each rule and device, which is what came last."""


class ReceiverOptions(Strict):
    """What every receiver may say beside its kind's own."""

    shows: ClassVar[Shows]
    timeout: Duration = timedelta(seconds=10)
    """For one whole send."""
    send_resolved: bool = True
    """Whether it is told that an alert is over. A route may say otherwise."""
    heartbeat: Duration | None = None
    """How often it is told that Weir lives, for a dead man's switch there; when it is not: docs/decisions/0025."""
    give_up: Duration = timedelta(days=3)
    """After so long without success a message becomes a dead letter: kept, listed, and sent again by hand."""
    only_with: str = Field(default="", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """A NAME, as of `${NAME}`: without a value of it the file is read as if this receiver stood nowhere in it."""

    @property
    def timeout_seconds(self) -> float:
        return self.timeout.total_seconds()

    @model_validator(mode="after")
    def _positive(self) -> "ReceiverOptions":
        for name in ("timeout", "heartbeat", "give_up", "refresh", "expire"):
            value = getattr(self, name, None)
            if value is not None and value < timedelta(seconds=1):
                raise ValueError(f"{name} is at least 1s")
        return self


class WebhookOptions(ReceiverOptions):
    """POST of Alertmanager's webhook body, signed as Standard Webhooks has it."""

    shows = "messages"
    kind: Literal["webhook"]
    url: Url
    secrets: Annotated[tuple[SecretStr, ...], BeforeValidator(listed)] = ()
    """`whsec_…`, by `${NAME}`. One signature each, so that a new one can be there before the old one goes."""
    allow_link_local: bool = False
    """Also to 169.254.0.0/16, fe80::/10 and the addresses where clouds give out their secrets."""
    ca_file: FilePath | None = None
    """PEM of the authorities to trust instead of the system's."""
    external_url: str = ""
    """Where Weir's own pages are, for links in the message."""

    @field_validator("secrets")
    @classmethod
    def _are_keys(cls, secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in secrets:
            key_of(secret.get_secret_value())
        return secrets


class EmailOptions(ReceiverOptions):
    """A mail a message; those of one alert are one thread."""

    shows = "alerts"
    kind: Literal["email"]
    host: str = Field(min_length=1)
    port: PortNumber = Field(default=587, ge=1)
    starttls: Literal["required", "optional", "never"] = "required"
    implicit_tls: bool = False
    """TLS from the first byte, as on port 465."""
    user: str = ""
    password: SecretStr = SecretStr("")
    sender: str = Field(pattern=r"[^@\s]+@[^@\s]+")
    to: Names
    """Each address hears of an alert in order; one that does not take its mail keeps none from the others."""
    ca_file: FilePath | None = None
    external_url: str = ""


class AlertmanagerOptions(ReceiverOptions):
    """Prometheus' Alertmanager, which groups, and knows Slack, PagerDuty and many others."""

    shows = "state"
    kind: Literal["alertmanager"]
    url: Url
    user: str = ""
    password: SecretStr = SecretStr("")
    expire: Duration = timedelta(minutes=5)
    """It takes an alert for over when it was not told of it again for so long."""
    refresh: Duration = timedelta(minutes=1)
    """How often it is told of all that is active."""
    ca_file: FilePath | None = None
    external_url: str = ""

    @property
    def expire_seconds(self) -> float:
        return self.expire.total_seconds()

    @model_validator(mode="after")
    def _kept_alive(self) -> "AlertmanagerOptions":
        if self.refresh * 2 > self.expire:
            raise ValueError("expire must be at least twice refresh, or one lost refresh ends every alert")
        return self


class GrafanaOptions(ReceiverOptions):
    """An annotation in Grafana, from firing to resolved."""

    shows = "alerts"
    kind: Literal["grafana"]
    url: Url
    token: SecretStr = SecretStr("")
    user: str = ""
    password: SecretStr = SecretStr("")
    dashboard_uid: str = ""
    """Of this dashboard only; without it, of the organisation."""
    ca_file: FilePath | None = None

    @model_validator(mode="after")
    def _credentials(self) -> "GrafanaOptions":
        if bool(self.token.get_secret_value()) == bool(self.user):
            raise ValueError("a Grafana receiver has either token, or user and password")
        return self


class MqttOptions(ReceiverOptions):
    """A retained message an alert, for panels and automations."""

    shows = "state"
    kind: Literal["mqtt"]
    prefix: str = Field(default="alerts", pattern=r"^[^+#\s]+$")
    host: str = ""
    """Without it, the broker that Weir's own settings name."""
    port: PortNumber = 0
    user: str = ""
    password: SecretStr = SecretStr("")
    ca_file: FilePath | None = None


Options = Annotated[
    WebhookOptions | EmailOptions | AlertmanagerOptions | GrafanaOptions | MqttOptions, Field(discriminator="kind")
]
KINDS: dict[str, type[ReceiverOptions]] = {
    get_args(options.model_fields["kind"].annotation)[0]: options for options in get_args(get_args(Options)[0])
}


class Escalation(Strict):
    """Not acknowledged after that long: these receivers are told too."""

    after: Duration
    to: Names

    @property
    def key(self) -> tuple[float, tuple[str, ...]]:
        return self.after.total_seconds(), tuple(self.to)


class Route(Strict):
    """Which alerts go to which receivers. The first route that matches is taken, with `continue` the next one too."""

    match: Selection = Selection()
    to: Names
    continue_: bool = Field(default=False, alias="continue")
    repeat: Duration | None = None
    """An alert that is active and not acknowledged is told again after so long. Without it, once."""
    send_resolved: bool | None = None
    """Without it, as the receiver has it."""
    escalate: tuple[Escalation, ...] = ()
    """One step, or a list of them; `after` counts from the first telling, and anew when it got worse."""

    @field_validator("escalate", mode="before")
    @classmethod
    def _steps(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else (value,) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _long_enough(self) -> "Route":
        if self.repeat is not None and self.repeat < timedelta(seconds=1):
            raise ValueError("repeat is at least 1s")
        return self


class Storm(Strict):
    """More than so many alerts of one rule at one site, told to one receiver within that time, become one message."""

    more_than: int = Field(default=20, ge=1, le=1000)
    within: Duration = timedelta(minutes=1)


class ReceiversFile(Strict):
    """`fleet/receivers.yaml`. Alerts of rules with `inhibitable: false` wait for no maintenance, storm or `max_age`."""

    receivers: dict[ReceiverName, Options] = {}
    routes: tuple[Route, ...] = Field(default=(), strict=False)
    default: Route | None = None
    """Of alerts that no route takes. Without it and without routes every receiver is told everything."""
    maintenance: tuple[Maintenance, ...] = Field(default=(), strict=False)
    storm: Storm = Storm()
    max_age: Duration = timedelta(hours=1)
    """What was older than that when it was detected is not told: loading old data pages nobody."""

    @field_validator("default", mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        """`default: [ops]` is `default: {to: [ops]}`."""
        return {"to": value} if isinstance(value, str | list) else value

    @model_validator(mode="after")
    def _known(self) -> "ReceiversFile":
        problems = [
            f"{path}: no receiver {name!r}; there are: {', '.join(self.receivers) or 'none'}"
            for path, names in self._named()
            for name in names
            if name not in self.receivers
        ]
        if self.default is not None and (self.default.match != Selection() or self.default.continue_):
            problems.append("default: takes all that no route takes: neither match nor continue can stand there")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def escalates(self) -> bool:
        return any(route.escalate for route in (*self.routes, *((self.default,) if self.default else ())))

    def fitting_nothing(self, known: Mapping[str, Collection[str]]) -> list[str]:
        """What routes and maintenance windows name and there is not, with its place. `known`: keys of a selection →
        what there is."""
        places = [(f"routes.{n}", route.match) for n, route in enumerate(self.routes)]
        places += [(f"maintenance.{n}", window.match) for n, window in enumerate(self.maintenance)]
        return [f"{place}.match.{problem}" for place, match in places for problem in match.fitting_nothing(known)]

    def _named(self) -> list[tuple[str, tuple[str, ...]]]:
        routes = [(f"routes.{place}", route) for place, route in enumerate(self.routes)]
        routes += [("default", self.default)] if self.default else []
        named = [(f"{path}.to", route.to) for path, route in routes]
        return named + [(f"{path}.escalate", step.to) for path, route in routes for step in route.escalate]
