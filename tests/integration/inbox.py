"""A webhook's other end, kept by a test: remembers each message by its id, and answers as it is told."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Arrived:
    id: str
    body: dict[str, Any]
    at: float
    """By time.time()."""


class Inbox:
    def __init__(self) -> None:
        self.arrived: list[Arrived] = []
        """All that was answered 200, in order of arrival, what came again too."""
        self.asked: list[str] = []
        """The id of every request."""
        self.answer: Callable[[str], int] = lambda _id: 200
        self.headers: dict[str, str] = {}
        self.hang = threading.Event()
        """While set, nobody is answered."""
        self._ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/hook"

    def ids(self) -> list[str]:
        """In order of their first arrival."""
        return list(dict.fromkeys(a.id for a in self.arrived))

    def close(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> "Inbox":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                at = time.time()
                body = self.rfile.read(int(self.headers["Content-Length"]))
                message = self.headers["webhook-id"]
                inbox.asked.append(message)
                while inbox.hang.is_set() and not inbox._ended.wait(0.05):
                    pass
                status = inbox.answer(message)
                if status == 200:
                    inbox.arrived.append(Arrived(message, json.loads(body), at))
                self.send_response(status)
                for name, value in inbox.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
