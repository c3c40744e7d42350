"""Notifications by mail, through an SMTP server."""

import contextlib
import smtplib
import socket
import ssl
import threading
from email.utils import parseaddr

from fleet.errors import ConfigurationError
from fleet.mail import mail_of, one_line
from fleet.notification import Delivered, Notification, Outcome, Partly, Refused, Retry
from fleet.receivers import EmailOptions

CLOSING = 421
"""The server ends the connection."""
Refusals = dict[str, tuple[int, bytes]]


class _NotEncrypted(Exception):
    """The server offers no STARTTLS."""


class _NotLetIn(Exception):
    """The server refused before it was offered a mail."""


class Email:
    """One connection a mail.

    What goes wrong before a mail is offered is a Retry, be it no STARTTLS, a bad certificate or a password that is no
    longer right: such things are repaired within hours, and would else make dead letters of every alert.
    """

    def __init__(self, options: EmailOptions):
        """Raises ConfigurationError for a CA file that is not there."""
        self._options = options
        self._sender = parseaddr(options.sender)[1]
        self._to = list(dict.fromkeys(parseaddr(address)[1] for address in options.to))
        try:
            self._tls = ssl.create_default_context(cafile=options.ca_file)
        except OSError as error:
            raise ConfigurationError(f"ca_file {options.ca_file}: {error}") from None
        name = socket.gethostname()
        self._own_name = name if "." in name else "[127.0.0.1]"

    def send(self, notification: Notification) -> Outcome:
        """To all addresses, or to those of them that are left; to none to which an earlier mail is still to go."""
        left = notification.only_to
        wanted = [address for address in self._to if not left or address in left]
        if not wanted:
            return Refused(f"the file of receivers no longer has {', '.join(left)}")
        behind = {address: why for address, why in notification.but_not_to.items() if address in wanted}
        asked = [address for address in wanted if address not in behind]
        if not asked:
            return Partly(behind)
        refused = self._offered(notification, asked)
        return _outcome(asked, refused, behind, whole=not left) if isinstance(refused, dict) else refused

    def close(self) -> None:
        """Nothing is kept open."""

    def _offered(self, notification: Notification, asked: list[str]) -> Refusals | Outcome:
        """Who does not take it, or what went wrong for everybody. Where the server ends the connection at one of the
        addresses nobody has the mail yet, and it is offered to the others anew."""
        refused: Refusals = {}
        while left := [address for address in asked if address not in refused]:
            found = self._asked(notification, left)
            if not isinstance(found, dict):
                return found
            refused |= found
            if not any(code == CLOSING for code, _ in found.values()):
                break
        return refused

    def _asked(self, notification: Notification, asked: list[str]) -> Refusals | Outcome:
        options = self._options
        mail = mail_of(notification, options.sender, options.to, options.external_url).as_bytes()
        session = self._session()
        deadline = _Deadline(session, options.timeout_seconds)
        try:
            self._let_in(session)
            deadline.check()
            return session.sendmail(self._sender, asked, mail)
        except smtplib.SMTPRecipientsRefused as error:
            return error.recipients
        except Exception as error:
            return self._failed(error, deadline.passed)
        finally:
            deadline.cancel()
            _hang_up(session)

    def _session(self) -> smtplib.SMTP:
        """Not connected yet: that, too, has to end in time."""
        name, seconds = self._own_name, self._options.timeout_seconds
        if self._options.implicit_tls:
            session: smtplib.SMTP = smtplib.SMTP_SSL(local_hostname=name, timeout=seconds, context=self._tls)
        else:
            session = smtplib.SMTP(local_hostname=name, timeout=seconds)
        # The name in the certificate; `connect` alone does not keep it.
        session._host = self._options.host  # type: ignore[attr-defined]
        return session

    def _let_in(self, session: smtplib.SMTP) -> None:
        try:
            self._open(session)
        except smtplib.SMTPResponseException as error:
            raise _NotLetIn(_said(error.smtp_code, error.smtp_error)) from error
        except smtplib.SMTPNotSupportedError as error:
            raise _NotLetIn(str(error)) from error

    def _open(self, session: smtplib.SMTP) -> None:
        options = self._options
        code, said = session.connect(options.host, options.port)
        if code != 220:
            raise smtplib.SMTPConnectError(code, said)
        session.ehlo_or_helo_if_needed()
        encrypted = options.implicit_tls
        if not encrypted and options.starttls != "never":
            if session.has_extn("starttls"):
                session.starttls(context=self._tls)
                session.ehlo_or_helo_if_needed()
                encrypted = True
            elif options.starttls == "required":
                raise _NotEncrypted
        if options.user:
            if not encrypted and options.starttls != "never":
                raise smtplib.SMTPNotSupportedError(
                    "it offers no STARTTLS, and the password is not sent in the clear unless `starttls: never` says so"
                )
            session.login(options.user, options.password.get_secret_value())

    def _failed(self, error: Exception, too_late: bool) -> Outcome:
        where = f"{self._options.host}:{self._options.port}"
        match error:
            case _ if too_late or isinstance(error, TimeoutError) or isinstance(error.__context__, TimeoutError):
                # smtplib says "closed" of its own timeout, which may be as soon as the deadline.
                return Retry(f"{where} did not take it within {self._options.timeout_seconds:g} s")
            case smtplib.SMTPSenderRefused(smtp_code=530, smtp_error=said):  # it wants a login
                return Retry(f"{where}: {_said(530, said)}")
            case smtplib.SMTPResponseException(smtp_code=code, smtp_error=said):
                told = f"{where}: {_said(code, said)}"
                return Refused(told) if 500 <= code < 600 else Retry(told)
            case _NotLetIn():
                return Retry(f"{where}: {error}")
            case _NotEncrypted():
                return Retry(f"{where} offers no STARTTLS; nothing was sent (`starttls: optional` does without)")
            case smtplib.SMTPNotSupportedError():
                return Refused(f"{where}: {error}")
            case ssl.SSLCertVerificationError():
                return Retry(f"{where}: its certificate is not good: {error.verify_message}; nothing was sent")
            case UnicodeError():
                return Refused(f"{where}: an address that is not ASCII: {error}")
            case smtplib.SMTPException() | OSError():
                return Retry(f"{where}: {error}")
        raise error


class _Deadline:
    """smtplib's timeout is for one read or write; after this one's time the connection is cut."""

    def __init__(self, session: smtplib.SMTP, seconds: float):
        self._session, self.passed = session, False
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def _cut(self) -> None:
        self.passed = True
        with contextlib.suppress(OSError, AttributeError):  # not connected yet, or no more
            socket.socket.shutdown(self._session.sock, socket.SHUT_RDWR)  # type: ignore[arg-type]

    def check(self) -> None:
        if self.passed:
            raise TimeoutError

    def cancel(self) -> None:
        self._timer.cancel()


def _hang_up(session: smtplib.SMTP) -> None:
    """What the server says to that changes nothing any more."""
    with contextlib.suppress(smtplib.SMTPException, OSError):
        if session.sock is not None:
            session.sock.settimeout(1)
            session.quit()
    session.close()


def _said(code: int, text: bytes | str) -> str:
    return f"{code} {one_line(text.decode('utf-8', 'replace') if isinstance(text, bytes) else str(text))}"[:300]


def _outcome(asked: list[str], refused: Refusals, behind: dict[str, str], whole: bool) -> Outcome:
    """`whole`: nobody had it before. Then as long as nobody takes it, it is tried again, or dead, for all of them."""
    left = behind | {address: _said(*refused[address]) for address in asked if address in refused}
    told = tuple(address for address in asked if address not in refused)
    if not left:
        return Delivered("")
    for_now = any(code < 500 for code, _ in refused.values())
    partly = Partly(left, told, never=not behind and not for_now)
    if whole and not told and for_now:
        return Retry(partly.why)
    if whole and not told and partly.never:
        return Refused(partly.why)
    return partly
