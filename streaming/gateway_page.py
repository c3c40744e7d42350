"""What the gateway says of itself: the OpenAPI document's parts, and a page of it that needs nobody else's scripts."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from fleet import problem, senml

DESCRIPTION = """\
Readings of devices, and commands to them, by HTTP. Each device has a token, and speaks for itself alone; people have
another. 202 says of readings that Kafka has every one. Where some of a batch are bad, the others were taken all the
same: the answer names the bad ones, and what was answered with 4xx need not be sent again as it is. After 429 or 503,
or without an answer, send again what was not answered; a copy is found and counted once, and a command with the same id
is the same command."""
OF_OPERATORS = "the operator's token, WEIR_OPERATOR_TOKEN in var/env/operator.env; a device's token is none"
SECURITY = {
    name: {"type": "http", "scheme": "bearer", "description": f"`Authorization: Bearer …` with {whose}."}
    for name, whose in {
        "token": "the device's token (`weir devices credentials issue`)",
        "operator": OF_OPERATORS,
    }.items()
}
"""Scheme → what the document says of it."""

READING: dict[str, Any] = {
    "type": "object",
    "required": ["device_id", "event_time", "values"],
    "additionalProperties": False,
    "properties": {
        "device_id": {"type": "string", "description": "The token's device."},
        "event_time": {
            "oneOf": [{"type": "string", "format": "date-time"}, {"type": "number"}],
            "description": "RFC 3339, or epoch milliseconds.",
        },
        "seq": {"type": "integer", "description": "The device's own count of its readings; may be left out."},
        "values": {
            "type": "object",
            "description": "Metrics of the device's type.",
            "additionalProperties": {"type": ["number", "boolean", "null"]},
        },
    },
}
_EXAMPLE = {"device_id": "climate-1", "event_time": "2026-11-01T07:30:00Z", "seq": 1, "values": {"temperature": 20.5}}
_PACK = [{"bn": "climate-1/", "n": "temperature", "u": "Cel", "v": 20.5}, {"n": "humidity", "u": "%RH", "v": 48}]
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "reason"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "reason": {"type": "string"},
        "detail": {"type": "string"},
        "field": {"type": "string", "description": "The one that is to blame."},
        "accepted": {"type": "integer", "description": "Readings of the body that were taken."},
        "rejected": {"type": "integer"},
        "errors": {"type": "array", "items": {"type": "object"}, "description": "Of a batch: index, reason, field."},
    },
}
_ERRORS: dict[int | str, str] = {
    400: "not JSON, or no list of readings",
    401: "no token, nobody's token, or one that has ended",
    403: "another device's reading, or a device that is not, or no longer, in the registry",
    408: "the body did not come in time",
    413: "the body or a reading is too large, or has too many readings",
    415: "the body is of another kind",
    422: "readings that break the type's contract",
    429: "the device sends more than it may; Retry-After says when",
    503: "Kafka, or the registry, is away, or too many are connected: nothing was acknowledged",
}


def refusals(told: Mapping[int | str, str]) -> dict[int | str, dict[str, Any]]:
    """Status, or `default` for all others, and what it means → OpenAPI's responses."""
    content = {problem.MEDIA_TYPE: {"schema": _PROBLEM}}
    return {status: {"description": meaning, "content": content} for status, meaning in told.items()}


POST: dict[str, Any] = {
    "summary": "Send one reading or several",
    "status_code": 202,
    "responses": {
        202: {
            "description": "Kafka has all of them",
            "content": {"application/json": {"example": {"accepted": 1}}},
        },
        **refusals(_ERRORS),
    },
    "openapi_extra": {
        "security": [{"token": []}],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"oneOf": [READING, {"type": "array", "items": READING, "maxItems": 1000}]},
                    "example": _EXAMPLE,
                },
                senml.MEDIA_TYPE: {"schema": {"type": "array", "items": {"type": "object"}}, "example": _PACK},
            },
        },
    },
}
GET: dict[str, Any] = {
    "summary": "The device's own newest reading that came by the gateway",
    "responses": {
        200: {"description": "As it is in Kafka"},
        204: {"description": "There is none"},
        **refusals({401: _ERRORS[401]}),
    },
    "openapi_extra": {"security": [{"token": []}]},
}


def html(document: dict[str, Any]) -> str:
    """The OpenAPI document for people."""
    info, schemes = document["info"], document["components"]["securitySchemes"]
    parts = [f"<h1>{escape(info['title'])}</h1><p>{escape(info.get('description', ''))}</p>"]
    parts.append('<p>For programs: <a href="openapi.json">openapi.json</a></p>')
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            parts.append(
                f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(said.get('summary', ''))}</p>"
            )
            whose = [schemes[name]["description"] for needed in said.get("security", ()) for name in needed]
            parts += [f"<p>{escape(text)}</p>" for text in (said.get("description", ""), *whose) if text]
            for kind, content in said.get("requestBody", {}).get("content", {}).items():
                if "example" in content:
                    shown = escape(json.dumps(content["example"], indent=1))
                    parts.append(f"<p><code>{escape(kind)}</code></p><pre>{shown}</pre>")
            rows = "".join(
                f"<tr><td>{escape(str(status))}</td><td>{escape(answer.get('description', ''))}</td></tr>"
                for status, answer in said.get("responses", {}).items()
            )
            parts.append(f"<table>{rows}</table>")
    style = "body{font:16px sans-serif;max-width:50em;margin:2em auto;padding:0 1em}td{padding:.2em 1em .2em 0}"
    title = escape(info["title"])
    return f'<!doctype html><html lang="en"><title>{title}</title><style>{style}</style>{"".join(parts)}</html>'
