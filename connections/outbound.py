"""HTTP to a place that a user named: one deadline for all of it, no redirects, no proxies, no address off limits.

The address is checked where the connection is made, so that a name that resolves anew cannot slip another one in.
"""

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpcore

from fleet.errors import ConfigurationError, Refused, Unavailable

MOST_BYTES = 64 * 1024
"""Of an answer; the rest of a longer one is not read."""
PIECE_BYTES = 16 * 1024
METADATA = tuple(
    ipaddress.ip_network(text)
    for text in ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16")
)
"""Where clouds keep a machine's credentials, beside 169.254.169.254, which is link-local."""
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")


def off_limits(address: str) -> bool:
    """Link-local or a cloud's metadata, however it is written."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            ip = inner
    plain = ipaddress.ip_address(str(ip).partition("%")[0])
    return plain.is_link_local or any(plain in network for network in METADATA)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """Names in small letters."""
    body: bytes
    whole: bool
    """False where it is cut: too long, too slow, or the server went away. The status stands all the same."""


class _Deadline:
    at = 0.0

    def left(self) -> float:
        seconds = self.at - time.monotonic()
        if seconds <= 0:
            raise httpcore.TimeoutException("it took too long")
        return seconds


class _Stream(httpcore.NetworkStream):
    """Gives each step the time that is left of the whole."""

    def __init__(self, inner: httpcore.NetworkStream, deadline: _Deadline):
        self._inner, self._deadline = inner, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for begin in range(0, len(buffer), PIECE_BYTES):
            self._inner.write(buffer[begin : begin + PIECE_BYTES], self._deadline.left())

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, self._deadline.left()), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Network(httpcore.NetworkBackend):
    def __init__(self, deadline: _Deadline, allow_link_local: bool):
        self._deadline, self._allow = deadline, allow_link_local
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"no address of {host}: {error}") from None
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        allowed = [each for each in addresses if self._allow or not off_limits(each)]
        if not allowed:
            raise Refused(
                f"{host} is {', '.join(addresses)}: link-local or a cloud's metadata, where nothing is sent unless the"
                " receiver has `allow_link_local: true`"
            )
        for place, address in enumerate(allowed):
            try:
                plain = self._plain.connect_tcp(address, port, self._deadline.left(), local_address, socket_options)
                return _Stream(plain, self._deadline)
            except httpcore.ConnectError:
                if place == len(allowed) - 1:
                    raise
        raise AssertionError("unreachable")


class Outbound:
    """A client of one server, for one thread. It keeps its connection while the server does."""

    def __init__(self, url: str, timeout_seconds: float, ca_file: Path | None = None, allow_link_local: bool = True):
        """Raises ConfigurationError for a URL that is none, and a CA file that is not there."""
        self.url, self._seconds = checked(url), timeout_seconds
        self._deadline = _Deadline()
        try:
            context = ssl.create_default_context(cafile=ca_file)
        except OSError as error:
            raise ConfigurationError(f"ca_file {ca_file}: {error}") from None
        self._pool = httpcore.ConnectionPool(
            ssl_context=context, network_backend=_Network(self._deadline, allow_link_local), max_connections=1,
            keepalive_expiry=30,
        )  # fmt: skip

    def request(
        self, method: str, url: str, headers: Mapping[str, str | bytes], body: bytes = b"",
        most_bytes: int = MOST_BYTES, until: float | None = None,
    ) -> Answer:  # fmt: skip
        """`until`, of time.monotonic(): the deadline of all that the request is a part of. Raises Unavailable where no
        answer came, Refused where the address is off limits."""
        self._deadline.at = time.monotonic() + self._seconds if until is None else until
        try:
            with self._pool.stream(method, url, headers=list(headers.items()), content=body) as response:
                told = {name.decode("latin-1").lower(): text.decode("latin-1") for name, text in response.headers}
                content, whole = _read(response, most_bytes)
                return Answer(response.status, told, content, whole)
        except httpcore.TimeoutException:
            self.close()
            raise Unavailable(f"no answer within {self._seconds:g} s") from None
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            self.close()
            raise Unavailable(_reason(error)) from None

    def close(self) -> None:
        self._pool.close()


def _read(response: httpcore.Response, most_bytes: int) -> tuple[bytes, bool]:
    body = bytearray()
    try:
        for chunk in response.iter_stream():
            body += chunk
            if len(body) > most_bytes:
                return bytes(body[:most_bytes]), False
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError):
        return bytes(body), False
    return bytes(body), True


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error.__context__ or error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not good: {cause.verify_message}; nothing was sent"
    return f"{type(error).__name__}: {error}".rstrip(": ")


def checked(url: str) -> str:
    """Raises ConfigurationError unless it is http or https with a host, and no password in it."""
    parts = urlsplit(url)
    try:
        port_is_good = parts.port != 0
    except ValueError:
        port_is_good = False
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_good:
        raise ConfigurationError(f"{url!r} is no address such as https://example.org/hook")
    if "@" in parts.netloc:
        raise ConfigurationError(f"the address at {parts.hostname} has a user in it, where it would show in logs")
    return url
