"""CoAP's answers: the same decisions as HTTP's, in CoAP's codes. The resource without a socket."""

import asyncio
import json
import socket
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from aiocoap import Context, Message
from aiocoap.blockwise import ContinueException
from aiocoap.error import UnparsableMessage
from aiocoap.message import Direction
from aiocoap.numbers.codes import Code
from aiocoap.numbers.types import Type
from hypothesis import given
from hypothesis import strategies as st

from fleet.problem import Refused
from streaming import gateway_coap
from streaming.gateway import MAX_BODIES, MAX_BODY_BYTES, MAX_READINGS
from streaming.gateway_coap import MAX_ANSWERS, MAX_OBSERVERS, Bodies, Readings
from tests.mangled import mangled
from tests.unit import gateway

NOW = "2026-11-01T07:30:00Z"
READING = {"device_id": "c1", "event_time": NOW, "values": {"temperature": 20.5}}


def request(code=Code.POST, body=READING, token="token_room_climate", kind=50):
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    message = Message(code=code, payload=payload if code is Code.POST else b"", content_format=kind)
    message.opt.uri_path = ("v1", "readings")
    message.opt.uri_query = () if token is None else (f"token={token}",)
    return message


def post(gate, **given):
    return asyncio.run(Readings(gate).render_post(request(**given)))


@pytest.mark.parametrize("kind", [None, 50])
def test_a_reading_is_taken(kind):
    gate = gateway.gate()
    answer = post(gate, kind=kind)
    assert (answer.code, json.loads(answer.payload)) == (Code.CHANGED, {"accepted": 1})
    assert [topic for topic, _ in gate.deposit.readings] == ["readings.home"]
    assert gate.tallies.accepted == {"coap": 1}


def test_a_senml_pack_is_taken():
    gate = gateway.gate()
    answer = post(gate, body=[{"bn": "c1/", "n": "temperature", "u": "Cel", "v": 20.5}], kind=110)
    assert (answer.code, len(gate.deposit.readings)) == (Code.CHANGED, 1)


@pytest.mark.parametrize(
    ("given", "code", "reason", "field"),
    [
        ({"token": None}, "4.01", "no_token", None),
        ({"token": "nobody's"}, "4.01", "wrong_token", None),
        ({"token": "token_old"}, "4.01", "token_ended", None),
        ({"kind": 60}, "4.15", "unsupported_media_type", None),
        ({"body": b"{"}, "4.00", "malformed_json", None),
        ({"body": b"\xff"}, "4.00", "not_utf8", None),
        ({"body": READING | {"device_id": "c2"}}, "4.03", "identity_mismatch", "device_id"),
        ({"body": READING | {"event_time": "2099-01-01T00:00:00Z"}}, "4.22", "future_time", "event_time"),
        ({"body": [{"n": "temperature", "u": "V", "v": 1}], "kind": 110}, "4.22", "wrong_unit", "[0].u"),
        ({"body": b" " * 300_000}, "4.13", "oversized", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused_and_why(given, code, reason, field):
    gate = gateway.gate()
    answer = post(gate, **given)
    said = json.loads(answer.payload)
    assert (answer.code.dotted, said["reason"], said.get("field")) == (code, reason, field)
    counted = gate.tallies.refused.total() + gate.tallies.rejected.total()
    assert counted == 1
    assert len(gate.deposit.letters) == gate.tallies.rejected.total()


@pytest.mark.parametrize(
    ("token", "device", "reason"),
    [("token_retired", "lamp-2", "retired_device"), ("token_nobody", "lamp-3", "unknown_device")],
)
def test_a_valid_token_does_not_make_a_device(token, device, reason):
    gate = gateway.gate()
    answer = post(gate, body={"device_id": device, "event_time": NOW, "values": {"on": True}}, token=token)
    assert (answer.code.dotted, json.loads(answer.payload)["reason"]) == ("4.03", reason)
    assert [letter.reason for letter in gate.deposit.letters] == [reason]
    assert gate.tallies.rejected == {("coap", reason, "lamp"): 1}


def test_without_kafka_nothing_is_acknowledged():
    gate = gateway.gate()
    gate.deposit.problem = "away"
    answer = post(gate)
    assert (answer.code.dotted, json.loads(answer.payload)["reason"]) == ("5.03", "kafka_unavailable")
    assert answer.opt.max_age >= 5


def test_who_sends_too_much_is_told_when_to_go_on():
    clock = [0.0]
    gate = gateway.gate(gateway.SETTINGS.model_copy(update={"gateway_readings_per_second": 10.0}), lambda: clock[0])
    assert post(gate, body=[READING | {"seq": n} for n in range(MAX_READINGS)]).code == Code.CHANGED
    answer = post(gate)
    said = json.loads(answer.payload)
    assert (answer.code.dotted, said["status"], said["reason"], answer.opt.max_age) == ("4.29", 429, "rate_limited", 1)
    lamp = {"device_id": "lamp-1", "event_time": NOW, "values": {"on": 1}}
    assert post(gate, body=lamp, token="token_lamp").code == Code.CHANGED
    clock[0] = 0.2
    assert post(gate).code == Code.CHANGED
    assert gate.tallies.refused == {("coap", "rate_limited"): 1}
    assert gate.tallies.accepted == {"coap": MAX_READINGS + 2}


class Pipe:
    """What the library gives a resource to answer into."""

    def __init__(self, message):
        self.request, self.answers = message, []

    def add_response(self, message, is_last=False):
        self.answers.append(message)


@pytest.mark.parametrize(
    ("token", "block", "code"),
    [
        ("nobody's", (0, True, 6), "4.01"),
        ("token_room_climate", (MAX_BODY_BYTES // 1024, True, 6), "4.13"),
    ],
    ids=["unknown sender", "beyond the limit"],
)
def test_no_blocks_are_kept_of_who_may_not_send_them(token, block, code):
    message = request(body=b"x" * 1024, token=token)
    message.opt.block1 = block
    pipe = Pipe(message)
    asyncio.run(Readings(gateway.gate()).render_to_pipe(pipe))
    assert [answer.code.dotted for answer in pipe.answers] == [code]


class Observation:
    """As the library's: who observes is asked to be told."""

    def __init__(self):
        self.cancel, self.told, self.is_over = None, 0, False

    def accept(self, cancel):
        self.cancel = cancel

    def deregister(self):
        self.is_over = True

    def trigger(self):
        self.told += 1


def test_observers_hear_of_their_own_device_alone():
    gate = gateway.gate()
    resource = Readings(gate)
    own, other = Observation(), Observation()
    too_many = [Observation() for _ in range(MAX_OBSERVERS)]
    stranger = Observation()

    async def scenario():
        await resource.add_observation(request(Code.GET, token="nobody's"), stranger)
        await resource.add_observation(request(Code.GET, token="token_lamp"), other)
        for observation in (own, *too_many):
            await resource.add_observation(request(Code.GET), observation)
        await resource.render_post(request())
        await resource.render_post(request(body=READING | {"event_time": "2026-10-31T00:00:00Z"}))  # an older one
        own.cancel()
        await resource.render_post(request(body=READING | {"event_time": "2026-11-01T08:00:00Z"}))
        return await resource.render_get(request(Code.GET))

    answer = asyncio.run(scenario())
    stranger.cancel()
    assert [(not o.is_over, o.told) for o in (own, other, stranger, too_many[0], too_many[-1])] == [
        (True, 1),
        (True, 0),
        (False, 0),
        (True, 2),
        (False, 0),
    ]
    assert answer.code == Code.CONTENT
    assert json.loads(answer.payload)["event_time"] == 1793520000000


@given(st.binary(max_size=60), st.sampled_from([None, 50, 110, 0, 60]), st.none() | st.text(max_size=20))
def test_any_request_is_answered(body, kind, token):
    gate = gateway.gate()
    answer = post(gate, body=body, kind=kind, token=token if token is None else f"{token}token_room_climate"[-18:])
    assert answer.code.is_response()
    assert gate.tallies.accepted.total() + gate.tallies.rejected.total() + gate.tallies.refused.total() >= 1


REMOTE = SimpleNamespace(blockwise_key="a port", maximum_payload_size=1024, maximum_block_size_exp=6)
tokens = st.sampled_from(["token_room_climate", "nobody's", None])
block_options = st.none() | st.tuples(st.integers(0, 3) | st.integers(0, 2**20 - 1), st.booleans(), st.integers(0, 7))


@st.composite
def datagrams(draw):
    code = Code(draw(st.sampled_from([Code.GET, Code.POST]) | st.integers(1, 31)))
    message = request(code, kind=draw(st.sampled_from([None, 50, 110, 0, 60])), token=draw(tokens))
    message.payload = draw(st.sampled_from([json.dumps(READING).encode(), b"", b"{", b" " * 16, b" " * 1024]))
    message.mtype, message.mid = Type.CON, 1
    message.opt.block1, message.opt.block2 = draw(block_options), draw(block_options)
    message.opt.observe = draw(st.none() | st.integers(0, 2))
    message.opt.no_response = draw(st.none() | st.integers(0, 255))
    return message.encode()


@given(st.lists(datagrams() | datagrams().flatmap(mangled), min_size=1, max_size=6))
def test_any_options_and_blocks_are_answered_and_what_is_refused_is_counted(sent):
    gate = gateway.gate()

    def counted():
        return sum(tally.total() for tally in (gate.tallies.accepted, gate.tallies.rejected, gate.tallies.refused))

    async def scenario():
        resource = Readings(gate)
        for datagram in sent:
            try:
                message = Message.decode(datagram, REMOTE)
            except (UnparsableMessage, UnicodeDecodeError):
                continue
            if not message.code.is_request():
                continue
            is_later = message.opt.block2 is not None and message.opt.block2.block_number > 0
            pipe, before = Pipe(message), counted()
            answering = asyncio.ensure_future(resource.render_to_pipe(pipe))
            while not (answering.done() or pipe.answers):
                await asyncio.sleep(0)
            answering.cancel()  # who observes is told for ever
            (end,) = await asyncio.gather(answering, return_exceptions=True)
            if isinstance(end, ContinueException):
                assert not pipe.answers
                continue
            assert end is None or isinstance(end, asyncio.CancelledError), end
            (answer,) = pipe.answers
            assert answer.code.is_response()
            assert answer.code.is_successful() or is_later or counted() > before

    asyncio.run(scenario())


def test_what_the_library_refuses_is_told_as_all_else_and_counted():
    """A method, a block of an answer that there is not, and one beyond the end of an answer that there is."""
    gate, found = gateway.gate(), []

    async def scenario():
        resource = Readings(gate)
        for code, block2 in (
            (Code.PUT, None),
            (Code.GET, (1, False, 0)),
            (Code.POST, (0, False, 0)),
            (Code.POST, (99, False, 0)),
        ):
            message = request(code, body=b"{")
            message.remote, message.direction, message.opt.block2 = REMOTE, Direction.INCOMING, block2
            pipe = Pipe(message)
            await resource.render_to_pipe(pipe)
            found.extend(pipe.answers)

    asyncio.run(scenario())
    assert [answer.code.dotted for answer in found] == ["4.05", "4.08", "4.00", "4.00"]
    assert [json.loads(found[place].payload)["status"] for place in (0, 1, 3)] == [405, 408, 400]
    assert gate.tallies.refused == {("coap", "request_refused"): 3}
    assert gate.tallies.rejected.total() == 1


def served(scenario):
    """`scenario(gate, client, uri)` with the library's own client, at the gateway's socket."""

    async def run():
        made = gateway.gate()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = await gateway_coap.server(made, gateway.SETTINGS.model_copy(update={"gateway_coap_port": port}))
        client = await Context.create_client_context(transports=["udp6"])
        try:
            return await asyncio.wait_for(
                scenario(made, client, f"coap://127.0.0.1:{port}/v1/readings?token=token_room_climate"), 60
            )
        finally:
            await client.shutdown()
            await server.shutdown()

    return asyncio.run(run())


def test_a_reading_that_asks_to_observe_is_taken_once():
    async def scenario(made, client, uri):
        for hour in ("07", "08"):
            body = READING | {"event_time": f"2026-11-01T{hour}:30:00Z"}
            sent = Message(code=Code.POST, uri=uri, payload=json.dumps(body).encode(), content_format=50, observe=0)
            answer = await client.request(sent).response
            assert (answer.code, answer.opt.observe) == (Code.CHANGED, None)
        await client.request(Message(code=Code.GET, uri=uri)).response  # what was to follow would be there now
        return [reading.event_time_us for _, reading in made.deposit.readings]

    assert len(served(scenario)) == 2


def block(uri, number, more, size=16):
    message = Message(code=Code.POST, uri=uri, payload=b"x" * size, content_format=50)
    message.opt.block1 = (number, more, 0)
    return message


@pytest.mark.parametrize("blocks", [[(0, True), (2, True)], [(0, True), (0, True), (2, False)], [(1, True)]])
def test_half_a_body_is_answered_as_what_it_is(blocks):
    async def scenario(made, client, uri):
        for number, more in blocks:
            answer = await client.request(block(uri, number, more), handle_blockwise=False).response
        whole = Message(code=Code.POST, uri=uri, payload=json.dumps(READING).encode(), content_format=50)
        return answer, (await client.request(whole).response).code, made.tallies.refused

    answer, after, refused = served(scenario)
    assert (answer.code.dotted, json.loads(answer.payload)["reason"]) == ("4.08", "broken_off")
    assert (after, refused) == (Code.CHANGED, {("coap", "broken_off"): 1})


def test_one_observer_too_many_is_answered_once_and_nothing_fails(caplog):
    async def scenario(made, client, uri):
        asked, answers = [], []
        for _ in range(MAX_OBSERVERS + 2):  # one after the other: the library sends what is asked together in any order
            asked.append(client.request(Message(code=Code.GET, uri=uri, observe=0)))
            answers.append(await asked[-1].response)
        whole = Message(code=Code.POST, uri=uri, payload=json.dumps(READING).encode(), content_format=50)
        assert (await client.request(whole).response).code == Code.CHANGED
        told = [await anext(aiter(one.observation)) for one in asked[:MAX_OBSERVERS]]
        return [answer.opt.observe for answer in answers], [json.loads(one.payload)["device_id"] for one in told]

    observed, told = served(scenario)
    assert observed == [0] * MAX_OBSERVERS + [None] * 2
    assert told == ["c1"] * MAX_OBSERVERS
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_of_bodies_that_stop_halfway_a_device_has_a_few_and_of_others_none():
    async def scenario(made, client, uri):
        async def said(which, number, more):
            sent = block(f"{uri}&which={which}", number, more)
            return (await client.request(sent, handle_blockwise=False).response).code.dotted

        for which in range(MAX_BODIES + 1):
            assert await said(which, 0, True) == "2.31"
        return [await said(which, 1, True) for which in range(MAX_BODIES + 1)]

    assert served(scenario) == ["4.08", *["2.31"] * MAX_BODIES]


def test_a_body_that_is_whole_is_not_kept():
    bodies = Bodies(gateway.gate())

    def sent(number, more):
        message = block("coap://gateway/v1/readings?token=token_lamp", number, more)
        message.remote = SimpleNamespace(blockwise_key="a port")
        message.direction = Direction.INCOMING
        return message

    async def scenario():
        with pytest.raises(ContinueException):
            bodies.feed_and_take(sent(0, True))
        assert bodies._spools
        return bodies.feed_and_take(sent(1, False))

    assert asyncio.run(scenario()).payload == b"x" * 32
    assert not bodies._spools


lengths = st.none() | st.sampled_from([0, 1, 15, 17])
parts = st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 1), lengths, st.binary(min_size=1, max_size=1))


@given(st.lists(parts, max_size=8))
def test_a_body_is_made_of_blocks_that_follow_each_other_alone(parts):
    bodies = Bodies(gateway.gate())

    async def scenario():
        kept = None  # what has come of a body
        for number, more, exponent, length, byte in parts:
            size = 16 << exponent
            message = request(body=byte * (size if length is None else length))
            message.opt.block1, message.remote, message.direction = (number, more, exponent), REMOTE, Direction.INCOMING
            follows = kept is not None and len(kept) == number * size and (not more or len(message.payload) == size)
            expected = message.payload if number == 0 else kept + message.payload if follows else None
            try:
                assert bodies.feed_and_take(message).payload == expected
                kept = None if not more else pytest.fail("there is more to come")
            except ContinueException:
                assert more and expected is not None
                kept = expected
            except Refused as refused:
                assert (expected, refused.reason, refused.status) == (None, "broken_off", 408)
                kept = None
            assert any(spool._assemblies._items for spool in bodies._spools.values()) is (kept is not None)

    asyncio.run(scenario())


def test_what_is_no_text_leaves_no_traceback(caplog):
    async def scenario(made, client, uri):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"\x40\x02\x00\x01\xb1\xff", ("127.0.0.1", urlsplit(uri).port))  # Uri-Path
        whole = Message(code=Code.POST, uri=uri, payload=json.dumps(READING).encode(), content_format=50)
        return (await client.request(whole).response).code, made.tallies.refused

    assert served(scenario) == (Code.CHANGED, {("coap", "not_coap"): 1})
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_of_answers_that_go_in_blocks_a_device_has_a_few():
    """A client that asks from ever another query, in the smallest blocks, for what is told of a bad reading."""

    async def scenario(made, client, uri):
        async def said(which, number, token="token_room_climate"):
            sent = Message(code=Code.POST, uri=f"{uri[: uri.index('token=')]}token={token}&which={which}", payload=b"{")
            sent.opt.content_format, sent.opt.block2 = 50, (number, False, 0)
            return (await client.request(sent, handle_blockwise=False).response).code.dotted

        assert await said("other", 0, "token_lamp") == "4.00"
        for which in range(3 * MAX_ANSWERS):
            assert await said(which, 0) == "4.00"
        assert await said(2 * MAX_ANSWERS, 0) == "4.00"  # once more: the newest
        assert await said("one more", 0) == "4.00"
        later = [await said(which, 1) for which in range(3 * MAX_ANSWERS)]
        return later, await said("other", 1, "token_lamp")

    later, of_other = served(scenario)
    dropped = 2 * MAX_ANSWERS
    assert later == ["4.08"] * dropped + ["4.00"] + ["4.08"] + ["4.00"] * (MAX_ANSWERS - 2)
    assert of_other == "4.00"
