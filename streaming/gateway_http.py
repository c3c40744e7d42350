"""HTTP's side of the gateway: a FastAPI application over streaming.gateway, and the server that it runs in.

Errors are problem+json (RFC 9457). A body that does not come in time ends with 408; so does, without an answer, a
connection whose request does not.
"""

import asyncio
import logging
import socket
from collections import Counter as Tally
from collections.abc import Iterable
from typing import Any

import h11
import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from fleet import problem, senml
from fleet.problem import Refused
from fleet.reading import encode_reading
from fleet.settings import Settings
from streaming import gateway_page
from streaming.gateway import MAX_BODY_BYTES, RETRY_SECONDS, Gate

MAX_CONNECTIONS = 2000
DRAIN_SECONDS = 5
PASSED_OVER = 16
"""Times what a body may have."""
IS_SENML = {"application/json": False, senml.MEDIA_TYPE: True}
"""Media type → whether it is SenML."""

log = logging.getLogger("weir.gateway")


def create_app(gate: Gate, routers: Iterable[APIRouter] = ()) -> FastAPI:
    """`routers`: of other parts, served beside /v1/readings; they raise Refused or HTTPException where they refuse."""
    app = FastAPI(
        title="Weir gateway", version="1", docs_url=None, redoc_url=None, description=gateway_page.DESCRIPTION
    )
    app.state.gate = gate

    @app.post("/v1/readings", **gateway_page.POST)
    async def post_readings(request: Request) -> Response:
        badge = gate.enter(bearer(request))
        kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if kind not in IS_SENML:
            raise Refused("unsupported_media_type", f"{kind[:80]!r}; send {' or '.join(IS_SENML)}")
        with gate.one_more_body(badge):
            body = await body_of(request, gate.settings.gateway_body_seconds)
        answer = await gate.take(badge, body, "http", IS_SENML[kind])
        if answer.problem is not None:
            return problem_response(answer.problem)
        return JSONResponse({"accepted": answer.accepted}, 202)

    @app.get("/v1/readings", **gateway_page.GET)
    async def get_last_reading(request: Request) -> Response:
        last = gate.last(gate.enter(bearer(request)))
        return (
            Response(status_code=204) if last is None else Response(encode_reading(last), 200, None, "application/json")
        )

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(gateway_page.html(app.openapi()))

    for router in routers:
        app.include_router(router)
    app.openapi().setdefault("components", {})["securitySchemes"] = gateway_page.SECURITY

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return refusal(gate, error)

    @app.exception_handler(HTTPException)
    async def not_served(request: Request, error: HTTPException) -> Response:
        own = Refused("request_refused", str(error.detail), status=error.status_code)
        gate.tallies.refused["http", own.reason] += 1
        return problem_response(own.problem(), dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> Response:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        gate.tallies.refused["http", "defect"] += 1
        return problem_response(Refused("defect", type(error).__name__).problem())

    return app


def bearer(request: Request) -> str:
    """The token; empty where there is none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def body_of(request: Request, seconds: float, most: int = MAX_BODY_BYTES) -> bytes:
    """Raises Refused where it is too large, too slow, or breaks off.

    What is too large is passed over to its end where that is not far: most clients do not listen before they have sent
    all, and who ends the connection on them takes the answer with it."""
    too_large = Refused("body_too_large", f"at most {most:,} bytes; send less at once")
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() else 0
    if size > PASSED_OVER * most or (size > most and "expect" in request.headers):  # it asks before it sends
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > PASSED_OVER * most:
                    break
                if size <= most:
                    parts.append(part)
    except TimeoutError:
        if size <= most:
            raise Refused("too_slow", f"{size:,} bytes in {seconds:g} s, and not the end") from None
    except ClientDisconnect:
        raise Refused("broken_off", f"after {size:,} bytes") from None
    if size > most:
        raise too_large
    return b"".join(parts)


def refusal(gate: Gate, error: Refused) -> Response:
    """What is said of a request that is not taken. It is counted."""
    gate.tallies.refused["http", error.reason] += 1
    headers = {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after + 0.5)))
    if error.reason in ("too_slow", "body_too_large", "broken_off", "too_many_connections"):
        headers["Connection"] = "close"  # the rest of the body is not waited for
    return problem_response(error.problem(), headers)


def problem_response(said: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(said, said["status"], headers, problem.MEDIA_TYPE)


class Impatient(H11Protocol):
    """Ends a connection whose next request's head has not come whole in time: uvicorn waits for it for good. Counts
    what is answered, or ended, before there is a request."""

    head_seconds = 10.0
    refused: Tally[tuple[str, str]]
    """As streaming.gateway.Tallies has it."""
    _due: asyncio.TimerHandle | None = None
    _in_body = False
    """Whether what came last began within a request's body."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        before, self._in_body = self.cycle, self.conn.their_state is h11.SEND_BODY
        super().data_received(data)
        if self.cycle is not before:
            self._stop_waiting()
        elif self._due is None and self._is_between_requests():
            self._wait()  # even for the body of what was answered already: uvicorn has stopped its own clock

    def send_400_response(self, msg: str) -> None:
        if self._in_body and self._is_between_requests():
            self.transport.close()  # of a request that was answered before its body came: no other answer can follow
            return
        if self._is_between_requests():  # else the request's own end is counted
            self.refused["http", "not_http"] += 1
        super().send_400_response(msg)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_between_requests():
            self._stop_waiting()  # from here on uvicorn's own time for an idle connection runs

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _is_between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _owes_a_head(self) -> bool:
        """Who has not sent one, or has begun the next; not who was answered already and stays."""
        return self.cycle is None or (self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0]))

    def _wait(self) -> None:
        self._due = self.loop.call_later(self.head_seconds, self._end)

    def _stop_waiting(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _end(self) -> None:
        if self._owes_a_head() and not self.transport.is_closing():
            self.refused["http", "head_too_slow"] += 1
        self.transport.abort()


def listener(settings: Settings) -> socket.socket:
    """Raises OSError where the port is taken; uvicorn would end the process."""
    made = socket.create_server((settings.bind, settings.gateway_http_port), backlog=1024)
    # asyncio sets it for sockets that it made itself alone. Without it an answer's body waits 40 ms for the client's
    # word that it has the head.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def server(app: FastAPI, settings: Settings) -> uvicorn.Server:
    """Its `serve(sockets)` runs until `should_exit` is set, then answers what it has taken."""
    gate: Gate = app.state.gate

    async def unless_crowded(scope: Scope, receive: Receive, send: Send) -> None:
        """uvicorn's own limit says nothing that a program can act on, and nobody could count it."""
        serving = made.server_state
        if max(len(serving.connections), len(serving.tasks)) <= MAX_CONNECTIONS:
            await app(scope, receive, send)
        else:
            crowded = Refused("too_many_connections", f"{MAX_CONNECTIONS:,} at once", RETRY_SECONDS)
            await refusal(gate, crowded)(scope, receive, send)

    own = {"head_seconds": settings.gateway_body_seconds, "refused": gate.tallies.refused}
    made = uvicorn.Server(
        uvicorn.Config(
            unless_crowded, http=type("Protocol", (Impatient,), own), ws="none", lifespan="off", log_config=None,
            access_log=False, server_header=False, proxy_headers=False, timeout_keep_alive=30,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
    )  # fmt: skip
    return made
