"""An SMTP server on aiosmtpd that says no where it is told to; it keeps what it was sent."""

import email
import socket
import ssl
import threading
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage
from pathlib import Path

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


@dataclass
class Behaviour:
    """`at`: verb → what it answers instead of 250. `recipients`: address → the same."""

    at: dict[str, str] = field(default_factory=dict)
    recipients: dict[str, list[str]] = field(default_factory=dict)
    """One answer an attempt; 250 when they are used up."""


@dataclass
class SmtpServer:
    certificate: tuple[Path, Path] | None = None
    implicit_tls: bool = False
    password: str = ""
    behaviour: Behaviour = field(default_factory=Behaviour)
    mails: list[tuple[list[str], EmailMessage, bool]] = field(default_factory=list)
    """To whom, what, and whether it came encrypted."""
    port: int = 0
    """The same when it is entered again."""

    def __enter__(self) -> "SmtpServer":
        context = None
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.certificate)
        with socket.create_server(("127.0.0.1", self.port)) as free:
            self.port = free.getsockname()[1]
        self._controller = Controller(
            self, "127.0.0.1", self.port, ssl_context=context if self.implicit_tls else None,
            tls_context=None if self.implicit_tls else context, authenticator=self._authenticate,
            auth_required=bool(self.password), auth_require_tls=bool(context), decode_data=False,
        )  # fmt: skip
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()

    def _authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _way: str, data: object
    ) -> AuthResult:
        good = isinstance(data, LoginPassword) and data.password == self.password.encode()
        return AuthResult(success=good, handled=False)

    async def handle_MAIL(
        self, _s: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if "MAIL" in self.behaviour.at:
            return self.behaviour.at["MAIL"]
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(
        self, _s: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if waiting := self.behaviour.recipients.get(address):
            return waiting.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:
        if "DATA" in self.behaviour.at:
            return self.behaviour.at["DATA"]
        content = envelope.content
        assert isinstance(content, bytes)
        mail = email.message_from_bytes(content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append((envelope.rcpt_tos, mail, session.ssl is not None or self.implicit_tls))
        return "250 kept"


class RawServer:
    """Says `greeting`, by the byte if asked to, and then nothing more."""

    def __init__(self, greeting: bytes, drip: bool = False):
        self._greeting, self._drip, self._stop = greeting, drip, threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> "RawServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._listener.close()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            if self._greeting == b"":
                return
            for byte in self._greeting * (1000 if self._drip else 1):
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    return
                if self._drip and self._stop.wait(0.05):
                    return
            self._stop.wait(60)
