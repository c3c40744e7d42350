"""The packets that we write ourselves are what our reader, and paho, take for the same message."""

import paho.mqtt.client as paho
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

from connections.mqtt_frames import Delivery, split
from connections.mqtt_publisher import publish_frame

TOPICS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="+#\0"), min_size=1, max_size=40)


@given(st.integers(1, 65_535), TOPICS, st.binary(max_size=300))
def test_our_reader_reads_it(mid, topic, payload):
    deliveries: list[Delivery] = []
    frame = publish_frame(mid, topic.encode(), payload)
    assert split(frame, deliveries, []) == len(frame)
    assert deliveries == [Delivery(topic, payload, mid)]


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 16_300, 16_400, 300_000])
def test_paho_would_write_the_same(size):
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    sent = []
    client._packet_queue = lambda command, packet, *rest: sent.append(bytes(packet)) or paho.MQTT_ERR_SUCCESS
    client._sock = object()
    client._send_publish(7, b"dt/a/b/c/d", b"x" * size, 1)
    client._sock = None
    assert sent == [publish_frame(7, b"dt/a/b/c/d", b"x" * size)]
