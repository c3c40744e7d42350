"""One command on its way: what is sent, what a device answers, and how its state follows from answers and readings.

requested → sent → delivered → obeyed; refused and expired end it from any of the first three. What has ended stays so,
whatever comes later. Decisions only: the tables are streaming/command_table.py, the wires connections/.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from math import isclose
from typing import Literal, NamedTuple

import msgspec

from fleet.errors import CommandError
from fleet.reading import Reading, to_datetime, to_epoch_us

State = Literal["requested", "sent", "delivered", "obeyed", "refused", "expired"]
Via = Literal["cli", "http", "rule"]
UNDER_WAY: tuple[State, ...] = ("requested", "sent", "delivered")
"""requested: kept, and the broker does not have it yet."""
SENT: tuple[State, ...] = ("sent", "delivered")
GRACE = timedelta(seconds=2)
"""A reading of before the expiry may take so long to be read; a command expires so much later than it says."""
LONGEST_REASON = 300
"""Characters of a device's own words that are kept."""
TOLERANCE = 1e-6
ON_THE_WAY_US = 10_000_000
"""A reading of so long before a command was sent may just have been on its way."""


class Request(msgspec.Struct, kw_only=True):
    """What is asked for; checked already. Its fields are columns of the table of commands."""

    command_id: str
    system: str
    type: str
    device_id: str
    site: str
    command: str
    args: dict[str, float]
    via: Via = "cli"
    by: str = ""
    why: str = ""
    expires_at: datetime


class Kept(Request, kw_only=True):
    """A row of the table. `sets` is empty before it is sent."""

    sets: dict[str, float] = {}
    state: State = "requested"
    requested_at: datetime
    sent_at: datetime | None = None


class Command(Kept, kw_only=True):
    """With what its device's readings say of it, which are read again after a restart."""

    shown: dict[str, float] = {}
    """Metrics of `sets` as the readings last showed them, since it was sent."""
    before_us: int | None = None
    """The latest event time, epoch µs, of readings with such metrics that came since, of well before it was sent."""


class Move(NamedTuple):
    """To a state, and why in words."""

    state: State
    reason: str = ""


class Standing(NamedTuple):
    """Of a device, by the registry."""

    site: str
    retired_at: datetime | None = None


class Answer(msgspec.Struct, frozen=True):
    """What a device may say of a command."""

    id: str
    state: Literal["delivered", "refused"]
    reason: str = ""


_decode = msgspec.json.Decoder(Answer).decode


def decode_answer(payload: bytes) -> Answer | None:
    """None where the bytes are no answer. The reason is cut, and only what can be printed is kept of it."""
    try:
        answer = _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    reason = "".join(c if c.isprintable() else " " for c in answer.reason[:LONGEST_REASON])
    return Answer(answer.id, answer.state, reason)


def encode_command(command: Command) -> bytes:
    """What the device gets: compact JSON, `expires` in epoch seconds."""
    expires = command.expires_at.timestamp()
    return msgspec.json.encode(
        {"id": command.command_id, "command": command.command, "args": command.args, "expires": round(expires, 3)}
    )


def rule_command_id(transition_id: str, action: int, type_name: str, device_id: str) -> str:
    """32 hexadecimal digits: the same for the same action of the same transition, however often it is read."""
    return blake2b(msgspec.msgpack.encode((transition_id, action, type_name, device_id)), digest_size=16).hexdigest()


def target_site(command: Command, device: Standing | None) -> str:
    """Where its device stands now. Raises CommandError where the registry has no such device in service, or a rule
    means one at another site."""
    who = f"{command.type} {command.device_id}"
    if device is None:
        raise CommandError(
            f"the registry has no {who}; `weir devices list --type {command.type}` shows those there are"
        )
    if device.retired_at is not None:
        raise CommandError(f"{who} is retired since {device.retired_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
    if command.via == "rule" and device.site != command.site:
        raise CommandError(f"{who} stands at {device.site}, the alert is of {command.site}")
    return device.site


def answered(command: Command, answer: Answer) -> Move | None:
    """None where it changes nothing: the command has ended, or is delivered already."""
    if command.state not in UNDER_WAY:
        return None
    if answer.state == "refused":
        return Move("refused", answer.reason or "the device gave no reason")
    return Move("delivered", answer.reason) if command.state != "delivered" else None


def seen(command: Command, reading: Reading) -> Move | None:
    """Takes a reading of the command's device into `shown`. It counts from the moment of sending, in the milliseconds
    that readings have, to the expiry; obeyed is when every metric has the wanted value."""
    if command.state not in SENT or command.sent_at is None:
        return None
    begin_us = to_epoch_us(command.sent_at) // 1000 * 1000
    if reading.event_time_us < begin_us - ON_THE_WAY_US and not command.sets.keys().isdisjoint(reading.values):
        command.before_us = max(reading.event_time_us, command.before_us or reading.event_time_us)
    if not begin_us <= reading.event_time_us <= to_epoch_us(command.expires_at):
        return None
    for metric in command.sets:
        if (value := reading.values.get(metric)) is not None:
            command.shown[metric] = value
    return Move("obeyed") if is_obeyed(command.sets, command.shown) else None


def unsent(command: Command, now: datetime) -> Move | None:
    """Of one that the broker may not have: why it is not to be sent now. One that was begun and broken off may have
    reached its device, whose readings say more."""
    if now < command.expires_at:
        return None
    if command.sent_at is None:
        return Move("expired", "it was not sent in time")
    return Move("sent", "the broker did not confirm it")


def is_obeyed(sets: Mapping[str, float], shown: Mapping[str, float]) -> bool:
    """Nothing shows that nothing was done: without `sets` it never is."""
    return bool(sets) and all(
        metric in shown and isclose(shown[metric], value, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        for metric, value in sets.items()
    )


def overdue(command: Command, now: datetime) -> Move | None:
    """Of one that was sent; to be asked once all readings there are were seen."""
    if command.state not in SENT or now < command.expires_at + GRACE:
        return None
    said = "the device has it" if command.state == "delivered" else "the device did not answer"
    wrong = [
        f"{metric} is {command.shown[metric]:g}, not {value:g}" if metric in command.shown else f"{metric} was not told"
        for metric, value in command.sets.items()
        if not is_obeyed({metric: value}, command.shown)
    ]
    old = "" if command.shown or command.before_us is None else f"; {_of_before(command.before_us)}"
    return Move("expired", f"{said}; by its readings {', '.join(wrong)}{old}")


def _of_before(last_us: int) -> str:
    return (
        f"those that came are of before it was sent, the last of {to_datetime(last_us):%Y-%m-%d %H:%M:%S} UTC, as of a"
        " simulation faster than time (with --follow it comes to the present) or a clock that is behind"
    )
