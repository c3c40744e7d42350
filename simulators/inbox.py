"""The people of the demo: a webhook and a mail server that check what they get, and a page that says what arrived.

POST /hook   401 for a wrong signature     GET /        what arrived, as JSON
GET  /ready                                SMTP         STARTTLS and user `weir` are wanted
"""

import json
import logging
import ssl
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from fleet.errors import ConfigurationError
from fleet.settings import Settings
from simulators.arrivals import Arrivals

USER = "weir"
MOST_BYTES = 8 * 1024 * 1024
log = logging.getLogger("weir.inbox")


class Inbox:
    def __init__(self, settings: Settings):
        """Raises ConfigurationError where a port, a secret or the certificate is missing."""
        for name in ("port", "smtp_port", "webhook_secret", "smtp_password", "certificate", "key"):
            if not getattr(settings, f"inbox_{name}"):
                raise ConfigurationError(f"WEIR_INBOX_{name.upper()} is not set; `make setup` writes it into inbox.env")
        self._settings = settings
        self._arrivals = Arrivals(settings.inbox_webhook_secret.get_secret_value())

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set."""
        settings = self._settings
        mail = Mailbox(settings, self._arrivals)
        web = ThreadingHTTPServer((settings.bind, settings.inbox_port), _handler(self._arrivals))
        mail.start()
        try:
            threading.Thread(target=web.serve_forever, name="web", daemon=True).start()
            log.info("webhook=%s smtp=%s:%d", settings.inbox_url, settings.bind, settings.inbox_smtp_port)
            stop.wait()
        finally:
            web.shutdown()
            web.server_close()
            mail.stop()


class Mailbox(Controller):
    """A mail server, in a thread of its own, that takes mail for anybody from user `weir`."""

    def __init__(self, settings: Settings, arrivals: Arrivals):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        assert settings.inbox_certificate and settings.inbox_key
        context.load_cert_chain(settings.inbox_certificate, settings.inbox_key)
        self._arrivals, self._password = arrivals, settings.inbox_smtp_password.get_secret_value()
        super().__init__(
            self, settings.bind, settings.inbox_smtp_port, tls_context=context, require_starttls=True,
            auth_required=True, authenticator=self._let_in, data_size_limit=MOST_BYTES,
        )  # fmt: skip

    def _let_in(self, _server: SMTP, _session: Session, _envelope: Envelope, _way: str, data: object) -> AuthResult:
        given = (data.login, data.password) if isinstance(data, LoginPassword) else None
        return AuthResult(success=given == (USER.encode(), self._password.encode()), handled=False)

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        self._arrivals.mail(list(envelope.rcpt_tos), content, session.ssl is not None)
        return "250 kept"


def _handler(arrivals: Arrivals) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def do_GET(self) -> None:
            if self.path == "/ready":
                self._answer(200, "ready\n")
            elif self.path == "/":
                self._answer(200, json.dumps(arrivals.told(), indent=2) + "\n", "application/json")
            else:
                self._answer(404, f"no {self.path}; there are /, /ready and (POST) /hook\n")

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if self.path != "/hook" or not length.isdigit() or int(length) > MOST_BYTES:
                self.close_connection = True  # the body is not read
                self._answer(404 if self.path != "/hook" else 413, "POST /hook takes up to 8 MiB\n")
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, wrong = arrivals.hook(headers, self.rfile.read(int(length)), datetime.now(UTC))
            if wrong:
                log.warning("hook refused: %s", wrong)
            self._answer(status, f"{wrong or 'kept'}\n")

        def _answer(self, status: int, text: str, kind: str = "text/plain; charset=utf-8") -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
