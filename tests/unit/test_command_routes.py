"""The routes of commands in the gateway's application, without servers: who is let in, and how faults are told."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import CommandConflict, CommandError, Unavailable
from fleet.problem import MEDIA_TYPE, REFUSALS
from fleet.settings import Settings
from streaming import command_routes
from streaming.gateway_http import create_app
from tests.mangled import mangled
from tests.unit import gateway

GOOD = {"device": "lamp-1", "command": "on", "id": "c1"}
SETTINGS = Settings(operator_token="operators", gateway_body_seconds=0.2)


class Asked:
    """What came to the checks; `wrong` is what they say."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.wrong: Exception | None = None
        self.is_new = True

    def request(self, _: Any, __: Any, device: str, command: str, args: Any, **more: Any) -> tuple[str, bool]:
        if self.wrong:
            raise self.wrong
        self.commands.append(command)
        return more["command_id"], self.is_new

    def found(self, _: Any, command_id: str) -> dict[str, Any]:
        if self.wrong:
            raise self.wrong
        return {"command_id": command_id, "state": "requested"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    made = Asked()
    monkeypatch.setattr(command_routes, "request", made.request)
    monkeypatch.setattr(command_routes, "found", made.found)
    return made


def ask(
    content: Any = None, token: str = "operators", method: str = "POST", path: str = "", settings: Settings = SETTINGS,
    **headers: str,
) -> tuple[httpx.Response, Any]:  # fmt: skip
    """(the answer, what the gateway counted as refused)"""
    gate = gateway.gate()
    nothing: Any = None

    async def answer() -> httpx.Response:
        routers = [command_routes.routes(settings, nothing, lambda: gateway.CATALOG)]
        transport = httpx.ASGITransport(create_app(gate, routers), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            own = {"Authorization": f"Bearer {token}"} if token else {}
            return await client.request(method, f"/v1/commands{path}", content=content, headers=own | headers)

    return asyncio.run(answer()), dict(gate.tallies.refused)


def is_told(answer: httpx.Response, counted: Any, status: int, reason: str, says: str = "") -> None:
    said = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (status, MEDIA_TYPE)
    document = command_routes.POST if answer.request.method == "POST" else command_routes.GET
    assert status in document["responses"]
    assert (said["type"], said["reason"], said["status"]) == (f"urn:weir:problem:{reason}", reason, status)
    assert said["title"] == REFUSALS[reason][1] and says in said["detail"]
    assert counted == {("http", reason): 1}


@pytest.mark.parametrize(("is_new", "status"), [(True, 202), (False, 200)], ids=["new", "asked for before"])
def test_a_command_is_taken(asked: Asked, is_new: bool, status: int) -> None:
    asked.is_new = is_new
    answer, counted = ask(json.dumps(GOOD))
    assert (answer.status_code, answer.headers["Location"]) == (status, "/v1/commands/c1")
    assert (answer.json()["state"], asked.commands, counted) == ("requested", ["on"], {})
    assert ask(method="GET", path="/c1")[0].json()["command_id"] == "c1"


@pytest.mark.parametrize(
    ("token", "reason"),
    [("", "no_token"), ("token_lamp", "wrong_token"), ("operators2", "wrong_token")],
    ids=["none", "a device's", "nearly"],
)
def test_nobody_else_is_let_in_and_what_they_send_is_not_read(asked: Asked, token: str, reason: str) -> None:
    read: list[bytes] = []

    async def body() -> AsyncIterator[bytes]:
        read.append(b"{}")
        yield b"{}"

    answer, counted = ask(body(), token)
    is_told(answer, counted, 401, reason, "WEIR_OPERATOR_TOKEN")
    assert (answer.headers["WWW-Authenticate"], read, asked.commands) == ("Bearer", [], [])
    is_told(*ask(token=token, method="GET", path="/c1"), 401, reason)


def test_without_a_token_of_its_own_the_gateway_lets_nobody_in(asked: Asked) -> None:
    is_told(*ask(b"{}", "", settings=Settings()), 401, "no_token")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ([], "the body: "),
        ({"device": "lamp-1"}, "command: Field required"),
        ({**GOOD, "colour": "red"}, "colour: "),
        ({**GOOD, "\ud800": 1}, "the body: Invalid JSON"),
        ({**GOOD, "args": {"level": "high"}}, "args.level: "),
        ({**GOOD, "args": {"level": float("inf")}}, "args.level: "),
        ({**GOOD, "device": 1}, "device: "),
        (b"{", "the body: Invalid JSON"),
        (b"\xff", "the body: Invalid JSON"),
        (b"", "the body: Invalid JSON"),
    ],
)
def test_what_is_no_command(asked: Asked, body: Any, says: str) -> None:
    is_told(*ask(body if isinstance(body, bytes) else json.dumps(body)), 422, "not_a_command", says)
    assert asked.commands == []


@pytest.mark.parametrize(
    ("wrong", "status", "reason"),
    [
        (CommandError("a lamp knows no command"), 422, "no_such_command"),
        (CommandConflict("another one already"), 409, "command_conflict"),
        (Unavailable("the database"), 503, "commands_unavailable"),
    ],
)
def test_what_the_checks_say(asked: Asked, wrong: Exception, status: int, reason: str) -> None:
    asked.wrong = wrong
    is_told(*ask(json.dumps(GOOD)), status, reason, str(wrong))


def test_a_command_that_is_none(asked: Asked) -> None:
    asked.wrong = CommandError("no command")
    is_told(*ask(method="GET", path="/c2"), 404, "unknown_command", "no command")


def test_a_body_of_another_kind_too_large_or_too_slow(asked: Asked) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    is_told(*ask(b"{}", **{"Content-Type": "text/plain"}), 415, "unsupported_media_type", "application/json")
    is_told(*ask(b" " * 20_000), 413, "body_too_large", "16,384 bytes")
    is_told(*ask(slowly()), 408, "too_slow")


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
new_commands = st.fixed_dictionaries(
    {},
    optional={
        "device": st.sampled_from(["lamp-1", ""]) | json_values,
        "command": st.just("on") | json_values,
        "args": st.dictionaries(st.text(max_size=3), scalars, max_size=3) | json_values,
        **dict.fromkeys(("type", "id", "by", "why", "x"), json_values),
    },
)
new_bodies = (st.just(GOOD) | new_commands | json_values).map(lambda body: json.dumps(body).encode())


@given(new_bodies | new_bodies.flatmap(mangled) | st.binary(max_size=60))
def test_any_body_is_a_command_or_told_why_it_is_none(body: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        made = Asked()
        patch.setattr(command_routes, "request", made.request)
        patch.setattr(command_routes, "found", made.found)
        answer, counted = ask(body)
    if made.commands:
        assert (answer.status_code, made.commands, counted) == (202, [json.loads(body)["command"]], {})
    else:
        is_told(answer, counted, 422, "not_a_command")
