"""`POST /v1/commands` and `GET /v1/commands/{id}`: routes of the gateway's application.

People show the operator's token (`Authorization: Bearer …`, WEIR_OPERATOR_TOKEN), never a device's. What is refused is
refused as readings are: streaming/gateway_http.py makes problem+json of it, and counts it.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response, status
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from connections.warehouse import Warehouse
from fleet.catalog import Catalog
from fleet.errors import CommandConflict, CommandError, Unavailable
from fleet.problem import REFUSALS, Refused
from fleet.settings import Settings
from streaming.command_requests import TEXT_CHARACTERS, request
from streaming.command_table import found
from streaming.gateway_http import bearer, body_of
from streaming.gateway_page import OF_OPERATORS, refusals

JSON = "application/json"
MAX_BODY_BYTES = 16 * 1024


class NewCommand(BaseModel):
    # The docstrings of its fields are descriptions in the OpenAPI document.
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    device: str = Field(min_length=1, max_length=64, examples=["lamp-1"])
    command: str = Field(min_length=1, max_length=48, examples=["on"])
    args: dict[str, Annotated[float, Field(strict=False, allow_inf_nan=False)]] = {}
    type: str | None = None
    """Where several types have a device of that id."""
    id: str | None = Field(default=None, min_length=1, max_length=64)
    """The same id again is the same command."""
    by: str = Field(default="operator", max_length=TEXT_CHARACTERS)
    """Who asks, as the caller says: all have the same token, and nothing checks it."""
    why: str = Field(default="", max_length=TEXT_CHARACTERS)
    """For the record."""


EXAMPLE = {"device": "lamp-1", "command": "dim", "args": {"level": 40}, "by": "ann", "why": "film night"}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": NewCommand.model_json_schema(), "example": EXAMPLE}},
    }
}
SECURED: dict[str, Any] = {"security": [{"operator": []}]}
_ERRORS: dict[int | str, str] = {
    401: "no token, or another than the operator's",
    503: f"{REFUSALS['commands_unavailable'][1]}; or {REFUSALS['too_many_connections'][1]}",
    "default": "another refusal, such as 500 for a defect of Weir",
}
POST: dict[str, Any] = {
    "summary": "Tell a device what to do",
    "status_code": status.HTTP_202_ACCEPTED,
    "responses": {
        202: {"description": "It is kept, and the commander sends it; Location says where to see how it stands"},
        200: {"description": "It was asked for before, with this id"},
        **refusals(
            {
                400: REFUSALS["broken_off"][1],
                408: REFUSALS["too_slow"][1],
                409: REFUSALS["command_conflict"][1],
                413: REFUSALS["body_too_large"][1],
                415: REFUSALS["unsupported_media_type"][1],
                422: f"{REFUSALS['not_a_command'][1]}, or {REFUSALS['no_such_command'][1]}",
                **_ERRORS,
            }
        ),
    },
    "openapi_extra": BODY | SECURED,
}
GET: dict[str, Any] = {
    "summary": "How a command stands, and when it came to each state",
    "responses": {
        200: {"description": "All that is known of it"},
        **refusals({404: REFUSALS["unknown_command"][1], **_ERRORS}),
    },
    "openapi_extra": SECURED,
}


def routes(settings: Settings, warehouse: Warehouse, catalog: Callable[[], Catalog]) -> APIRouter:
    """`catalog` gives the device types as they are now. Without a token in the settings nobody is let in."""
    token = settings.operator_token.get_secret_value()

    async def operator(asked: Request) -> None:
        given = bearer(asked)
        if not token or not secrets.compare_digest(given.encode(), token.encode()):
            wanted = f"commands want `Authorization: Bearer …` with {OF_OPERATORS}"
            raise Refused("wrong_token" if given else "no_token", wanted)

    # Before the body is read: a route that reads it by itself is asked for it after its dependencies.
    router = APIRouter(prefix="/v1/commands", tags=["commands"], dependencies=[Depends(operator)])

    def kept(new: NewCommand) -> tuple[dict[str, Any], bool]:
        with _refusing("no_such_command"):
            command_id, is_new = request(
                warehouse, catalog(), new.device, new.command, new.args,
                via="http", by=new.by, why=new.why, type_name=new.type, command_id=new.id,
            )  # fmt: skip
            return found(warehouse, command_id), is_new

    @router.post("", **POST)
    async def ask(asked: Request, response: Response) -> dict[str, Any]:
        """The record has `by`, which is what the caller says, and nothing checks it; and `via`, the way it came: here
        `http`, which is the operator's token."""
        kind = asked.headers.get("content-type", JSON).partition(";")[0].strip().lower()
        if kind != JSON:
            raise Refused("unsupported_media_type", f"{kind[:80]!r}; send {JSON}")
        row, is_new = await run_in_threadpool(
            kept, _new_command(await body_of(asked, settings.gateway_body_seconds, MAX_BODY_BYTES))
        )
        if not is_new:
            response.status_code = status.HTTP_200_OK
        response.headers["Location"] = f"/v1/commands/{row['command_id']}"
        return row

    @router.get("/{command_id}", **GET)
    def show(command_id: str) -> dict[str, Any]:
        with _refusing("unknown_command"):
            return found(warehouse, command_id)

    return router


def _new_command(body: bytes) -> NewCommand:
    try:
        return NewCommand.model_validate_json(body)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc'])) or 'the body'}: {e['msg']}" for e in error.errors(include_url=False)]
        raise Refused("not_a_command", "; ".join(wrong)) from None


@contextmanager
def _refusing(reason: str) -> Iterator[None]:
    """What the checks and the table raise, as what the application answers; CommandError by this reason."""
    try:
        yield
    except CommandConflict as error:
        raise Refused("command_conflict", str(error)) from None
    except CommandError as error:
        raise Refused(reason, str(error)) from None
    except Unavailable as error:
        raise Refused("commands_unavailable", str(error)) from None
