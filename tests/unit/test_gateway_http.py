"""HTTP's answers: what is taken, what is refused and why, and what is left of it. The application without a server."""

import asyncio
import json
import socket
import time
from contextlib import suppress
from html import unescape

import httpx
import pytest
from fastapi import APIRouter
from hypothesis import given
from hypothesis import strategies as st

from fleet.contract import MAX_PAYLOAD_BYTES, REASONS
from fleet.problem import MEDIA_TYPE, REFUSALS
from fleet.reading import encode_reading
from streaming import command_routes, gateway_http
from streaming.gateway import MAX_BODIES, MAX_BODY_BYTES, MAX_READINGS
from streaming.gateway_http import create_app
from streaming.gateway_page import SECURITY
from tests.unit import gateway

NOW = "2026-11-01T07:30:00Z"


def climate(**changes):
    return {"device_id": "c1", "event_time": NOW, "values": {"temperature": 20.5}, **changes}


def ask(gate, body=None, token="token_room_climate", method="POST", path="/v1/readings", routers=(), **headers):
    """Body: bytes as they are, or what JSON is made of."""

    async def answer():
        app = create_app(gate, routers)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            own = {"Authorization": f"Bearer {token}"} if token else {}
            return await client.request(method, path, content=content, headers=own | headers)

    return asyncio.run(answer())


@pytest.mark.parametrize(
    ("body", "token", "kind", "topics"),
    [
        (climate(), "token_room_climate", "application/json", ["readings.home"]),
        ([climate(), climate(seq=2)], "token_room_climate", "application/json; charset=utf-8", ["readings.home"] * 2),
        (
            [{"n": "temperature", "u": "Cel", "v": 20.5}],
            "token_room_climate",
            "application/senml+json",
            ["readings.home"],
        ),
        (
            {"device_id": "79", "event_time": 1_790_000_000_000, "values": {"uv_index": 3}},
            "token_weather_station",
            "application/json",
            ["sensor"],
        ),
        (
            {"device_id": "s5", "event_time": NOW, "values": {"co2": 400, "occupancy": 2}},
            "token_room_node",
            "application/json",
            ["readings.occupancy", "occupancy.co2", "readings.occupancy"],
        ),
    ],
    ids=["one", "a batch", "senml", "a type with a form of its own", "a type with a metric a message"],
)
def test_what_is_taken_is_in_kafka_where_its_type_belongs(body, token, kind, topics):
    gate = gateway.gate()
    answer = ask(gate, body, token, **{"content-type": kind})
    taken = len(body) if isinstance(body, list) else 1
    assert (answer.status_code, answer.json()) == (202, {"accepted": taken})
    assert [topic for topic, _ in gate.deposit.readings] == topics
    assert {reading.site for _, reading in gate.deposit.readings} == {"home-1"}  # where the registry has it
    assert gate.tallies.accepted == {"http": taken}


@pytest.mark.parametrize(
    ("changes", "status", "reason", "field"),
    [
        ({"values": {"temperature": "warm"}}, 422, "wrong_type", "temperature"),
        ({"values": {"pressure": 1}}, 422, "unknown_metric", "pressure"),
        ({"values": {}}, 422, "missing_field", "values"),
        ({"values": 3}, 422, "wrong_type", "values"),
        ({"colour": "red"}, 422, "unknown_metric", "colour"),
        ({"event_time": "yesterday"}, 422, "bad_time", "event_time"),
        ({"event_time": 1_790_000_000}, 422, "bad_time", "event_time"),
        ({"event_time": "2099-01-01T00:00:00Z"}, 422, "future_time", "event_time"),
        ({"event_time": None}, 422, "wrong_type", "event_time"),
        ({"seq": 1.5}, 422, "wrong_type", "seq"),
        ({"seq": 2**63}, 422, "wrong_type", "seq"),
        ({"device_id": "c2"}, 403, "identity_mismatch", "device_id"),
        ({"device_id": "c 1"}, 422, "bad_id", "device_id"),
        ({"site": "home-2"}, 403, "identity_mismatch", "site"),
        ({"device_type": "lamp"}, 403, "identity_mismatch", "device_type"),
        ({"padding": "x" * MAX_PAYLOAD_BYTES}, 413, "oversized", None),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
def test_a_reading_that_is_none_is_a_dead_letter_and_an_answer_that_names_the_field(changes, status, reason, field):
    gate, body = gateway.gate(), json.dumps(climate(**changes)).encode()
    answer = ask(gate, body)
    said = answer.json()
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert (answer.status_code, said["status"], said["reason"], said.get("field")) == (status, status, reason, field)
    assert said["type"] == f"urn:weir:problem:{reason}"
    assert said["accepted"] == 0
    (letter,) = gate.deposit.letters
    assert (letter.reason, letter.payload, letter.mqtt_topic) == (reason, body, "http/home/home-1/room_climate/c1")
    assert gate.tallies.rejected == {("http", reason, "room_climate"): 1}


def test_the_good_of_a_batch_are_taken_and_the_bad_are_named():
    gate = gateway.gate()
    answer = ask(gate, [climate(seq=1), climate(values={"humidity": "wet"}), climate(seq=3), climate(device_id="c2")])
    said = answer.json()
    assert (answer.status_code, said["accepted"], said["rejected"]) == (422, 2, 2)
    assert [(e["index"], e["reason"], e["field"]) for e in said["errors"]] == [
        (1, "wrong_type", "humidity"),
        (3, "identity_mismatch", "device_id"),
    ]
    assert [reading.seq for _, reading in gate.deposit.readings] == [1, 3]
    assert len(gate.deposit.letters) == 2


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (b"[{", "application/json", "malformed_json"),
        (b"[]", "application/json", "malformed_json"),
        (b"[1]", "application/json", "malformed_json"),
        (b"", "application/json", "malformed_json"),
        (b"\xff\xfe", "application/json", "not_utf8"),
        (b"[" * 200_000, "application/json", "malformed_json"),
        (b"{", "application/senml+json", "malformed_json"),
        (b'[{"n":"temperature","u":"Far","v":1}]', "application/senml+json", "wrong_unit"),
    ],
)
def test_a_body_that_cannot_be_read_is_one_dead_letter(body, kind, reason):
    gate = gateway.gate()
    answer = ask(gate, body, **{"content-type": kind})
    assert answer.json()["reason"] == reason
    (letter,) = gate.deposit.letters
    assert letter.payload in (body, body.strip(b"[]"))
    assert letter.mqtt_topic.partition("/")[0] == ("http+senml" if "senml" in kind else "http")


@pytest.mark.parametrize(
    ("token", "status", "reason"),
    [
        ("", 401, "no_token"),
        ("nobody's", 401, "wrong_token"),
        ("x" * 5000, 401, "wrong_token"),
        ("token_old", 401, "token_ended"),
    ],
)
def test_who_shows_no_valid_token_leaves_nothing(token, status, reason):
    gate = gateway.gate()
    answer = ask(gate, climate(), token)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert not gate.deposit.records
    assert gate.tallies.refused == {("http", reason): 1}


@pytest.mark.parametrize(
    ("token", "device", "reason"),
    [("token_retired", "lamp-2", "retired_device"), ("token_nobody", "lamp-3", "unknown_device")],
)
def test_a_valid_token_does_not_make_a_device(token, device, reason):
    gate = gateway.gate()
    answer = ask(gate, {"device_id": device, "event_time": NOW, "values": {"on": True}}, token)
    assert (answer.status_code, answer.json()["reason"]) == (403, reason)
    assert [letter.reason for letter in gate.deposit.letters] == [reason]


@pytest.mark.parametrize(
    ("body", "headers", "status", "reason"),
    [
        (b"x" * (MAX_BODY_BYTES + 1), {}, 413, "body_too_large"),
        (b"1,2", {"content-type": "text/csv"}, 415, "unsupported_media_type"),
        ([climate()] * (MAX_READINGS + 1), {}, 413, "too_many_readings"),
    ],
    ids=["too large", "another kind", "too many"],
)
def test_what_is_not_read_leaves_nothing(body, headers, status, reason):
    gate = gateway.gate()
    answer = ask(gate, body, **headers)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert not gate.deposit.records


def test_who_sends_too_much_is_told_when_to_go_on():
    clock = [0.0]
    gate = gateway.gate(gateway.SETTINGS.model_copy(update={"gateway_readings_per_second": 10.0}), lambda: clock[0])
    many = [climate(seq=n) for n in range(MAX_READINGS)]
    assert ask(gate, many).status_code == 202
    answer = ask(gate, climate())
    assert (answer.status_code, answer.json()["reason"], answer.headers["retry-after"]) == (429, "rate_limited", "1")
    assert ask(gate, {"device_id": "lamp-1", "event_time": NOW, "values": {"on": 1}}, "token_lamp").status_code == 202
    clock[0] = 0.2
    assert ask(gate, climate()).status_code == 202


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"[" + b"1," * 300_000 + b"1]", "application/json"),
        (b"[" + b"{}," * 200_000 + b"{}]", "application/senml+json"),
        (b" " * 600_000, "application/json"),
    ],
    ids=["far too many readings", "far too many records", "nothing at all"],
)
def test_a_body_is_paid_for_before_it_is_looked_at(body, kind):
    gate = gateway.gate()
    reasons = [ask(gate, body, **{"content-type": kind}).json()["reason"] for _ in range(5)]
    assert (reasons.count("rate_limited"), reasons[-1]) == (2, "rate_limited")


def test_of_bodies_that_do_not_come_a_device_has_a_few():
    gate = gateway.gate()

    async def scenario():
        go_on, begun = asyncio.Event(), []

        async def body():
            begun.append(True)
            await go_on.wait()
            yield json.dumps(climate()).encode()

        transport = httpx.ASGITransport(create_app(gate))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:

            async def post(content, token="token_room_climate"):
                headers = {"Authorization": f"Bearer {token}"}
                return (await client.post("/v1/readings", content=content, headers=headers)).status_code

            waiting = [asyncio.create_task(post(body())) for _ in range(MAX_BODIES)]
            while len(begun) < MAX_BODIES:
                await asyncio.sleep(0)
            lamp = json.dumps({"device_id": "lamp-1", "event_time": NOW, "values": {"on": 1}})
            meanwhile = [await post(json.dumps(climate())), await post(lamp, "token_lamp")]
            go_on.set()
            return meanwhile, await asyncio.gather(*waiting), await post(json.dumps(climate()))

    assert asyncio.run(asyncio.wait_for(scenario(), 60)) == ([429, 202], [202] * MAX_BODIES, 202)


def test_without_kafka_nothing_is_acknowledged():
    gate = gateway.gate()
    gate.deposit.problem = "nothing answers at Kafka's address"
    answer = ask(gate, climate())
    assert (answer.status_code, answer.json()["reason"]) == (503, "kafka_unavailable")
    assert int(answer.headers["retry-after"]) >= 5
    assert not gate.tallies.accepted
    assert ask(gate, method="GET").status_code == 204


def test_before_the_registry_was_read_nobody_is_refused_for_good():
    gate = gateway.gate()
    gate.badges.is_known.clear()
    assert ask(gate, climate(), "unknown").status_code == 503
    gate.badges.is_known.set()
    gate._admission.is_known.clear()
    assert ask(gate, climate()).json()["reason"] == "registry_unavailable"
    station = {"device_id": "79", "event_time": NOW, "values": {"uv_index": 3}}
    assert ask(gate, station, "token_weather_station").status_code == 202  # it would register itself


def test_the_last_reading_is_the_devices_own_and_the_newest():
    gate = gateway.gate()
    assert ask(gate, method="GET").status_code == 204
    ask(gate, [climate(seq=1, event_time="2026-11-02T00:00:00Z"), climate(seq=2)])
    answer = ask(gate, method="GET")
    newest = next(reading for _, reading in gate.deposit.readings if reading.seq == 1)
    assert (answer.status_code, answer.content) == (200, encode_reading(newest))
    assert ask(gate, method="GET", token="token_lamp").status_code == 204


WHOSE = {
    "POST /v1/readings": "token",
    "GET /v1/readings": "token",
    "POST /v1/commands": "operator",
    "GET /v1/commands/{command_id}": "operator",
}


def test_the_document_and_its_page_are_served_to_anybody():
    gate, nothing = gateway.gate(), None
    routers = [command_routes.routes(gateway.SETTINGS, nothing, lambda: gateway.CATALOG)]
    document = ask(gate, method="GET", path="/openapi.json", token="", routers=routers).json()
    kinds = document["paths"]["/v1/readings"]["post"]["requestBody"]["content"]
    assert set(kinds) == {"application/json", "application/senml+json"}
    assert document["components"]["securitySchemes"] == SECURITY
    said = {f"{how.upper()} {path}": of for path, hows in document["paths"].items() for how, of in hows.items()}
    assert {what: [*of["security"][0]] for what, of in said.items()} == {what: [one] for what, one in WHOSE.items()}
    page = ask(gate, method="GET", path="/docs", token="", routers=routers).text
    for what, part in zip(said, page.split("<h2>")[1:], strict=True):
        assert what in part and said[what]["summary"] in unescape(part)
        assert SECURITY[WHOSE[what]]["description"] in unescape(part)
    assert "which is what the caller says" in page
    assert not any(word in page for word in ("<script", "Validation Error", "Successful Response"))


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("DELETE", "/v1/readings", 405)])
def test_other_requests_are_problems_too(method, path, status):
    answer = ask(gateway.gate(), method=method, path=path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, MEDIA_TYPE)


def test_routers_of_other_parts_are_served_and_their_defects_told():
    router = APIRouter()

    @router.get("/v1/other")
    async def other() -> dict[str, int]:
        return {"is": 1}

    @router.get("/v1/broken")
    async def broken() -> None:
        raise ZeroDivisionError

    gate = gateway.gate()
    assert ask(gate, method="GET", path="/v1/other", routers=[router]).json() == {"is": 1}
    answer = ask(gate, method="GET", path="/v1/broken", routers=[router])
    assert (answer.status_code, answer.json()["reason"]) == (500, "defect")


HEAD = (
    b"POST /v1/readings HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
    b"Authorization: Bearer token_room_climate\r\n"
)
GOOD = json.dumps(climate()).encode()


def served(scenario, seconds):
    """`scenario(gate, connect)` beside the server itself, which waits so long for heads and bodies."""

    async def run():
        settings = gateway.SETTINGS.model_copy(update={"gateway_body_seconds": seconds})
        made = gateway.gate(settings)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            server = gateway_http.server(create_app(made), settings)
            serving = asyncio.create_task(server.serve([listening]))
            try:
                connect = lambda: asyncio.open_connection("127.0.0.1", port)  # noqa: E731
                return await asyncio.wait_for(scenario(made, connect), 60)
            finally:
                server.should_exit = True
                await serving

    return asyncio.run(run())


async def until(happened):
    while not happened():
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("said", "answer", "reason"),
    [
        (b"", b"", "head_too_slow"),
        (HEAD, b"", "head_too_slow"),
        (HEAD + b"Content-Length: 99\r\n\r\n{", b"HTTP/1.1 408 ", "too_slow"),
        (b"\x16\x03\x01\x02\x00\x01\x00", b"HTTP/1.1 400 ", "not_http"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n", b"HTTP/1.1 400 ", "broken_off"),
    ],
    ids=["nothing", "half a head", "half a body", "TLS", "a body in chunks that are none"],
)
def test_who_is_slow_or_speaks_something_else_is_ended_and_counted_once(said, answer, reason):
    async def scenario(made, connect):
        reader, writer = await connect()
        writer.write(said)
        heard = await reader.read()
        writer.close()
        await until(lambda: made.tallies.refused)
        reader, writer = await connect()
        writer.write(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(GOOD) + GOOD)
        after = await reader.read()
        writer.close()
        return heard, after, dict(made.tallies.refused)

    heard, after, counted = served(scenario, 1)
    assert (heard.startswith(answer), bool(heard)) == (True, bool(answer))
    assert after.startswith(b"HTTP/1.1 202 ")
    assert counted == {("http", reason): 1}


@pytest.mark.parametrize(
    "body", [b"2\r\n{}\r\n0\r\n\r\n", b"zz\r\n", b"2"], ids=["good", "in chunks that are none", "not whole"]
)
def test_who_is_refused_before_the_body_came_is_counted_once_and_ended(body):
    async def scenario(made, connect):
        reader, writer = await connect()
        writer.write(HEAD.replace(b"Bearer ", b"Bearer no") + b"Transfer-Encoding: chunked\r\n\r\n")
        heard = await reader.readuntil(b"\r\n\r\n")
        writer.write(body)
        with suppress(ConnectionResetError):
            await reader.read()  # to the end, which is not the client's
        writer.close()
        return heard, dict(made.tallies.refused)

    heard, counted = served(scenario, 0.5)
    assert heard.startswith(b"HTTP/1.1 401 ")
    assert counted == {("http", "wrong_token"): 1}


@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, 8 * MAX_BODY_BYTES])
def test_who_sends_too_much_before_it_listens_hears_so(size):
    async def scenario(made, connect):
        reader, writer = await connect()
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % size)
        for part in (b"x" * (size // 2), b"x" * (size - size // 2)):
            await asyncio.sleep(0.2)  # an answer by now would be followed by a reset
            writer.write(part)
            await writer.drain()
        heard = await reader.read()
        writer.close()
        return heard, dict(made.tallies.refused)

    heard, counted = served(scenario, 30)
    assert heard.startswith(b"HTTP/1.1 413 ")
    assert counted == {("http", "body_too_large"): 1}


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % (2 * MAX_BODY_BYTES),
        b"Content-Length: %d\r\n\r\n" % 10**12,
    ],
    ids=["who asks before", "far too much"],
)
def test_what_is_too_large_is_refused_by_its_head(head):
    async def scenario(made, connect):
        reader, writer = await connect()
        writer.write(HEAD + head)
        heard = await reader.read()
        writer.close()
        return heard

    assert served(scenario, 30).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_breaks_off_is_counted():
    async def scenario(made, connect):
        _, writer = await connect()
        writer.write(HEAD + b"Content-Length: 99\r\n\r\n{")
        await writer.drain()
        writer.close()
        await until(lambda: made.tallies.refused)
        return dict(made.tallies.refused), made.deposit.records

    assert served(scenario, 30) == ({("http", "broken_off"): 1}, [])


def test_one_connection_too_many_is_told_to_come_again(monkeypatch):
    monkeypatch.setattr(gateway_http, "MAX_CONNECTIONS", 2)

    async def scenario(made, connect):
        async def post():
            reader, writer = await connect()
            writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD)
            head, body = (await reader.readuntil(b"\r\n\r\n")), await reader.read(1000)
            writer.close()
            return head, json.loads(body)

        (_, first), (_, second) = await connect(), await connect()
        refused = await post()
        first.close()
        while (after := await post())[1] != {"accepted": 1}:
            pass
        second.close()
        return refused, after[0], made.tallies.refused["http", "too_many_connections"]

    (head, said), after, counted = served(scenario, 30)
    assert head.startswith(b"HTTP/1.1 503 ") and b"\r\nretry-after: 6\r\n" in head and b"\r\nconnection: close" in head
    assert (said["reason"], said["status"], counted >= 1) == ("too_many_connections", 503, True)
    assert after.startswith(b"HTTP/1.1 202 ")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "device_id": st.sampled_from(["c1", "c2", ""]) | json_values,
        "event_time": st.sampled_from([NOW, int(time.time() * 1000)]) | json_values,
        "values": st.dictionaries(st.sampled_from(["temperature", "humidity", "x"]), json_values) | json_values,
        "seq": st.integers() | json_values,
        "x": json_values,
    },
)
bodies = (st.lists(messages, max_size=3) | messages | json_values).map(lambda body: json.dumps(body).encode())
KINDS = ["application/json", "application/senml+json"]


@given(bodies | st.binary(max_size=100), st.sampled_from(KINDS))
def test_any_body_is_answered_and_each_reading_of_it_is_one_record(body, kind):
    gate = gateway.gate()

    async def answer():
        return await gate.take(gate.enter("token_room_climate"), body, "http", kind == KINDS[1])

    said = asyncio.run(answer())
    problem = said.problem or {"rejected": 0, "accepted": said.accepted}
    assert problem["accepted"] == said.accepted == len(gate.deposit.readings)
    assert problem["rejected"] == len(gate.deposit.letters)
    assert said.accepted + problem["rejected"] > 0
    if said.problem:
        assert said.problem["reason"] in REASONS
        json.dumps(said.problem)
    assert all(letter.reason != "contract_error" for letter in gate.deposit.letters)


half_a_pair = st.text(st.characters(categories=["Cs"]), min_size=1, max_size=2)


@given(half_a_pair, half_a_pair, st.booleans(), st.sampled_from(["key", "metric", "type", "time"]))
def test_what_utf_8_cannot_say_is_answered(name, said, is_batch, where):
    changes = {
        "key": {name: said},
        "metric": {"values": {name: said}},
        "type": {"device_type": said},
        "time": {"event_time": said},
    }[where]
    gate, body = gateway.gate(), climate(**changes)
    answer = ask(gate, [climate(), body] if is_batch else body)
    assert 400 <= answer.status_code < 500, answer.text
    assert gate.tallies.rejected.total() == answer.json()["rejected"] == 1
    assert not gate.tallies.refused


def test_every_refusal_has_a_status_of_an_error():
    assert not set(REFUSALS) & set(REASONS)
    assert all(400 <= status < 600 and title for status, title in REFUSALS.values())
