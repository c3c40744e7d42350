"""MQTT 5 packets out of a stream of bytes, many at once.

paho reads a packet in four socket calls and about 60 µs; a busy bridge takes a chunk and finds its messages here.
What is not a PUBLISH is handed on to paho untouched.
"""

from struct import Struct, pack
from struct import error as StructError
from typing import NamedTuple

PUBLISH = 0x30
_short = Struct(">H").unpack_from


class Delivery(NamedTuple):
    """A message as it came. `mid` is what has to be acknowledged; 0 where nothing has to be (QoS 0)."""

    topic: str
    payload: bytes
    mid: int


class BadFrame(Exception):
    """The broker's bytes are no MQTT; the connection is of no further use."""


def split(data: bytes, deliveries: list[Delivery], others: list[tuple[int, bytes]]) -> int:
    """Appends the QoS 0 and 1 messages of `data` to `deliveries`, other packets to `others` as (first byte, body).
    Returns how many bytes were used; the rest is the beginning of a packet. Raises BadFrame."""
    at, end = 0, len(data)
    append = deliveries.append
    while at + 1 < end:
        here = at + 1
        length = data[here]
        here += 1
        if length > 127:
            length, here, complete = _long_length(data, here, length & 127)
            if not complete:
                return at
        stop = here + length
        if stop > end:
            return at
        first = data[at]
        if first & 0xF4 == PUBLISH:  # QoS 0 and 1; subscriptions ask for no more
            # What it says of its parts may lead beyond its end, into the next packet or beyond all that has come.
            complete = True
            try:
                (size,) = _short(data, here)
                here += 2 + size
                topic = data[here - size : here]
                mid = 0
                if first & 0x02:
                    (mid,) = _short(data, here)
                    here += 2
                    if not mid:
                        raise BadFrame("a PUBLISH of QoS 1 has no identifier")
                properties = data[here]
                here += 1
                if properties > 127:
                    properties, here, complete = _long_length(data, here, properties & 127)
                here += properties
            except (IndexError, StructError):
                complete = False
            if not complete or here > stop:
                raise BadFrame("a PUBLISH is shorter than it says")
            append(Delivery(topic.decode("utf-8", "replace"), data[here:stop], mid))
        else:
            others.append((first, data[here:stop]))
        at = stop
    return at


def _long_length(data: bytes, here: int, length: int) -> tuple[int, int, bool]:
    """A variable byte integer whose first byte was read: value, where it ends, whether all of it was there."""
    for shift in (7, 14, 21):
        if here >= len(data):
            return 0, here, False
        byte = data[here]
        here += 1
        length |= (byte & 127) << shift
        if byte < 128:
            return length, here, True
    raise BadFrame("a packet's length has more than four bytes")


def pubacks(mids: list[int]) -> bytes:
    """One PUBACK with reason code 0 for each, as one piece."""
    return pack(f">{2 * len(mids)}H", *(part for mid in mids for part in (0x4002, mid)))
