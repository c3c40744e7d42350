"""Cutting a stream of MQTT into packets: every cut gives the same messages, and paho's own encoding is understood."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connections.mqtt_frames import BadFrame, Delivery, pubacks, split
from tests.mangled import mangled


def remaining_length(size: int) -> bytes:
    out = b""
    while True:
        size, byte = divmod(size, 128)
        out += bytes([byte | (128 if size else 0)])
        if not size:
            return out


def publish(delivery: Delivery, properties: bytes = b"") -> bytes:
    topic = delivery.topic.encode()
    body = len(topic).to_bytes(2, "big") + topic + (delivery.mid.to_bytes(2, "big") if delivery.mid else b"")
    body += remaining_length(len(properties)) + properties + delivery.payload
    return bytes([0x32 if delivery.mid else 0x30]) + remaining_length(len(body)) + body


deliveries = st.builds(
    Delivery,
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=40),
    st.binary(max_size=300) | st.binary(min_size=16_380, max_size=16_390),
    st.integers(0, 65_535),
)


@given(st.lists(st.tuples(deliveries, st.binary(max_size=200)), max_size=8), st.lists(st.integers(1, 400), max_size=50))
def test_every_cut_gives_the_same_messages(messages: list[tuple[Delivery, bytes]], cuts: list[int]) -> None:
    ping = b"\xd0\x00"
    stream = b"".join(publish(m, properties) + ping for m, properties in messages)
    got: list[Delivery] = []
    others: list[tuple[int, bytes]] = []
    buffer, at = b"", 0
    for size in [*cuts, len(stream)]:
        buffer += stream[at : at + size]
        at += size
        buffer = buffer[split(buffer, got, others) :]
    assert buffer == b""
    assert got == [m for m, _ in messages]
    assert others == [(0xD0, b"")] * len(messages)


def length_of(data: bytes) -> tuple[int, bytes] | None:
    """A variable byte integer, and what follows it; None where more has to come."""
    value = 0
    for place, byte in enumerate(data[:4]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, data[place + 1 :]
    if len(data) >= 4:
        raise BadFrame
    return None


def parts_of(first: int, body: bytes) -> Delivery:
    """A PUBLISH, a piece after the other, by the specification."""

    def taken(size: int) -> bytes:
        nonlocal body
        if len(body) < size:
            raise BadFrame
        piece, body = body[:size], body[size:]
        return piece

    topic = taken(int.from_bytes(taken(2)))
    mid = int.from_bytes(taken(2)) if first & 0x02 else 0
    if first & 0x02 and not mid:
        raise BadFrame
    found = length_of(body)
    if found is None:
        raise BadFrame
    size, body = found
    taken(size)
    return Delivery(topic.decode("utf-8", "replace"), body, mid)


def by_hand(stream: bytes) -> tuple[list[Delivery], list[tuple[int, bytes]], bytes | None]:
    """What `split` is to find, and what it is to leave; None where it is to raise."""
    found: list[Delivery] = []
    others: list[tuple[int, bytes]] = []
    try:
        while len(stream) > 1 and (length := length_of(stream[1:])) and len(length[1]) >= length[0]:
            first, (size, after) = stream[0], length
            if first >> 4 == 3 and first & 0x06 in (0x00, 0x02):
                found.append(parts_of(first, after[:size]))
            else:
                others.append((first, after[:size]))
            stream = after[size:]
    except BadFrame:
        return found, others, None
    return found, others, stream


SOME = b"".join([publish(Delivery("dt/a", b"1" * 130, 7), b"\x01\x00"), b"\xd0\x00", publish(Delivery("b", b"", 0))])
packets = st.builds(
    lambda first, body: bytes([first]) + remaining_length(len(body)) + body,
    st.sampled_from([0x30, 0x32, 0x34, 0x3B, 0x40]),
    st.binary(max_size=12) | st.lists(st.sampled_from([b"\x00", b"\x01", b"\x7f", b"\xff"]), max_size=9).map(b"".join),
)


@given(st.lists(packets | mangled(SOME), max_size=4).map(b"".join), st.lists(st.integers(1, 40), max_size=5))
def test_what_is_no_mqtt_is_told_however_it_is_cut(stream: bytes, cuts: list[int]) -> None:
    got: list[Delivery] = []
    others: list[tuple[int, bytes]] = []
    buffer, at, is_bad = b"", 0, False
    for size in [*cuts, len(stream)]:
        buffer += stream[at : at + size]
        at += size
        try:
            buffer = buffer[split(buffer, got, others) :]
        except BadFrame:
            is_bad = True
            break
    assert (got, others, None if is_bad else buffer) == by_hand(stream)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00",
        b"\x00\x05a",
        b"\x00\x01a",
        b"\x00\x01a\x00\x07",
        b"\x00\x01a\x00\x07\x80",
        b"\x00\x01a\x00\x00\x00",
    ],
    ids=["nothing", "half a length", "half a topic", "no id", "no properties", "half their length", "id 0"],
)
@pytest.mark.parametrize("after", [b"", b"\xd0\x00"], ids=["the last", "another behind"])
def test_a_publish_that_ends_too_early(body: bytes, after: bytes) -> None:
    with pytest.raises(BadFrame):
        split(b"\x32" + remaining_length(len(body)) + body + after, [], [])


def test_a_length_of_five_bytes_is_no_mqtt() -> None:
    with pytest.raises(BadFrame):
        split(b"\x32\xff\xff\xff\xff\x01" + b"x" * 100, [], [])


def test_pubacks_are_one_packet_each() -> None:
    assert pubacks([1, 65_535, 258]) == b"\x40\x02\x00\x01\x40\x02\xff\xff\x40\x02\x01\x02"
