"""`POST /v1/commands` and `GET /v1/commands/{id}`: routes that the gateway's application mounts.

People show the operator's token (`Authorization: Bearer …`, WEIR_OPERATOR_TOKEN), never a device's. Errors are
application/problem+json (RFC 9457) and say what to change.
"""

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from connections.warehouse import Warehouse
from fleet.catalog import Catalog
from fleet.errors import CommandConflict, CommandError, WeirError
from fleet.settings import Settings
from streaming.command_requests import TEXT_CHARACTERS, request
from streaming.command_table import found

PROBLEM = "application/problem+json"
MAX_BODY_BYTES = 16 * 1024
BODY_SECONDS = 10.0
"""For the whole body: who sends it by drops holds nothing up."""


class Problem(Exception):
    def __init__(self, code: int, title: str, detail: str, **more: Any):
        self.code, self.body = code, {"title": title, "status": code, "detail": detail, **more}

    def response(self) -> JSONResponse:
        headers = {"WWW-Authenticate": "Bearer"} if self.code == status.HTTP_401_UNAUTHORIZED else None
        return JSONResponse(self.body, self.code, headers, PROBLEM)


class _ProblemRoute(APIRoute):
    """Whatever application mounts these routes, its clients get problems."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(asked: Request) -> Response:
            try:
                if asked.method == "POST":
                    await _wait_for_body(asked)
                return await handle(asked)
            except Problem as problem:
                return problem.response()
            except HTTPException as error:  # bytes that no JSON has
                return Problem(error.status_code, "not a command", str(error.detail)).response()
            except RequestValidationError as error:
                wrong = [{"field": ".".join(map(str, e["loc"][1:])), "problem": e["msg"]} for e in error.errors()]
                said = "; ".join(f"{w['field'] or 'the body'}: {w['problem']}" for w in wrong)
                return Problem(status.HTTP_422_UNPROCESSABLE_CONTENT, "not a command", said, errors=wrong).response()
            except CommandConflict as error:
                return Problem(status.HTTP_409_CONFLICT, "another command has this id", str(error)).response()
            except CommandError as error:
                return Problem(status.HTTP_422_UNPROCESSABLE_CONTENT, "no such command", str(error)).response()
            except WeirError as error:
                code = status.HTTP_503_SERVICE_UNAVAILABLE if error.retryable else status.HTTP_500_INTERNAL_SERVER_ERROR
                return Problem(code, "the command was not taken", str(error)).response()

        return handled


async def _wait_for_body(asked: Request) -> None:
    """Raises Problem where it is no JSON, too large, comes too slowly or breaks off. The request keeps it."""
    kind = asked.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "application/json":
        said = f"Content-Type is {kind[:80]!r}; send application/json"
        raise Problem(status.HTTP_415_UNSUPPORTED_MEDIA_TYPE, "not JSON", said)
    length = asked.headers.get("content-length", "")
    if not length.isdigit():
        raise Problem(status.HTTP_411_LENGTH_REQUIRED, "how long is it?", "say the body's length in Content-Length")
    if int(length) > MAX_BODY_BYTES:
        said = f"{int(length):,} bytes; at most {MAX_BODY_BYTES:,}"
        raise Problem(status.HTTP_413_CONTENT_TOO_LARGE, "too large", said)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            await asked.body()
    except TimeoutError:
        said = f"the body did not come within {BODY_SECONDS:g} s"
        raise Problem(status.HTTP_408_REQUEST_TIMEOUT, "too slow", said) from None
    except ClientDisconnect:
        raise Problem(status.HTTP_400_BAD_REQUEST, "half a body", "the connection was closed in between") from None


class NewCommand(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    device: str = Field(min_length=1, max_length=64, examples=["lamp-1"])
    command: str = Field(min_length=1, max_length=48, examples=["on"])
    args: dict[str, Annotated[float, Field(strict=False, allow_inf_nan=False)]] = {}
    type: str | None = None
    """Where several types have a device of that id."""
    id: str | None = Field(default=None, min_length=1, max_length=64)
    """The same id again is the same command."""
    by: str = Field(default="operator", max_length=TEXT_CHARACTERS)
    why: str = Field(default="", max_length=TEXT_CHARACTERS)


def routes(settings: Settings, warehouse: Warehouse, catalog: Callable[[], Catalog]) -> APIRouter:
    """`catalog` gives the device types as they are now. Without a token in the settings nobody is let in."""
    token = settings.operator_token.get_secret_value()

    def operator(authorization: Annotated[str, Header()] = "") -> None:
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token or not secrets.compare_digest(given.encode(), token.encode()):
            raise Problem(
                status.HTTP_401_UNAUTHORIZED, "who are you?",
                "commands want `Authorization: Bearer …` with the operator's token, WEIR_OPERATOR_TOKEN in"
                " var/env/operator.env; a device's token is none",
            )  # fmt: skip

    router = APIRouter(
        prefix="/v1/commands", tags=["commands"], route_class=_ProblemRoute, dependencies=[Depends(operator)]
    )

    @router.post("", status_code=status.HTTP_202_ACCEPTED)
    def ask(new: NewCommand, response: Response) -> dict[str, Any]:
        """Keeps a command for a device; the commander sends it. 200 where it was asked for before."""
        command_id, is_new = request(
            warehouse, catalog(), new.device, new.command, new.args,
            via="http", by=new.by, why=new.why, type_name=new.type, command_id=new.id,
        )  # fmt: skip
        if not is_new:
            response.status_code = status.HTTP_200_OK
        response.headers["Location"] = f"/v1/commands/{command_id}"
        return found(warehouse, command_id)

    @router.get("/{command_id}")
    def show(command_id: str) -> dict[str, Any]:
        """How a command stands, and when it came to each state."""
        try:
            return found(warehouse, command_id)
        except CommandError as error:
            raise Problem(status.HTTP_404_NOT_FOUND, "no such command", str(error)) from None

    return router
