"""An HTTP server that does what its paths say, good and bad, byte by byte; it keeps what it was sent."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Request:
    line: str
    headers: dict[str, str]
    body: bytes


Act = Callable[[socket.socket, "HostileServer"], None]


def answer(status: str, *headers: str, body: bytes = b"") -> Act:
    def act(connection: socket.socket, _server: "HostileServer") -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    return act


def raw(data: bytes) -> Act:
    """These bytes, and the connection is closed."""

    def act(connection: socket.socket, _server: "HostileServer") -> None:
        connection.sendall(data)
        raise ConnectionAbortedError

    return act


def hang(_connection: socket.socket, server: "HostileServer") -> None:
    server.stopped.wait(60)


def drip(data: bytes, every_seconds: float = 0.05) -> Act:
    """A byte at a time: each within any client's patience for one read."""

    def act(connection: socket.socket, server: "HostileServer") -> None:
        for byte in data * 1000:
            connection.sendall(bytes([byte]))
            if server.stopped.wait(every_seconds):
                return

    return act


def endless(head: bytes) -> Act:
    def act(connection: socket.socket, server: "HostileServer") -> None:
        connection.sendall(head)
        while not server.stopped.is_set():
            connection.sendall(b"x" * 65536)
            server.sent += 65536

    return act


@dataclass
class HostileServer:
    """`acts`: path → what it does; another path is answered by 404."""

    acts: dict[str, Act]
    certificate: tuple[str, str] | None = None
    """Files of a certificate and its key: then it speaks TLS."""
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    sent: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "HostileServer":
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{'https' if self.certificate else 'http'}://{host}:{self.port}{path}"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ssl.SSLError, ValueError), connection:
            if self.certificate:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*self.certificate)
                connection = context.wrap_socket(connection, server_side=True)
            stream = connection.makefile("rb")
            while line := stream.readline().decode().strip():
                headers = {}
                while header := stream.readline().decode().strip():
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                body = stream.read(int(headers.get("content-length", "0")))
                self.requests.append(Request(line, headers, body))
                path = line.split()[1]
                self.acts.get(path, answer("404 Not Found", body=b"no such path"))(connection, self)
