"""Control records: what people and other programs say in a partition, among its readings.

On Kafka they are JSON with `kind` naming the type, marked by the header CONTROL (fleet.channels). Times are epoch µs.
"""

from typing import Any

import msgspec


class Control(msgspec.Struct, frozen=True, tag_field="kind", omit_defaults=True, forbid_unknown_fields=True):
    at_us: int
    """Event time of what it causes, unless the device's clock is ahead of it."""


class SpecChange(Control, frozen=True, tag="spec"):
    """The text of a type, as data: a new type, or its new rules. Counts from the next reading."""

    spec: dict[str, Any]


class RegistryChange(Control, frozen=True, tag="registry"):
    """A device is known from `at_us`, whether it reports or not; said again, its site and params are as said last."""

    device_type: str
    device_id: str
    site: str = ""
    """Empty: where it is."""
    params: dict[str, float] = {}


class Retire(Control, frozen=True, tag="retire"):
    """The device is gone. If it reports again, it is a new one."""

    device_type: str
    device_id: str


class Resolve(Control, frozen=True, tag="resolve"):
    """An operator ends an alert."""

    device_type: str
    device_id: str
    rule: str


class SiteZone(Control, frozen=True, tag="site"):
    """A site's time zone, an IANA name; a site without one is in UTC."""

    site: str
    time_zone: str


AnyControl = SpecChange | RegistryChange | Retire | Resolve | SiteZone

encode_control = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(AnyControl)


def decode_control(value: bytes) -> AnyControl:
    """Raises msgspec.MsgspecError where the bytes are no control record."""
    return _decoder.decode(value)
