"""Ports: who wins, and what a person is told when one is taken."""

import socket

import pytest

from fleet.default_ports import DEFAULT_PORTS
from fleet.settings import Settings
from stack.conflicts import chosen, conflict_message, conflicts_of
from stack.ports import Ports


def test_the_defaults_are_those_of_the_settings():
    assert Ports.from_settings(Settings(), {}) == Ports(**DEFAULT_PORTS)


def test_the_order_of_the_fields_is_that_of_the_base():
    assert list(Ports.__dataclass_fields__) == list(DEFAULT_PORTS)
    assert Ports.from_base(7000) == Ports(**chosen({}, {"WEIR_PORT_BASE": "7000"}))


@pytest.mark.parametrize(
    ("known", "environ", "kafka"),
    [
        ({}, {}, DEFAULT_PORTS["kafka"]),
        ({"kafka": 7}, {}, 7),
        ({"kafka": 7}, {"WEIR_PORT_BASE": "9000"}, 9001),
        ({"kafka": 7}, {"WEIR_PORT_BASE": "9000", "WEIR_PORT_KAFKA": "8"}, 8),
    ],
    ids=["default", "remembered", "base", "own variable"],
)
def test_who_wins(known, environ, kafka):
    assert chosen(known, environ)["kafka"] == kafka


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"WEIR_PORT_MQTT": "seven"}, "WEIR_PORT_MQTT: 'seven' is not a port"),
        ({"WEIR_PORT_BASE": "-1"}, "is not a port"),
        ({"WEIR_PORT_MQTT": "70000"}, "not a port: WEIR_PORT_MQTT=70000"),
        ({"WEIR_PORT_MQTT": str(DEFAULT_PORTS["kafka"])}, "given to two servers"),
    ],
)
def test_bad_ports_are_named(environ, words):
    with pytest.raises(ValueError, match=words):
        chosen({}, environ)


def test_a_taken_port_is_told_with_its_holder():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        conflicts = conflicts_of({"kafka": port})
        assert conflicts["kafka"][0] == port
        assert "(pid " in (conflicts["kafka"][1] or "")
    message = conflict_message(conflicts)
    assert f"kafka: port {port} is taken by" in message
    assert "WEIR_PORT_KAFKA" in message
    assert "WEIR_PORT_BASE" in message


def test_a_holder_that_is_hidden():
    assert "another process" in conflict_message({"mqtt": (1883, None)})
