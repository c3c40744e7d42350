"""What people see of a message, and what programs get of it."""

import json

import pytest

from fleet.contract import Reject
from fleet.dead_letter import dead_letter_of_message, encode_dead_letter
from simulators.tail import MAX_SHOWN, Heard, as_json, as_text, is_mqtt

AT = 1_732_985_789_438


@pytest.mark.parametrize(
    ("topic", "mqtt"),
    [
        ("dt/weather/#", True),
        ("#", True),
        ("$SYS/broker/uptime", True),
        ("sensor", False),
        ("readings.rejected", False),
    ],
)
def test_whose_topic(topic, mqtt):
    assert is_mqtt(topic) is mqtt


def test_mqtt():
    heard = Heard(AT, "dt/a/b/c/d", b'{"x": 1}')
    assert as_text(heard) == ("16:56:29.438 dt/a/b/c/d", '{"x": 1}')
    assert json.loads(as_json(heard)) == {
        "at": "2024-11-30T16:56:29.438+00:00", "topic": "dt/a/b/c/d", "payload": '{"x": 1}'
    }  # fmt: skip


def test_kafka():
    heard = Heard(AT, "sensor", b"{}", b"79", "3/1042", (("weir", b"reading"),))
    assert as_text(heard) == ("16:56:29.438 3/1042 79 weir=reading", "{}")
    assert json.loads(as_json(heard)) | {"at": ""} == {
        "at": "", "topic": "sensor", "partition": 3, "offset": 1042, "key": "79", "headers": {"weir": "reading"},
        "payload": "{}",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "reading"),
    [((), True), ((("weir", b"reading"),), True), ((("weir", b"heartbeat"),), False), ((("weir", b"control"),), False)],
)
def test_marks(headers, reading):
    assert Heard(AT, "sensor", b"", headers=headers).is_reading is reading


def test_bytes_that_are_no_text():
    heard = Heard(AT, "sensor", b"\xff\x00a")
    assert as_text(heard)[1] == "\\xff\\x00a"
    assert json.loads(as_json(heard))["payload_base64"] == "/wBh"


def test_a_device_cannot_write_on_the_terminal():
    assert as_text(Heard(AT, "t/\x1b", b"\x1b[2J\n"))[1] == "\\x1b[2J\\n"
    assert "\x1b" not in as_text(Heard(AT, "t/\x1b", b""))[0]


def test_long_payloads_are_cut_for_people_only():
    heard = Heard(AT, "sensor", b"x" * 5000)
    assert as_text(heard)[1] == "x" * MAX_SHOWN + "… (5,000 bytes)"
    assert json.loads(as_json(heard))["payload"] == "x" * 5000


def test_dead_letters_show_the_original():
    letter = dead_letter_of_message(Reject("not_utf8", "byte 1 is not UTF-8", "weather"), "dt/w", b'{"\xff', 5_000_000)
    said = as_text(Heard(AT, "readings.rejected", encode_dead_letter(letter)))[1]
    assert said.startswith("not_utf8: byte 1 is not UTF-8 (") and said.endswith('{"\\xff')
    assert "mqtt_topic=dt/w" in said
    assert as_text(Heard(AT, "readings.rejected", b"no json"))[1] == "no json"
