"""How a command stands after what a device says, what its readings show, and the time."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.channels import ANSWERS, Address, command_topic, parse_answer_topic
from fleet.command_state import (
    GRACE,
    LONGEST_REASON,
    UNDER_WAY,
    Answer,
    Command,
    Move,
    Standing,
    answered,
    decode_answer,
    encode_command,
    overdue,
    rule_command_id,
    seen,
    target_site,
    unsent,
)
from fleet.errors import CommandError
from fleet.reading import Reading, to_epoch_us

SENT_AT = datetime(2026, 11, 22, 10, 0, 0, 250_700, UTC)
EXPIRES_AT = SENT_AT + timedelta(seconds=60)
STATES = ("requested", "sent", "delivered", "obeyed", "refused", "expired")


def command(state: str = "sent", **changes: Any) -> Command:
    given: dict[str, Any] = {
        "command_id": "c1", "system": "home", "type": "lamp", "device_id": "lamp-1", "site": "home-1", "command": "dim",
        "args": {"level": 40.0}, "sets": {"brightness": 40.0, "on": 1.0}, "state": state, "requested_at": SENT_AT,
        "expires_at": EXPIRES_AT, "sent_at": None if state == "requested" else SENT_AT,
    }  # fmt: skip
    return Command(**given | changes)


def reading(seconds: float, **values: float | None) -> Reading:
    at_us = to_epoch_us(SENT_AT + timedelta(seconds=seconds)) // 1000 * 1000
    return Reading("lamp-1", "lamp", "home-1", at_us, values)


@pytest.mark.parametrize(
    ("state", "answer", "move"),
    [
        ("requested", "delivered", "delivered"), ("requested", "refused", "refused"),
        ("sent", "delivered", "delivered"), ("sent", "refused", "refused"),
        ("delivered", "delivered", None), ("delivered", "refused", "refused"),
        *((state, answer, None) for state in STATES[3:] for answer in ("delivered", "refused")),
    ],
)  # fmt: skip
def test_answers(state: str, answer: str, move: str | None) -> None:
    found = answered(command(state), Answer("c1", answer, "why"))
    assert found == (None if move is None else Move(move, "why"))


@pytest.mark.parametrize("state", STATES)
def test_only_what_was_sent_is_obeyed(state: str) -> None:
    found = seen(command(state), reading(1, on=1, brightness=40))
    assert found == (Move("obeyed") if state in ("sent", "delivered") else None)


READINGS = [
    ("all at once", [(1, {"on": 1, "brightness": 40})], True),
    ("in the millisecond of sending", [(0, {"on": 1, "brightness": 40})], True),
    ("before it was sent", [(-0.002, {"on": 1, "brightness": 40})], False),
    ("at the end", [(59.999, {"on": 1, "brightness": 40})], True),
    ("after the end", [(60.01, {"on": 1, "brightness": 40})], False),
    ("one after the other", [(1, {"on": 1}), (2, {"brightness": 40})], True),
    ("one of two", [(1, {"on": 1}), (2, {"on": 1})], False),
    ("not yet, then", [(1, {"on": 0, "brightness": 40}), (2, {"on": 1})], True),
    ("no more", [(1, {"on": 1}), (2, {"on": 0}), (3, {"brightness": 40})], False),
    ("null is not told", [(1, {"on": 1, "brightness": 40.0000001})], True),
    ("unknown", [(1, {"on": 1, "brightness": None})], False),
    ("nearly is not", [(1, {"on": 1, "brightness": 40.1})], False),
    ("something else", [(1, {"energy": 4})], False),
]


@pytest.mark.parametrize(("readings", "obeyed"), [r[1:] for r in READINGS], ids=[r[0] for r in READINGS])
def test_readings(readings: list[tuple[float, dict[str, float | None]]], obeyed: bool) -> None:
    found = [seen(one, reading(at, **values)) for one in [command()] for at, values in readings]
    assert (found[-1] == Move("obeyed")) is obeyed


def test_what_sets_nothing_is_never_obeyed() -> None:
    assert seen(command(sets={}), reading(1, on=1, brightness=40)) is None


@pytest.mark.parametrize(
    ("state", "seconds", "says"),
    [
        ("requested", 99, None),
        ("sent", 61, None),
        ("sent", 62, "the device did not answer; by its readings brightness was not told, on is 0, not 1"),
        ("delivered", 62, "the device has it; by its readings brightness was not told, on is 0, not 1"),
        ("obeyed", 99, None),
        ("refused", 99, None),
        ("expired", 99, None),
    ],
)
def test_time(state: str, seconds: float, says: str | None) -> None:
    found = overdue(command(state, shown={"on": 0.0}), SENT_AT + timedelta(seconds=seconds))
    assert found == (None if says is None else Move("expired", says))
    assert timedelta(seconds=2) == GRACE


EARLIER = [
    ("all of before", [(-7200, {"on": 1.0}), (-3600, {"on": 1.0}), (-5000, {"on": 1.0})], True),
    ("of something else", [(-3600, {"energy": 1.0})], False),
    ("and then of now", [(-3600, {"on": 1.0}), (1, {"on": 0.0})], False),
    ("on its way", [(-2, {"on": 1.0})], False),
    ("none", [], False),
]


@pytest.mark.parametrize(("readings", "told"), [r[1:] for r in EARLIER], ids=[r[0] for r in EARLIER])
def test_readings_of_before_are_told(readings: list[tuple[float, dict[str, float | None]]], told: bool) -> None:
    """As of a simulation faster than time: what the device does now shows at event times long past."""
    one = command("delivered")
    assert [seen(one, reading(at, **values)) for at, values in readings] == [None] * len(readings)
    found = overdue(one, SENT_AT + timedelta(seconds=62))
    assert found is not None
    assert ("the last of 2026-11-22 09:00:00 UTC" in found.reason) is told
    assert ("of before" in found.reason) is told


@pytest.mark.parametrize(
    ("seconds", "sent_at", "move"),
    [
        (59, None, None),
        (60, None, Move("expired", "it was not sent in time")),
        (59, SENT_AT, None),
        (60, SENT_AT, Move("sent", "the broker did not confirm it")),
    ],
)
def test_what_was_not_sent_in_time(seconds: float, sent_at: datetime | None, move: Move | None) -> None:
    assert unsent(command("requested", sent_at=sent_at), SENT_AT + timedelta(seconds=seconds)) == move


EVENTS = st.one_of(
    st.builds(Answer, st.just("c1"), st.sampled_from(["delivered", "refused"])),
    st.builds(lambda at, on: reading(at, on=on, brightness=40), st.integers(-5, 70), st.sampled_from([0, 1])),
    st.builds(lambda at: SENT_AT + timedelta(seconds=at), st.integers(0, 200)),
)


@given(st.sampled_from(UNDER_WAY), st.lists(EVENTS, max_size=12))
def test_a_command_moves_forward_and_ends_once(first: str, events: list[Any]) -> None:
    one, ends = command(first), 0
    for event in events:
        before = one.state
        if isinstance(event, Answer):
            move = answered(one, event)
        else:
            move = seen(one, event) if isinstance(event, Reading) else overdue(one, event)
        if move is not None:
            one.state = move.state
            assert STATES.index(move.state) > STATES.index(before)
            ends += move.state not in UNDER_WAY
    assert ends <= 1


def test_what_the_device_gets() -> None:
    assert encode_command(command()) == (
        b'{"id":"c1","command":"dim","args":{"level":40.0},"expires":' + str(1795341660.251).encode() + b"}"
    )


@given(st.binary(max_size=400))
def test_no_bytes_break_the_reader(payload: bytes) -> None:
    assert decode_answer(payload) is None or json.loads(payload)["state"] in ("delivered", "refused")


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"[]", b'{"id": "c1"}', b'{"id": 1, "state": "delivered"}', b'{"id": "c1", "state": "obeyed"}',
     b'{"id": "c1", "state": "refused", "reason": 4}', b"[" * 100_000, b'{"id": "\xff", "state": "refused"}'],
)  # fmt: skip
def test_what_is_no_answer(payload: bytes) -> None:
    assert decode_answer(payload) is None


def test_a_reason_that_no_table_can_take() -> None:
    answer = decode_answer(json.dumps({"id": "c1", "state": "refused", "reason": "a\0b\n" + "c" * 999}).encode())
    assert answer is not None
    assert answer.reason == "a b " + "c" * (LONGEST_REASON - 4)


def test_topics() -> None:
    topic = command_topic(Address("home", "home-1", "lamp", "lamp-1"))
    assert topic == "cmd/home/home-1/lamp/lamp-1"
    assert parse_answer_topic(f"{topic}/answer") == ("home", "home-1", "lamp", "lamp-1", None)
    assert ANSWERS.count("/") == f"{topic}/answer".count("/")


@pytest.mark.parametrize(
    "topic",
    ["cmd/home/home-1/lamp/lamp-1", "dt/home/h/lamp/l/answer", "cmd/home/h/lamp/l/x", "cmd/home//lamp/l/answer"],
)
def test_topics_that_are_none_of_an_answer(topic: str) -> None:
    assert parse_answer_topic(topic) is None


@pytest.mark.parametrize(
    ("via", "device", "says"),
    [
        ("cli", None, "the registry has no lamp lamp-1"),
        ("rule", None, "the registry has no lamp lamp-1"),
        ("cli", Standing("home-1", SENT_AT), "is retired since 2026-11-22 10:00:00 UTC"),
        ("rule", Standing("home-2"), "stands at home-2, the alert is of home-1"),
        ("cli", Standing("home-2"), ""),
        ("rule", Standing("home-1"), ""),
    ],
)
def test_where_a_command_goes(via: str, device: Standing | None, says: str) -> None:
    one = command(via=via)
    if not says:
        assert device is not None and target_site(one, device) == device.site
        return
    with pytest.raises(CommandError) as error:
        target_site(one, device)
    assert says in str(error.value)


def test_ids_of_rules_are_one_for_each_action_and_device() -> None:
    made = [("t-1", 0, "lamp", "a"), ("t-1", 0, "lamp", "b"), ("t-1", 1, "lamp", "a"), ("t-2", 0, "lamp", "a")]
    ids = [rule_command_id(*one) for one in made]
    assert len(set(ids)) == 4 and ids == [rule_command_id(*one) for one in made]
