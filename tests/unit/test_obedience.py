"""What simulated devices make of commands."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.reading import Reading
from simulators.message import Fault, Message
from simulators.obedience import SLOWEST_US, Obedience, obeying
from tests.mangled import mangled

NOW = 1_767_571_200_000_000
LATER = NOW + SLOWEST_US


def topic(type_name: str = "lamp", device: str = "l1") -> str:
    return f"cmd/home/home-1/{type_name}/{device}"


def told(command: str, number: int = 1, **more: object) -> bytes:
    return json.dumps({"id": f"c{number}", "command": command, **more}).encode()


def reading(type_name: str = "lamp", device: str = "l1", **values: float) -> Reading:
    return Reading(device, type_name, "home-1", NOW, values)


def answered(obedience: Obedience, where: str, payload: bytes, now_us: int = NOW) -> dict[str, str]:
    answer = obedience.command(where, payload, now_us)
    assert answer is not None and answer.topic == f"{where}/answer"
    return json.loads(answer.payload)


LAMP_OFF = reading(on=0, brightness=0)
OBEYED = [
    ("lamp on", topic(), told("on"), LAMP_OFF, {"on": 1, "brightness": 80}),
    ("lamp off", topic(), told("off"), reading(on=1, brightness=80), {"on": 0, "brightness": 0}),
    ("lamp dim", topic(), told("dim", args={"level": 40}), LAMP_OFF, {"on": 1, "brightness": 40}),
    (
        "thermostat that has to heat", topic("thermostat", "t1"), told("set", args={"celsius": 22}),
        reading("thermostat", "t1", temperature=20, setpoint=17.5, heating=0),
        {"temperature": 20, "setpoint": 22, "heating": 1},
    ),
    (
        "thermostat that is warm enough", topic("thermostat", "t1"), told("set", args={"celsius": 18}),
        reading("thermostat", "t1", temperature=20, setpoint=20.5, heating=1),
        {"temperature": 20, "setpoint": 18, "heating": 0},
    ),
    (
        "plug off", topic("smart_plug", "p1"), told("off"), reading("smart_plug", "p1", on=1, power=110, energy=5.5),
        {"on": 0, "power": 0, "energy": 5.5},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("where", "payload", "before", "after"), [c[1:] for c in OBEYED], ids=[c[0] for c in OBEYED])
def test_obeyed_after_a_moment(where: str, payload: bytes, before: Reading, after: dict[str, float]) -> None:
    obedience = Obedience(refuses=0)
    assert answered(obedience, where, payload) == {"id": "c1", "state": "delivered"}
    assert obedience.applied(before, NOW).values == before.values
    assert obedience.applied(before, LATER).values == after
    other = reading(before.device_type, "another", **before.values)
    assert obedience.applied(other, LATER) is other


def test_the_last_command_counts() -> None:
    obedience = Obedience(refuses=0)
    answered(obedience, topic(), told("on"))
    answered(obedience, topic(), told("off", 2), LATER)
    assert obedience.applied(LAMP_OFF, LATER).values["on"] == 1
    assert obedience.applied(LAMP_OFF, LATER + SLOWEST_US).values["on"] == 0


def test_a_plugs_counter_stands_while_it_is_off_and_goes_on_from_there() -> None:
    obedience = Obedience(refuses=0)
    where = topic("smart_plug", "p1")

    def counts(energy: float, now_us: int) -> float | None:
        return obedience.applied(reading("smart_plug", "p1", on=1, power=100, energy=energy), now_us).values["energy"]

    answered(obedience, where, told("off"))
    assert [counts(energy, LATER) for energy in (10, 12, 14)] == [10, 10, 10]
    answered(obedience, where, told("on", 2), LATER)
    assert [counts(energy, LATER + SLOWEST_US) for energy in (16, 18)] == [10, 12]
    assert [counts(energy, LATER + SLOWEST_US) for energy in (1, 3)] == [1, 3], "it was reset"


REFUSED = [
    ("expired", topic(), told("on", expires=NOW / 1e6 - 1), "expired"),
    ("unknown", topic(), told("explode"), "unknown command explode"),
    ("of another type", topic("thermostat"), told("on"), "unknown command on"),
    ("argument", topic(), told("dim"), "argument level is missing"),
]


@pytest.mark.parametrize(("where", "payload", "reason"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED])
def test_refused(where: str, payload: bytes, reason: str) -> None:
    obedience = Obedience(refuses=0)
    assert answered(obedience, where, payload) == {"id": "c1", "state": "refused", "reason": reason}
    assert obedience.applied(LAMP_OFF, LATER) is LAMP_OFF


def test_now_and_then_a_device_is_busy() -> None:
    obedience = Obedience(refuses=0.02)
    said = [answered(obedience, topic(), told("on", number))["state"] for number in range(2000)]
    assert 20 <= said.count("refused") <= 60
    assert obedience.counts == {"delivered": said.count("delivered"), "refused": said.count("refused")}


def test_a_command_that_comes_again_is_answered_again_and_not_obeyed_again() -> None:
    obedience = Obedience(refuses=0)
    first = answered(obedience, topic(), told("on"))
    answered(obedience, topic(), told("off", 2), NOW + SLOWEST_US)
    assert answered(obedience, topic(), told("on"), LATER + SLOWEST_US) == first
    assert obedience.applied(LAMP_OFF, LATER + 3 * SLOWEST_US).values["on"] == 0


@pytest.mark.parametrize(
    ("where", "payload"),
    [(topic(), b"{"), (topic(), b'{"command": "on"}'), (topic(), b"\xff"), ("cmd/home", told("on"))],
    ids=["no JSON", "no id", "not UTF-8", "another topic"],
)
def test_what_nobody_understands_is_not_answered(where: str, payload: bytes) -> None:
    assert Obedience().command(where, payload, NOW) is None


def test_a_stream_of_messages_is_as_commanded_from_when_it_was_heard() -> None:
    commands = [[], [(topic(), told("on"))], [], []]
    answers: list[tuple[str, bytes]] = []
    clock = iter(range(NOW, NOW + 100 * SLOWEST_US, SLOWEST_US))
    messages = [Message(number, NOW, LAMP_OFF) for number in range(3)]
    messages.append(Message(3, NOW, LAMP_OFF, Fault("truncated"), b"{"))
    obedience = Obedience(refuses=0)
    found = [
        *obeying(messages, obedience, lambda: commands.pop(0), lambda *a: answers.append(a), lambda: next(clock))
    ]  # fmt: skip
    assert [message.reading.values["on"] for message in found] == [0, 1, 1, 0]
    assert found[3].raw == b"{"
    assert answers == [(f"{topic()}/answer", b'{"id":"c1","state":"delivered"}')]


words = st.sampled_from(["lamp", "thermostat", "smart_plug", "on", "dim", "set", "l1", "", "+", "answer"]) | st.text(
    max_size=4
)
topics = st.lists(words, max_size=6).map(lambda levels: "/".join(["cmd", "home", *levels])) | st.sampled_from(
    [topic(), topic("thermostat")]
)
fields = st.fixed_dictionaries(
    {"id": st.text(max_size=5), "command": st.sampled_from(["on", "dim", "set"]) | st.text(max_size=5)},
    optional={
        "args": st.dictionaries(
            st.sampled_from(["level", "celsius"]) | st.text(max_size=3), st.floats() | st.integers()
        ),
        "expires": st.floats() | st.none() | st.text(max_size=3),
        "more": st.lists(st.text(max_size=3), max_size=2),
    },
)
commands = fields.map(lambda said: json.dumps(said).encode())


@given(topics, commands | commands.flatmap(mangled) | st.binary(max_size=60))
def test_any_bytes_are_answered_once_or_nobody_understands_them(where: str, payload: bytes) -> None:
    obedience = Obedience(refuses=0)
    answer = obedience.command(where, payload, NOW)
    assert sum(obedience.counts.values()) == (answer is not None)
    assert obedience.command(where, payload, LATER) == answer
    if answer is not None:
        said = json.loads(answer.payload)
        assert (answer.topic, said["id"]) == (f"{where}/answer", json.loads(payload)["id"])
        assert (said["state"], "reason" in said) in [("delivered", False), ("refused", True)]
    for device in (LAMP_OFF, reading("thermostat", "l1", temperature=20, setpoint=17, heating=0)):
        assert set(obedience.applied(device, LATER + SLOWEST_US).values) == set(device.values)


def test_however_deep_a_command_nests_it_holds_up_no_other() -> None:
    obedience = Obedience(refuses=0)
    for depth in range(sys.getrecursionlimit() - 200, 2 * sys.getrecursionlimit(), 10):
        assert obedience.command(topic(), told("on", more="deep").replace(b'"deep"', b"[" * depth), NOW) is None
    assert answered(obedience, topic(), told("on"))["state"] == "delivered"
