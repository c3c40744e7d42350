"""Why a request is refused, in a form that a program can act on: RFC 9457, `application/problem+json`. Pure."""

from collections.abc import Sequence
from typing import Any

from fleet.contract import REASONS, Reject

MEDIA_TYPE = "application/problem+json"
MOST_TOLD = 100
"""Of the bad readings of a batch."""

STATUS = {
    "malformed_json": 400,
    "not_utf8": 400,
    "oversized": 413,
    "unknown_device": 403,
    "retired_device": 403,
    "identity_mismatch": 403,
    "contract_error": 500,
}
"""Of what the contract or the registry refuses; the others are 422."""

REFUSALS: dict[str, tuple[int, str]] = {
    "no_token": (401, "the request carries no token"),
    "wrong_token": (401, "the token is nobody's"),
    "token_ended": (401, "the token was revoked, or another has taken its place"),
    "unsupported_media_type": (415, "the body is of a kind that is not taken"),
    "body_too_large": (413, "the body is larger than is read"),
    "too_many_readings": (413, "more readings in one body than are taken"),
    "too_slow": (408, "the body did not come in time"),
    "head_too_slow": (408, "the head did not come in time; the connection was ended without an answer"),
    "not_http": (400, "what came is no request of HTTP, or its head is too large"),
    "not_coap": (400, "an option of the datagram is no UTF-8; it was passed over"),
    "too_many_connections": (503, "more connections than are served at once"),
    "broken_off": (400, "the body ended before its end"),
    "rate_limited": (429, "the device sends more than it may"),
    "kafka_unavailable": (503, "Kafka does not confirm; nothing was acknowledged"),
    "registry_unavailable": (503, "the registry has not been read yet"),
    "not_a_command": (422, "the body is no command"),
    "no_such_command": (422, "no device, or none of its kind, obeys that"),
    "unknown_command": (404, "no command has this id"),
    "command_conflict": (409, "another command has this id"),
    "commands_unavailable": (503, "the table of commands is away; ask again with the same id"),
    "request_refused": (400, "the request is none that is served here"),
    "defect": (500, "a defect of Weir, not of the sender"),
}
"""What the gateway refuses by itself: reason → status and what it means. It is counted, and leaves no dead letter: what
nobody has shown a right to send must not fill the log."""


class Refused(Exception):
    """A request that is not taken, by a reason of REFUSALS. `retry_after`: seconds."""

    def __init__(self, reason: str, detail: str = "", retry_after: float | None = None, status: int | None = None):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.retry_after = reason, detail, retry_after
        self.status = status or REFUSALS[reason][0]

    def problem(self) -> dict[str, Any]:
        return _problem(self.reason, self.status, REFUSALS[self.reason][1], self.detail)


def problem_of(rejects: Sequence[tuple[int | None, Reject]], accepted: int) -> dict[str, Any]:
    """Of a body some or all of whose readings are none: (place in the batch, why). The others were taken, so that
    sending all again would only make duplicates."""
    first = rejects[0][1]
    found = {_status(reject.reason) for _, reject in rejects}
    status = found.pop() if len(found) == 1 else 422
    problem = _problem(first.reason, status, REASONS[first.reason], first.detail)
    if first.field:
        problem["field"] = _plain(first.field)
    if rejects[0][0] is not None:
        problem["detail"] = f"{len(rejects)} of {accepted + len(rejects)} readings were refused; {first.detail}"
        problem["errors"] = [
            {"index": place, "reason": r.reason, "detail": _plain(r.detail)}
            | ({"field": _plain(r.field)} if r.field else {})
            for place, r in rejects[:MOST_TOLD]
        ]
    return problem | {"accepted": accepted, "rejected": len(rejects)}


def _status(reason: str) -> int:
    return STATUS.get(reason, 422)


def _problem(reason: str, status: int, title: str, detail: str) -> dict[str, Any]:
    said = {"type": f"urn:weir:problem:{reason}", "title": title, "status": status, "reason": reason}
    return said | ({"detail": _plain(detail)} if detail else {})


def _plain(detail: str) -> str:
    """JSON may name half a surrogate pair, which UTF-8 cannot."""
    return detail.encode("utf-8", "backslashreplace").decode()
