"""Cutting a stream of MQTT into packets: every cut gives the same messages, and paho's own encoding is understood."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connections.mqtt_frames import BadFrame, Delivery, pubacks, split


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


def test_a_length_of_five_bytes_is_no_mqtt() -> None:
    with pytest.raises(BadFrame):
        split(b"\x32\xff\xff\xff\xff\x01" + b"x" * 100, [], [])


def test_pubacks_are_one_packet_each() -> None:
    assert pubacks([1, 65_535, 258]) == b"\x40\x02\x00\x01\x40\x02\xff\xff\x40\x02\x01\x02"
