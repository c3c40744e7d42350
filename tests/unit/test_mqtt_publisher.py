"""The packets that we write ourselves are what our reader, and paho, take for the same message."""

import paho.mqtt.client as paho
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from connections.mqtt_frames import Delivery, split
from connections.mqtt_publisher import publish_frame

TOPICS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="+#\0"), min_size=1, max_size=40)


EXPIRIES = st.none() | st.integers(1, 2**32 - 1)


@given(st.integers(1, 65_535), TOPICS, st.binary(max_size=300), EXPIRIES)
def test_our_reader_reads_it(mid, topic, payload, expires_seconds):
    deliveries: list[Delivery] = []
    frame = publish_frame(mid, topic.encode(), payload, expires_seconds)
    assert split(frame, deliveries, []) == len(frame)
    assert deliveries == [Delivery(topic, payload, mid)]


@pytest.mark.parametrize("expires_seconds", [None, 1, 60, 2**32 - 1])
@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 16_300, 16_400, 300_000])
def test_paho_would_write_the_same(size, expires_seconds):
    properties = None
    if expires_seconds is not None:
        properties = Properties(PacketTypes.PUBLISH)
        properties.MessageExpiryInterval = expires_seconds
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    sent = []
    client._packet_queue = lambda command, packet, *rest: sent.append(bytes(packet)) or paho.MQTT_ERR_SUCCESS
    client._sock = object()
    client._send_publish(7, b"dt/a/b/c/d", b"x" * size, 1, properties=properties)
    client._sock = None
    assert sent == [publish_frame(7, b"dt/a/b/c/d", b"x" * size, expires_seconds)]
