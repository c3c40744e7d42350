"""What a read of the MQTT subscriber takes from its socket: all that is there, up to a chunk, with TLS and without."""

import select
import socket
import ssl
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paho.mqtt.client as paho
import pytest
from pydantic import SecretStr

from connections import mqtt
from connections.mqtt_frames import Delivery
from fleet.errors import Unavailable
from fleet.settings import Settings
from stack.certificate import self_signed
from tests.unit.test_mqtt_frames import publish

MESSAGES = [Delivery(f"dt/a/b/c/{n}", b"x" * 100, n + 1) for n in range(60)]


@pytest.fixture
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """(the broker's end, a subscriber whose connection is the other end)"""
    there, here = socket.socketpair()
    if request.param == "tls":
        certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
        for path, text in zip((certificate, key), self_signed(["127.0.0.1"]), strict=True):
            path.write_text(text)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate, key)
        client = ssl.create_default_context(cafile=str(certificate))
        done: list[Any] = []
        thread = threading.Thread(target=lambda: done.append(server.wrap_socket(there, server_side=True)))
        thread.start()
        here = client.wrap_socket(here, server_hostname="127.0.0.1")
        thread.join()
        (there,) = done
    here.setblocking(False)
    subscriber = mqtt.Subscriber.__new__(mqtt.Subscriber)
    subscriber._client = paho.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    subscriber._client._sock = here
    subscriber._settings = SimpleNamespace(mqtt_host="there", mqtt_port=1)  # type: ignore[assignment]
    subscriber._buffer, subscriber._first, subscriber._lost = b"", [], None
    yield there, subscriber
    there.close()
    here.close()


def come(subscriber: mqtt.Subscriber) -> list[Delivery]:
    select.select([subscriber.fileno()], [], [], 5)
    return subscriber.poll(0)


@pytest.mark.parametrize("pair", ["plain", "tls"], indirect=True)
def test_a_read_takes_all_that_has_come(pair: Any) -> None:
    """Mosquitto writes each message by itself; over TLS that is a record of its own."""
    there, subscriber = pair
    for message in MESSAGES:
        there.sendall(publish(message))
    assert come(subscriber) == MESSAGES
    assert not subscriber.has_more


@pytest.mark.parametrize("pair", ["plain", "tls"], indirect=True)
def test_a_read_that_leaves_some_says_so(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "CHUNK_BYTES", 1_000)
    there, subscriber = pair
    for message in MESSAGES:
        there.sendall(publish(message))
    found = come(subscriber)
    assert 0 < len(found) < len(MESSAGES)
    assert subscriber.has_more
    while subscriber.has_more:
        found += subscriber.poll(0)
    assert found == MESSAGES


@pytest.mark.parametrize("pair", ["plain", "tls"], indirect=True)
def test_what_came_before_the_end_is_given_out(pair: Any) -> None:
    there, subscriber = pair
    there.sendall(publish(MESSAGES[0]))
    there.close()
    assert come(subscriber) == MESSAGES[:1]
    with pytest.raises(Unavailable, match="connection lost"):
        come(subscriber)


def test_a_services_session_is_known_to_who_has_its_password() -> None:
    ids = [
        mqtt.session_id(Settings(mqtt_password=SecretStr(password)), name)
        for name in ("weir-bridge-a", "weir-bridge-b")
        for password in ("secret", "another", "secret")
    ]
    assert [ids[0], ids[3]] == [ids[2], ids[5]]
    assert len(set(ids)) == 4
    assert all(one.startswith("weir-bridge-") and "secret" not in one for one in ids)
