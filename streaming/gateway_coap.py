"""CoAP's side of the gateway: `/v1/readings` takes POST, and GET with or without Observe.

CoAP has no header for a token: it stands in the query, `coap://…/v1/readings?token=…`, of which DTLS would keep the
path's listeners away; see docs/decisions/0041. A message that comes again with its id is answered again by aiocoap, and
not looked at twice; a body in blocks is put together by it.
"""

import json
import logging
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

import aiocoap
from aiocoap import resource
from aiocoap.blockwise import Block1Spool, Block2Cache, IncompleteException, _extract_block_key
from aiocoap.error import BadRequest, ConstructionRenderableError
from aiocoap.numbers.codes import Code
from aiocoap.numbers.contentformat import ContentFormat

from fleet import senml
from fleet.problem import Refused
from fleet.reading import encode_reading
from fleet.settings import Settings
from streaming.badges import Badge
from streaming.gateway import MAX_BODIES, MAX_BODY_BYTES, Gate

JSON = ContentFormat.JSON
IS_SENML = {None: False, int(JSON): False, senml.COAP_FORMAT: True}
"""Content format → whether it is SenML."""
MAX_OBSERVERS = 4
"""Of one device, which are the device's own."""
MAX_ANSWERS = 8
"""Of one device, that are kept for who fetches them in blocks."""

log = logging.getLogger("weir.gateway")


class Readings(resource.ObservableResource):
    def __init__(self, gate: Gate):
        super().__init__()
        self._gate, self._block1, self._block2 = gate, Bodies(gate), Answers(gate)
        self._observers: dict[tuple[str, str], list[Any]] = {}
        gate.heard = self._tell

    async def render_to_pipe(self, pipe: Any) -> None:
        """Before blocks are put together: nobody unknown has us keep any, and nobody too many."""
        try:
            request = pipe.request
            self._gate.enter(_token(request))
            block = request.opt.block1
            if block is not None and block.start + len(request.payload) > MAX_BODY_BYTES:
                raise Refused("body_too_large", f"at most {MAX_BODY_BYTES:,} bytes; send fewer readings at once")
            if request.code is not Code.GET:
                request.opt.observe = None  # means nothing there (RFC 7641); the library would take it at each change
            await super().render_to_pipe(pipe)
        except Refused as refused:
            pipe.add_response(self._refusal(refused), is_last=True)
        except ConstructionRenderableError as error:  # the library's own word: of methods, and of blocks
            if error.code.is_successful():
                raise  # asks for the next block
            status = error.code.class_ * 100 + error.code % 32
            own = Refused("request_refused", error.message or error.code.name_printable, status=status)
            pipe.add_response(self._refusal(own), is_last=True)

    async def render_post(self, request: aiocoap.Message) -> aiocoap.Message:
        try:
            badge = self._gate.enter(_token(request))
            kind = request.opt.content_format
            if kind not in IS_SENML:
                raise Refused(
                    "unsupported_media_type", f"{kind}; send {int(JSON)} (JSON) or {senml.COAP_FORMAT} (SenML)"
                )
            answer = await self._gate.take(badge, request.payload, "coap", IS_SENML[kind])
        except Refused as refused:
            return self._refusal(refused)
        if answer.problem is not None:
            return _said(_code(answer.problem["status"]), answer.problem)
        return _said(Code.CHANGED, {"accepted": answer.accepted})

    async def render_get(self, request: aiocoap.Message) -> aiocoap.Message:
        """The device's own newest reading that came by the gateway; an empty content where there is none."""
        try:
            last = self._gate.last(self._gate.enter(_token(request)))
        except Refused as refused:
            return self._refusal(refused)
        payload = b"" if last is None else encode_reading(last)
        return aiocoap.Message(code=Code.CONTENT, payload=payload, content_format=JSON)

    async def add_observation(self, request: aiocoap.Message, serverobservation: Any) -> None:
        """Of one that ends here the library answers the GET alone. It must be accepted all the same."""
        try:
            device = self._gate.enter(_token(request)).device
        except Refused:
            device = None
        if device is None or len(self._observers.get(device, ())) >= MAX_OBSERVERS:
            serverobservation.accept(lambda: None)
            serverobservation.deregister()
            return
        observers = self._observers.setdefault(device, [])
        observers.append(serverobservation)

        def gone() -> None:
            observers.remove(serverobservation)
            if not observers and self._observers.get(device) is observers:
                del self._observers[device]

        serverobservation.accept(gone)

    def _tell(self, badge: Badge) -> None:
        for observer in list(self._observers.get(badge.device, ())):
            observer.trigger()

    def _refusal(self, refused: Refused) -> aiocoap.Message:
        self._gate.tallies.refused["coap", refused.reason] += 1
        message = _said(_code(refused.status), refused.problem())
        if refused.retry_after is not None:
            message.opt.max_age = max(1, round(refused.retry_after + 0.5))
        return message


class Bodies:
    """Bodies that come in blocks, put together by a Block1Spool for each device. The library's would keep each for
    minutes, those too of which all has come, for as many senders' ports and queries as there are."""

    def __init__(self, gate: Gate):
        self._gate = gate
        self._spools: dict[tuple[str, str], Block1Spool] = {}

    def feed_and_take(self, request: aiocoap.Message) -> aiocoap.Message:
        """The whole; the library's ContinueException where it is not the end. Raises Refused. Of too many that are
        under way the oldest is dropped: who broke off comes again from another port."""
        block = request.opt.block1
        if block is None:
            return request
        device, key = self._gate.enter(_token(request)).device, _extract_block_key(request)
        spool = self._spools.setdefault(device, Block1Spool())
        kept = spool._assemblies._items
        if block.block_number == 0:
            kept.pop(key, None)
            while len(kept) >= MAX_BODIES:
                del kept[next(iter(kept))]
        try:
            whole: aiocoap.Message = spool.feed_and_take(request)
        except (BadRequest, IncompleteException, ValueError):  # the library does not catch the last
            kept.pop(key, None)
            said = f"block {block.block_number} does not follow what came before, or is not as long as it says"
            raise Refused("broken_off", f"{said}; send all of them again", status=408) from None
        del kept[key]
        if not kept:
            del self._spools[device]
        return whole


class Answers(Block2Cache):
    """Answers that go in blocks. The library keeps each for minutes, for any number of senders' ports and queries;
    here the device's oldest makes room."""

    def __init__(self, gate: Gate):
        super().__init__()
        self._gate = gate
        self._keys: dict[tuple[str, str], OrderedDict[Any, None]] = {}
        """Device → those of its answers, the newest last."""

    async def extract_or_insert(
        self, req: aiocoap.Message, response_builder: Callable[[], Awaitable[aiocoap.Message]]
    ) -> aiocoap.Message:
        """Raises Refused, and what the library raises where there is no such block."""
        device = self._gate.enter(_token(req)).device
        answer: aiocoap.Message = await super().extract_or_insert(req, response_builder)
        kept, key = self._completes._items, _extract_block_key(req)
        if key in kept:
            keys = self._keys.setdefault(device, OrderedDict())
            keys[key] = None
            keys.move_to_end(key)
            while len(keys) > MAX_ANSWERS:
                kept.pop(keys.popitem(last=False)[0], None)
        return answer


def _token(request: aiocoap.Message) -> str:
    """Empty where there is none."""
    return next((part[6:] for part in request.opt.uri_query if part.startswith("token=")), "")


def _code(status: int) -> Code:
    """4.22 of 422."""
    return Code(status // 100 * 32 + status % 100)


def _said(code: Code, body: dict[str, Any]) -> aiocoap.Message:
    return aiocoap.Message(code=code, payload=json.dumps(body).encode(), content_format=JSON)


async def server(gate: Gate, settings: Settings) -> aiocoap.Context:
    """Listens until its `shutdown()`. Raises OSError where the port is taken."""
    os.environ["AIOCOAP_REUSE_PORT"] = "0"  # or a second gateway on the port would get half of the messages
    site = resource.Site()
    site.add_resource([".well-known", "core"], resource.WKCResource(site.get_resources_as_linkheader))
    site.add_resource(["v1", "readings"], Readings(gate))
    where = "::" if settings.bind == "0.0.0.0" else settings.bind  # noqa: S104  a container's own
    context = await aiocoap.Context.create_server_context(
        site, bind=(where, settings.gateway_coap_port), transports=["udp6"]
    )
    for manager in context.request_interfaces:
        endpoint = manager.token_interface.message_interface
        endpoint.datagram_msg_received = _unless_no_text(gate, endpoint.datagram_msg_received)
    return context


def _unless_no_text(gate: Gate, received: Callable[..., None]) -> Callable[..., None]:
    """The library passes over what is no CoAP; of an option that is to be UTF-8 and is not, its reading ends with a
    traceback in the log, for whoever sends such a datagram."""

    def guarded(*datagram: Any) -> None:
        try:
            received(*datagram)
        except UnicodeDecodeError:
            gate.tallies.refused["coap", "not_coap"] += 1

    return guarded
