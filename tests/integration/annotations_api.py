"""A server that does what Grafana's documentation says of its annotations API: find, create, patch; basic or token.

It is no Grafana. https://grafana.com/docs/grafana/latest/developers/http_api/annotations/
"""

import base64
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class AnnotationsApi:
    token: str = "token"
    user: str = "admin"
    password: str = "secret"
    prefix: str = ""
    port: int = 0
    """0: any that is free."""
    answer: tuple[int, dict[str, str], bytes] | None = None
    """What it answers to everything, instead."""
    annotations: dict[int, dict[str, Any]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def __enter__(self) -> "AnnotationsApi":
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}{self.prefix}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def lets_in(self, authorization: str) -> bool:
        basic = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return authorization in (f"Bearer {self.token}", f"Basic {basic}")

    def find(self, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        """All tags have to be there. By default the 100 newest."""
        wanted = set(query.get("tags", []))
        limit = int(query.get("limit", ["100"])[0])
        newest = sorted(self.annotations.values(), key=lambda a: -a["timeEnd"])
        return [each for each in newest if wanted <= set(each["tags"])][:limit]

    def create(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if not body.get("text"):
            return 400, {"message": "Failed to save annotation"}
        begin = body.get("time") or 0
        number = len(self.annotations) + 1
        self.annotations[number] = {
            "id": number, "dashboardId": body.get("dashboardId") or 0, "time": begin,
            "timeEnd": body.get("timeEnd") or begin, "tags": body.get("tags") or [], "text": body["text"],
        }  # fmt: skip
        return 200, {"message": "Annotation added", "id": number}

    def patch(self, number: int, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """A time of 0 or null and an empty text change nothing; a list of tags does, even an empty one."""
        if number not in self.annotations:
            return 404, {"message": "Could not find annotation to update"}
        there = self.annotations[number]
        there |= {name: body[name] for name in ("time", "timeEnd", "text") if body.get(name)}
        if body.get("tags") is not None:
            there["tags"] = body["tags"]
        return 200, {"message": "Annotation patched"}


def _handler(api: AnnotationsApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            api.requests.append(f"{self.command} {self.path}")
            if api.answer:
                self._say(*api.answer)
                return
            if self.path == f"{api.prefix}/api/health":  # anybody may ask that
                self._json(200, {"database": "ok", "version": "9.4.7"})
                return
            if not api.lets_in(self.headers.get("Authorization", "")):
                self._json(401, {"message": "Invalid username or password"})
                return
            parts = urlsplit(self.path.removeprefix(api.prefix))
            match self.command, parts.path.strip("/").split("/"):
                case "GET", ["api", "annotations"]:
                    self._json(200, api.find(parse_qs(parts.query)))
                case "POST", ["api", "annotations"]:
                    self._json(*api.create(body))
                case "PATCH", ["api", "annotations", number]:
                    self._json(*api.patch(int(number), body))
                case "GET", ["api", "dashboards", "uid", "home"]:
                    self._json(200, {"dashboard": {"id": 7}, "meta": {}})
                case _:
                    self._json(404, {"message": "Not found"})

        do_GET = do_POST = do_PATCH = _serve

        def _json(self, status: int, body: object) -> None:
            self._say(status, {"Content-Type": "application/json"}, json.dumps(body).encode())

        def _say(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
