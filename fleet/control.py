"""Control records: what changes an alert's state beside readings, in the same partitions, marked by a header.

They come from the registry's log of changes (`connections.registry`) and are JSON like the readings. A record may come
more than once, so each carries the registry's revision, which rises with every change: of one subject, a record whose
revision is not above the last one's is the same again and is passed over. Of one subject they come in order.
"""

from typing import Annotated, NamedTuple

import msgspec

from fleet.spec import DeviceType

Whole = Annotated[int, msgspec.Meta(ge=0, le=2**53 // 1000)]
"""Epoch milliseconds, and revisions, which begin with them: as microseconds they fit 64 bits with room to spare."""


class _Record(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", kw_only=True):
    revision: Whole
    at: Whole
    """When it was decided, by the registry's clock: epoch milliseconds. Of one registry it never falls."""


class Device(_Record, frozen=True, tag="device"):
    """The whole of what the registry says of a device, when it was registered or changed. One that was retired is a
    new device from here on."""

    type: str
    device: str
    site: str
    registered_at: Whole
    """Epoch milliseconds."""
    time_zone: str = "UTC"
    """Its site's."""
    room: str | None = None
    params: dict[str, float] = {}
    """Those that are not as the type's rules have them; of every rule that has the name."""

    @property
    def subject(self) -> tuple[str, ...]:
        return ("device", self.type, self.device)


class Site(_Record, frozen=True, tag="site"):
    """A site's time zone has changed, for all devices there. In every partition of the system."""

    site: str
    time_zone: str

    @property
    def subject(self) -> tuple[str, ...]:
        return ("site", self.site)


class Retire(_Record, frozen=True, tag="retire"):
    """The device is no more. `moved_to`: no more in this partition, for it stands at another site, whose partition has
    a `Device` of it."""

    type: str
    device: str
    moved_to: str | None = None

    @property
    def subject(self) -> tuple[str, ...]:
        return ("device", self.type, self.device)


class Resolve(_Record, frozen=True, tag="resolve"):
    """An operator ends an alert by hand."""

    type: str
    device: str
    rule: str
    by: str

    @property
    def subject(self) -> tuple[str, ...]:
        return ("device", self.type, self.device)


class Spec(_Record, frozen=True, tag="spec"):
    """The type's spec is this text (YAML) from here on. In every partition of the system."""

    type: str
    version: int
    text: str

    @property
    def subject(self) -> tuple[str, ...]:
        return ("spec", self.type)


Control = Device | Site | Retire | Resolve | Spec

encode_control = msgspec.json.Encoder().encode
decode_control = msgspec.json.Decoder(Control).decode
"""Raises msgspec.MsgspecError where the bytes are no control record, or of a kind that is not known here."""


class Routed(NamedTuple):
    """A control record on its way: into the partition where readings with this key go; without a key into every
    partition. Not into that of `except_key`: a device that moves is retired where it left, if that is elsewhere."""

    topic: str
    key: str | None
    record: Control
    except_key: str | None = None


def key_of(spec: DeviceType, device: str, site: str) -> str:
    """The key of the device's readings on Kafka."""
    return site if spec.partition_by == "site" else device
