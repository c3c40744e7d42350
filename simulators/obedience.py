"""Simulated lamps, plugs and thermostats obey: after a moment, and now and then they do not. No I/O.

From a command on, what a device says is what it was told, until it is told otherwise; its routine is overruled.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import msgspec

from fleet.channels import Address, parse_data_topic
from fleet.reading import Reading
from simulators.message import Message

SUBSCRIPTION = "cmd/home/+/+/+"
REFUSES = 0.02
SLOWEST_US = 2_000_000
MAX_REMEMBERED = 10_000
"""Ids of commands that were answered: one that comes again is answered again, and not obeyed again."""
BRIGHTNESS = 80.0
Values = Mapping[str, float]


def _dimmed(args: Values) -> dict[str, float]:
    return {"brightness": args["level"], "on": float(args["level"] > 0)}


OBEYED: dict[tuple[str, str], Callable[[Values], dict[str, float]]] = {
    ("lamp", "on"): lambda args: {"on": 1.0, "brightness": BRIGHTNESS},
    ("lamp", "off"): lambda args: {"on": 0.0, "brightness": 0.0},
    ("lamp", "dim"): _dimmed,
    ("smart_plug", "on"): lambda args: {"on": 1.0},
    ("smart_plug", "off"): lambda args: {"on": 0.0},
    ("thermostat", "set"): lambda args: {"setpoint": args["celsius"]},
}
"""(type, command) → what it makes of the device. The types' specs say what must be seen of it."""


class Command(msgspec.Struct, frozen=True):
    id: str
    command: str
    args: dict[str, float] = {}
    expires: float | None = None
    """Epoch seconds."""


class Answer(NamedTuple):
    topic: str
    payload: bytes


@dataclass
class _Told:
    values: dict[str, float] = field(default_factory=dict)
    coming: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    """(from when, values)"""
    unmetered: float = 0.0
    """What the counter has not counted while the plug was off."""
    stood: float | None = None


_decode = msgspec.json.Decoder(Command).decode


class Obedience:
    def __init__(self, seed: int = 0, refuses: float = REFUSES):
        self._seed, self._refuses = seed, refuses
        self._devices: dict[tuple[str, str], _Told] = {}
        self._answers: dict[str, dict[str, Any]] = {}
        self.counts = {"delivered": 0, "refused": 0}

    def command(self, topic: str, payload: bytes, now_us: int) -> Answer | None:
        """What the device says at once; None where it cannot be told what was meant, or by what id."""
        address = parse_data_topic(topic.replace("cmd/", "dt/", 1))
        try:
            told = _decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if address is None:
            return None
        if told.id not in self._answers:
            while len(self._answers) >= MAX_REMEMBERED:
                del self._answers[next(iter(self._answers))]
            self._answers[told.id] = self._take(address, told, now_us)
        return Answer(f"{topic}/answer", msgspec.json.encode(self._answers[told.id]))

    def _take(self, address: Address, told: Command, now_us: int) -> dict[str, Any]:
        rng = random.Random(f"{self._seed}/{told.id}")  # noqa: S311
        make, reason, values = OBEYED.get((address.type, told.command)), "", dict[str, float]()
        if told.expires is not None and told.expires * 1e6 < now_us:
            reason = "expired"
        elif make is None:
            reason = f"unknown command {told.command[:40]}"
        elif rng.random() < self._refuses:
            reason = "busy"
        else:
            try:
                values = make(told.args)
            except KeyError as missing:
                reason = f"argument {missing.args[0]} is missing"
        self.counts["refused" if reason else "delivered"] += 1
        if reason:
            return {"id": told.id, "state": "refused", "reason": reason}
        device = self._devices.setdefault((address.type, address.device_id), _Told())
        device.coming.append((now_us + rng.randrange(SLOWEST_US // 10, SLOWEST_US), values))
        return {"id": told.id, "state": "delivered"}

    def applied(self, reading: Reading, now_us: int) -> Reading:
        """What the device says instead."""
        device = self._devices.get((reading.device_type, reading.device_id))
        if device is None:
            return reading
        for at_us, values in device.coming:
            if at_us <= now_us:
                device.values = {**device.values, **values}
        device.coming = [each for each in device.coming if each[0] > now_us]
        said = {**reading.values, **device.values}
        if reading.device_type == "smart_plug":
            said |= _metered(device, said)
        elif reading.device_type == "thermostat" and "setpoint" in device.values:
            said["heating"] = float((said.get("temperature") or 0.0) < device.values["setpoint"])
        return msgspec.structs.replace(reading, values=said)


def _metered(device: _Told, said: Mapping[str, float | None]) -> dict[str, float | None]:
    """A plug that is off uses nothing, and its counter stands; on again, it goes on from there."""
    counted = said.get("energy")
    if counted is None:
        return {}
    if said.get("on"):
        if device.stood is not None:
            device.unmetered, device.stood = max(0.0, counted - device.stood), None
        if counted < device.unmetered:
            device.unmetered = 0.0  # it was reset
        return {"energy": round(counted - device.unmetered, 2)}
    if device.stood is None:
        device.stood = round(counted - device.unmetered, 2)
    return {"power": 0.0, "energy": device.stood}


def obeying(
    messages: Iterable[Message], obedience: Obedience, heard: Callable[[], list[tuple[str, bytes]]],
    answer: Callable[[str, bytes], None], now_us: Callable[[], int],
) -> Iterator[Message]:  # fmt: skip
    """The messages, as devices say them by what they were told until then."""
    for message in messages:
        for topic, payload in heard():
            said = obedience.command(topic, payload, now_us())
            if said is not None:
                answer(*said)
        if message.raw is None:
            message = replace(message, reading=obedience.applied(message.reading, now_us()))
        yield message
