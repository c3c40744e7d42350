"""Readings by HTTP to a server that answers as the gateway does, and by CoAP to one of aiocoap's own."""

import asyncio
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import aiocoap
import pytest
from aiocoap import resource

from fleet.catalog import load_catalog
from fleet.errors import ConfigurationError, Refused, Unavailable
from fleet.reading import Reading
from fleet.settings import CHECKOUT, Settings
from simulators import gateway_outlet
from simulators.gateway_outlet import open_gateway, read_tokens
from simulators.message import Message
from simulators.outlet import open_outlet

CATALOG = load_catalog(CHECKOUT / "fleet" / "types")
NOW_US = 1_767_571_200_000_000
TOPIC = "dt/home/home-1/lamp/{}"


class Gateway(ThreadingHTTPServer):
    """Takes what has the token `t-<device_id>`. `first` are answers that come before."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.taken: list[dict[str, object]] = []
        self.first: list[tuple[int, dict[str, str]]] = []
        self.answers = Counter[int]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gateway

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        status, headers = self.server.first.pop(0) if self.server.first else self._judged(body)
        self.server.answers[status] += 1
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        said = b"" if status == 202 else b'{"detail": "no"}'
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def _judged(self, body: bytes) -> tuple[int, dict[str, str]]:
        if self.path != "/v1/readings":
            return 404, {}
        try:
            said = json.loads(body)
        except ValueError:
            return 422, {}
        if self.headers["authorization"] != f"Bearer t-{said['device_id']}":
            return 401, {}
        self.server.taken.append(said)
        return 202, {}

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    server = Gateway()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.json"
    issued = [{"type": "lamp", "device_id": f"l{n}", "token": f"t-l{n}", "number": 1} for n in range(10)]
    path.write_text(f"{json.dumps(issued)}\n{json.dumps({'type': 'lamp', 'device_id': 'wrong', 'token': 'stolen'})}\n")
    return path


def message(number: int = 0, device: str = "l1", raw: bytes | None = None) -> Message:
    reading = Reading(device, "lamp", "home-1", NOW_US + number * 1_000_000, {"on": 1.0}, number)
    return Message(number, reading.event_time_us, reading, raw=raw)


def sent(outlet, messages: list[Message], patience: float = 10) -> list[tuple[int, str]]:
    for one in messages:
        outlet.send(one, TOPIC.format(one.reading.device_id), b"unused")
    outlet.close(patience)
    return [(c.message.number, getattr(c.result, "reason", "taken")) for c in outlet.confirmed()]


def test_each_device_sends_in_order_with_its_own_token(gateway: Gateway, tokens: Path) -> None:
    outlet = open_gateway("http", gateway.url, tokens, CATALOG)
    found = sent(outlet, [message(number, f"l{number % 10}") for number in range(200)])
    assert sorted(found) == [(number, "taken") for number in range(200)]
    assert outlet.unconfirmed == 0
    assert gateway.answers == {202: 200}
    # Devices go by connections of their own: which is first of them is chance.
    assert {"device_id": "l0", "event_time": NOW_US // 1000, "values": {"on": 1.0}, "seq": 0} in gateway.taken
    for device in range(10):
        seqs = [said["seq"] for said in gateway.taken if said["device_id"] == f"l{device}"]
        assert seqs == list(range(device, 200, 10))


def test_what_is_refused_for_what_it_says_is_in_the_books(gateway: Gateway, tokens: Path) -> None:
    outlet = open_gateway("http", gateway.url, tokens, CATALOG)
    assert sent(outlet, [message(0), message(1, raw=b"{"), message(2)]) == [
        (0, "taken"), (1, "malformed_json"), (2, "taken"),
    ]  # fmt: skip


@pytest.mark.parametrize("status", [429, 503], ids=["too many", "no Kafka"])
def test_later_means_again(gateway: Gateway, tokens: Path, status: int) -> None:
    gateway.first = [(status, {"retry-after": "0"})] * 3
    outlet = open_gateway("http", gateway.url, tokens, CATALOG)
    assert sent(outlet, [message()]) == [(0, "taken")]
    assert gateway.answers == {status: 3, 202: 1}


def test_a_wrong_token_is_told(gateway: Gateway, tokens: Path) -> None:
    outlet = open_gateway("http", gateway.url, tokens, CATALOG)
    with pytest.raises(Refused, match="refuses lamp wrong: 401"):
        sent(outlet, [message(device="wrong")])
    assert outlet.unconfirmed == 1


def test_a_good_reading_that_is_refused_is_told(gateway: Gateway, tokens: Path) -> None:
    gateway.first = [(422, {})]
    with pytest.raises(Refused, match=r'refuses lamp l1: 422 \{"detail": "no"\}'):
        sent(open_gateway("http", gateway.url, tokens, CATALOG), [message()])


def test_nobody_there(gateway: Gateway, tokens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_outlet, "AWAY_SECONDS", 0.2)
    outlet = open_gateway("http", "http://127.0.0.1:9", tokens, CATALOG)
    with pytest.raises(Unavailable, match="took nothing for 0 s: 503 ConnectError"):
        sent(outlet, [message()])
    assert outlet.unconfirmed == 1
    with pytest.raises(Unavailable):
        outlet.send(message(), TOPIC, b"")
    assert outlet.confirmed() == []


def test_a_device_without_a_token(gateway: Gateway, tokens: Path) -> None:
    outlet = open_gateway("http", gateway.url, tokens, CATALOG)
    with pytest.raises(ConfigurationError, match="--tokens has none of lamp stranger"):
        outlet.send(message(device="stranger"), TOPIC, b"")
    outlet.close(1)


WRONG = [
    ("http", "http://127.0.0.1:1", "", "No such file"),
    ("http", "http://127.0.0.1:1", "[{}]", "credentials issue"),
    ("http", "http://127.0.0.1:1", "nonsense", "credentials issue"),
    ("http", "coap://127.0.0.1:1", "[]", "wants http://HOST:PORT"),
    ("coap", "http://127.0.0.1:1", "[]", "wants coap://HOST:PORT"),
    ("http", "", "[]", "needs --gateway URL and --tokens FILE"),
    ("mqtt", "http://127.0.0.1:1", "[]", "go with --to http and coap"),
]


@pytest.mark.parametrize(("to", "address", "text", "match"), WRONG, ids=[f"{w[0]} {w[3]}" for w in WRONG])
def test_wrong_options(tmp_path: Path, to: str, address: str, text: str, match: str) -> None:
    path = tmp_path / "tokens.json"
    if text:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=match):
        open_outlet(to, None, Settings(), CATALOG, address, path)


def test_tokens_one_after_the_other(tokens: Path) -> None:
    assert read_tokens(tokens)["lamp", "wrong"] == "stolen"
    assert len(read_tokens(tokens)) == 11


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_coap(tokens: Path) -> None:
    taken: list[tuple[str, object]] = []

    class Readings(resource.Resource):
        async def render_post(self, request):
            said = json.loads(request.payload)
            taken.append((request.opt.uri_query[0], said))
            good = request.opt.uri_query == (f"token=t-{said['device_id']}",)
            return aiocoap.Message(code=aiocoap.CHANGED if good else aiocoap.UNAUTHORIZED)

    loop, port = asyncio.new_event_loop(), free_udp_port()

    async def serve() -> object:
        site = resource.Site()
        site.add_resource(["v1", "readings"], Readings())
        return await aiocoap.Context.create_server_context(site, bind=("127.0.0.1", port))

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    context = asyncio.run_coroutine_threadsafe(serve(), loop).result(10)
    try:
        outlet = open_gateway("coap", f"coap://127.0.0.1:{port}", tokens, CATALOG)
        assert sent(outlet, [message(number) for number in range(20)]) == [(n, "taken") for n in range(20)]
        assert [said["seq"] for _, said in taken] == list(range(20))
        with pytest.raises(Refused, match="refuses lamp wrong: 401"):
            sent(open_gateway("coap", f"coap://127.0.0.1:{port}", tokens, CATALOG), [message(device="wrong")])
    finally:
        asyncio.run_coroutine_threadsafe(context.shutdown(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
