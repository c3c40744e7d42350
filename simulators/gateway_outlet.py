"""Where a run's messages go by HTTP or CoAP: the gateway, each device with its own token.

A device's messages go one after the other, as a device would send them; devices do not wait for each other. Confirmed
is what the gateway has taken (HTTP 202, CoAP 2.04), and what it refuses for what it says: that is in the books too.
"""

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, urlsplit

import msgspec

from fleet.catalog import Catalog
from fleet.contract import Intake, Reject
from fleet.errors import ConfigurationError, Refused, Unavailable, WeirError
from fleet.reading import Reading
from simulators.message import Message
from simulators.outlet import Confirmed, clock_us, read

PATH = "/v1/readings"
LANES = 64
WAITING = 8
"""Messages in a lane: more, and `send` waits."""
AWAY_SECONDS = 60.0
"""For how long a gateway may be gone before we give up."""
TOO_MANY, UNAVAILABLE = 429, 503
LATER = (TOO_MANY, UNAVAILABLE, 500, 502, 504)
STRANGER = (401, 403, 404, 405)
"""Answers that are about who sends, and where, not about what was said."""
_encode = msgspec.json.Encoder().encode


class Said(NamedTuple):
    """What the gateway answers: an HTTP status, CoAP's as the same number, and why."""

    status: int
    detail: str = ""
    retry_after: float = 1.0


class Way(Protocol):
    """`ask` raises OSError where nothing answers."""

    async def ask(self, token: str, payload: bytes) -> Said: ...
    async def close(self) -> None: ...


def read_tokens(path: Path) -> dict[tuple[str, str], str]:
    """(type, device) → token. JSON values, of objects with type, device_id and token or lists of such, one after the
    other as `weir devices credentials issue … --json` prints them. Raises ConfigurationError."""
    found: dict[tuple[str, str], str] = {}
    decoder = json.JSONDecoder()
    try:
        text, place = path.read_text(encoding="utf-8").strip(), 0
        while place < len(text):
            value, place = decoder.raw_decode(text, place)
            for one in value if isinstance(value, list) else [value]:
                found[one["type"], one["device_id"]] = str(one["token"])
            while place < len(text) and text[place].isspace():
                place += 1
    except OSError as error:
        raise ConfigurationError(f"--tokens {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"--tokens {path}: expected what `weir devices credentials issue … --json` prints: {error!r}"
        ) from None
    return found


def canonical(reading: Reading) -> bytes:
    """The gateway's message, whatever the type's own form is elsewhere."""
    whole, rest = divmod(reading.event_time_us, 1000)
    said: dict[str, Any] = {
        "device_id": reading.device_id, "event_time": whole if not rest else reading.event_time_us / 1000,
        "values": reading.values,
    }  # fmt: skip
    return _encode(said if reading.seq is None else said | {"seq": reading.seq})


class GatewayOutlet:
    """An event loop in a thread of its own; `send`, `confirmed` and `close` are for another."""

    def __init__(self, address: str, way: Way, tokens: Mapping[tuple[str, str], str], catalog: Catalog):
        self._address, self._way, self._tokens, self._intake = address, way, tokens, Intake(catalog)
        self._under_way, self._lock = 0, threading.Lock()
        self._confirmed: deque[Confirmed] = deque()
        self._problem: WeirError | None = None
        self._is_told = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gateway", daemon=True)
        self._thread.start()
        self._lanes = [asyncio.Queue[tuple[Message, str, bytes, str]](WAITING) for _ in range(LANES)]
        self._workers = [asyncio.run_coroutine_threadsafe(self._work(lane), self._loop) for lane in self._lanes]

    def send(self, message: Message, topic: str, payload: bytes) -> None:
        self._raise()
        reading = message.reading
        token = self._tokens.get((reading.device_type, reading.device_id))
        if token is None:
            raise ConfigurationError(f"--tokens has none of {reading.device_type} {reading.device_id}")
        body = canonical(reading) if message.raw is None else message.raw
        lane = self._lanes[hash((reading.device_type, reading.device_id)) % LANES]
        with self._lock:
            self._under_way += 1
        asyncio.run_coroutine_threadsafe(lane.put((message, topic, body, token)), self._loop).result()

    async def _work(self, lane: "asyncio.Queue[tuple[Message, str, bytes, str]]") -> None:
        while True:
            message, topic, body, token = await lane.get()
            if self._problem is not None:
                continue  # what waits is not sent: it may or may not have arrived
            try:
                self._take(message, topic, body, await self._ask(token, body))
            except WeirError as error:
                self._problem = self._problem or error
            except Exception as error:
                self._problem = self._problem or Unavailable(f"the gateway at {self._address}: {error!r}")

    async def _ask(self, token: str, body: bytes) -> Said:
        """Again and again where it is away or has too much to do, for so long."""
        deadline, wrong = time.monotonic() + AWAY_SECONDS, ""
        while time.monotonic() < deadline:
            try:
                said = await self._way.ask(token, body)
            except OSError as error:
                said = Said(UNAVAILABLE, str(error) or type(error).__name__)
            if said.status not in LATER:
                return said
            wrong = f"{said.status} {said.detail}"
            await asyncio.sleep(min(said.retry_after, max(0.0, deadline - time.monotonic())))
        raise Unavailable(f"the gateway at {self._address} took nothing for {AWAY_SECONDS:.0f} s: {wrong}")

    def _take(self, message: Message, topic: str, body: bytes, said: Said) -> None:
        confirmed = read(self._intake, message, topic, body, clock_us())
        is_taken = 200 <= said.status < 300
        if said.status in STRANGER or (not is_taken and not isinstance(confirmed.result, Reject)):
            who = f"{message.reading.device_type} {message.reading.device_id}"
            raise Refused(f"the gateway at {self._address} refuses {who}: {said.status} {said.detail}")
        self._confirmed.append(confirmed)
        with self._lock:
            self._under_way -= 1

    def confirmed(self) -> list[Confirmed]:
        return [self._confirmed.popleft() for _ in range(len(self._confirmed))]

    def _raise(self) -> None:
        if self._problem is not None:
            self._is_told = True
            raise self._problem

    def close(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        try:
            while self._under_way and self._problem is None and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            for worker in self._workers:
                worker.cancel()
            asyncio.run_coroutine_threadsafe(self._way.close(), self._loop).result(5)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
        if not self._is_told:
            self._raise()

    @property
    def unconfirmed(self) -> int:
        return self._under_way


class Http:
    def __init__(self, address: str):
        import httpx

        self._errors = httpx.HTTPError
        limits = httpx.Limits(max_connections=LANES, max_keepalive_connections=LANES)
        self._client = httpx.AsyncClient(base_url=address, timeout=15, limits=limits, trust_env=False)

    async def ask(self, token: str, payload: bytes) -> Said:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        try:
            answer = await self._client.post(PATH, content=payload, headers=headers)
        except self._errors as error:
            raise OSError(f"{type(error).__name__} {error}") from error
        after = answer.headers.get("retry-after", "")
        detail = "" if answer.is_success else answer.text[:300]
        return Said(answer.status_code, detail, float(after) if after.isdecimal() else 1.0)

    async def close(self) -> None:
        await self._client.aclose()


class Coap:
    """The token stands in the query: CoAP has no header for it."""

    def __init__(self, address: str):
        import aiocoap

        self._coap, self._address = aiocoap, address.rstrip("/")
        self._context: Any = None

    async def ask(self, token: str, payload: bytes) -> Said:
        coap = self._coap
        if self._context is None:
            self._context = await coap.Context.create_client_context()
        request = coap.Message(
            code=coap.POST, uri=f"{self._address}{PATH}?token={quote(token)}", payload=payload,
            content_format=coap.numbers.contentformat.ContentFormat.JSON,
        )  # fmt: skip
        try:
            answer = await self._context.request(request).response
        except coap.error.Error as error:
            raise OSError(f"{type(error).__name__} {error}") from error
        # 4.01 is 401: a class in the upper three bits, a detail in the lower five.
        status = (int(answer.code) >> 5) * 100 + (int(answer.code) & 0x1F)
        after = answer.opt.max_age if status in LATER else None
        return Said(status, answer.payload[:300].decode("utf-8", "replace"), float(1 if after is None else after))

    async def close(self) -> None:
        if self._context is not None:
            await self._context.shutdown()


WAYS: dict[str, tuple[Callable[[str], Way], tuple[str, str]]] = {
    "http": (Http, ("http", "https")),
    "coap": (Coap, ("coap", "coaps")),
}


def open_gateway(target: str, address: str, tokens: Path, catalog: Catalog) -> GatewayOutlet:
    """Raises ConfigurationError."""
    kind, schemes = WAYS[target]
    if urlsplit(address).scheme not in schemes:
        raise ConfigurationError(f"--gateway {address}: --to {target} wants {schemes[0]}://HOST:PORT")
    return GatewayOutlet(address, kind(address), read_tokens(tokens), catalog)
