"""What is told to a receiver, and what became of telling it. Deciding is fleet/dispatch.py; sending is connections/."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

import msgspec

Kind = Literal[
    "firing", "escalated", "deescalated", "resolved", "flapping", "settled", "acknowledged", "reminder", "digest",
    "heartbeat", "test",
]  # fmt: skip
"""Transitions by their own name. reminder: still active after the route's `repeat`. digest: several alerts at
once, of a storm or of what was active when a receiver came into the file.
heartbeat: Weir lives, sent at its interval to receivers that want it. test: asked for by an operator."""


class TellingAlert(msgspec.Struct, frozen=True, kw_only=True):
    """An alert as it was when there was something to tell about it. Times are UTC."""

    alert_id: str
    transition_id: str
    """Of the newest transition known then."""
    system: str
    type: str
    rule: str
    device: str
    site: str
    severity: str
    """After that transition; of a resolved alert, before."""
    severities: tuple[str, ...]
    """All that it has had, in order: a receiver that takes severity for a part of the identity closes the others."""
    title: str
    annotations: dict[str, str]
    labels: dict[str, str]
    values: dict[str, float | None]
    since: datetime
    starts_at: datetime
    event_time: datetime
    resolved_at: datetime | None = None
    reason: str | None = None
    flapping: bool = False
    acknowledged_by: str | None = None
    acknowledged_comment: str = ""
    """What that person said of it, on one line."""

    @property
    def active(self) -> bool:
        return self.resolved_at is None


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """One message to one receiver. The same id on every attempt, after every restart: who gets it twice can tell."""

    notification_id: str
    """`<transition_id>@<receiver>`; of reminders, escalations, digests, heartbeats, and of what is told to a receiver
    that is in the file again, the moment or count takes part."""
    receiver: str
    kind: Kind
    alerts: tuple[TellingAlert, ...]
    """One; of a digest all; of a heartbeat or a test none or a made-up one."""
    summary: str
    """One line that says it all: `critical High Temperature at roof: s1 36.5`, `312 of 400 silent at site a`."""
    created_at: datetime
    only_to: dict[str, str] = {}
    """Of a mail that other addresses have: those that do not, and why. Empty: nobody has it."""
    but_not_to: dict[str, str] = {}
    """Addresses to which an earlier mail is still to go, and why it has not yet; known at each attempt, never kept."""


# Made here: what msgspec makes of a type at its first use is seen half made by other threads, which ends the process.
decode_notification = msgspec.json.Decoder(Notification).decode
decode_telling_alert = msgspec.json.Decoder(TellingAlert).decode


@dataclass(frozen=True)
class Delivered:
    note: str = ""


@dataclass(frozen=True)
class Partly:
    """A mail server is there, and not all addresses take the mail. The others are tried again alone, or are never."""

    left: dict[str, str]
    """Who does not have it, and why."""
    told: tuple[str, ...] = ()
    """Who has it by this attempt."""
    never: bool = False
    """None of `left` will ever take it."""

    @property
    def why(self) -> str:
        return "; ".join(f"{address}: {why}" for address, why in self.left.items())


@dataclass(frozen=True)
class Retry:
    """Not now: the network, 408, 425, 429, 5xx, SMTP 4xx. After the receiver's own wish or the usual backoff."""

    why: str
    after_seconds: float | None = None
    """Its wish, of a day at most."""


@dataclass(frozen=True)
class Refused:
    """Never: kept among the dead letters, which an operator can list and send again."""

    why: str


@dataclass(frozen=True)
class Gone:
    """The receiver wants no more of anything (410): it is switched off until an operator switches it on."""

    why: str


Outcome = Delivered | Partly | Retry | Refused | Gone


class Receiver(Protocol):
    """Used by one thread. `send` returns within its timeout, of a digest that it sends in parts within that for each,
    and raises nothing that the network may cause."""

    def send(self, notification: Notification) -> Outcome: ...

    def close(self) -> None: ...
