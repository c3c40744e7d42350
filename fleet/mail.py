"""A notification as a mail: text and HTML, and the ids that make the mails of one alert a thread.

What devices send stands in it: nothing of that may end a header, or be HTML.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr

from jinja2 import Environment

from fleet.alert_labels import values_of
from fleet.notification import Notification, TellingAlert
from fleet.summary import taken_on_by

MOST_ALERTS = 200
"""Named in one mail; of more it says how many."""
LONGEST_SUBJECT = 150
COLOURS = {"critical": "#b91c1c", "warning": "#b45309", "info": "#1d4ed8"}
OVER = "#15803d"

HTML = Environment(autoescape=True, trim_blocks=True).from_string("""\
<!doctype html>
<html><body style="font-family:sans-serif;font-size:14px;color:#111">
<p style="font-size:16px;border-left:6px solid {{ colour }};padding:4px 10px">{{ summary }}</p>
{% for rows in blocks %}
<table style="border-collapse:collapse;margin-bottom:14px">
{% for name, value in rows %}
<tr><td style="padding:2px 14px 2px 0;color:#555">{{ name }}</td><td>{{ value }}</td></tr>
{% endfor %}
</table>
{% endfor %}
{% if more %}<p>and {{ more }} more</p>
{% endif %}
{% if url %}<p><a href="{{ url }}">{{ url }}</a></p>
{% endif %}
</body></html>
""")


def mail_of(notification: Notification, sender: str, to: Iterable[str], external_url: str = "") -> EmailMessage:
    """The same to the byte on each attempt, but for the boundary between its parts."""
    host = parseaddr(sender)[1].rpartition("@")[2] or "weir.invalid"
    first = thread_of(notification, host)
    own = message_id(notification.notification_id, host)
    mail = EmailMessage(policy=policy.SMTP)
    mail["From"], mail["To"] = one_line(sender), ", ".join(one_line(each) for each in to)
    mail["Subject"] = subject_of(notification, later=first not in (None, own))
    mail["Date"] = format_datetime(notification.created_at.astimezone(UTC))
    mail["Message-ID"] = own
    if first not in (None, own):
        mail["In-Reply-To"] = mail["References"] = first
    mail["Auto-Submitted"] = "auto-generated"  # so that nobody's absence is answered to us
    summary = one_line(notification.summary)
    shown = notification.alerts[:MOST_ALERTS]
    blocks = [[(name, one_line(value)) for name, value in _rows(alert)] for alert in shown]
    more = len(notification.alerts) - len(shown)
    mail.set_content(_text(summary, blocks, more, external_url))
    colour = _colour(notification)
    page = HTML.render(summary=summary, blocks=blocks, more=more, url=external_url, colour=colour)
    mail.add_alternative(page, subtype="html")
    return mail


def subject_of(notification: Notification, later: bool) -> str:
    """The same for all mails of an alert, or Gmail begins a new thread; what happened is the first line of the mail."""
    if notification.kind in ("digest", "heartbeat", "test") or len(notification.alerts) != 1:
        return in_header(notification.summary)
    (alert,) = notification.alerts
    subject = in_header(f"{alert.title}: {alert.device} at {alert.site}")
    return f"Re: {subject}" if later else subject


def thread_of(notification: Notification, host: str) -> str | None:
    """The id of the alert's first mail, whether or not it was sent: without it, too, the later ones come together."""
    if notification.kind in ("digest", "heartbeat", "test") or len(notification.alerts) != 1:
        return None
    return message_id(f"{notification.alerts[0].alert_id}-1@{notification.receiver}", host)


def message_id(notification_id: str, host: str) -> str:
    return f"<{re.sub(r'[^A-Za-z0-9_-]+', '.', notification_id).strip('.')}@{host}>"


def one_line(text: str) -> str:
    """What prints, on one line. Without line ends of any kind, nor marks that turn the direction of reading."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def in_header(text: str) -> str:
    """The email package decodes what is written as an encoded word, line ends in it too: so none may be."""
    return one_line(text)[:LONGEST_SUBJECT].replace("=?", "= ?")[:LONGEST_SUBJECT]


def _rows(alert: TellingAlert) -> list[tuple[str, str]]:
    rows = [
        ("what", f"{alert.title} ({alert.severity}), {'active' if alert.active else 'over'}"),
        ("device", f"{alert.device} ({alert.type}, {alert.system})"),
        ("site", alert.site),
        ("values", values_of(alert)),
        ("since", _time(alert.since)),
        ("fired", _time(alert.starts_at)),
        ("resolved", f"{_time(alert.resolved_at)}, {alert.reason or 'recovered'}" if alert.resolved_at else ""),
        ("flapping", "it changes to and fro" if alert.flapping else ""),
        ("acknowledged by", taken_on_by(alert)),
        *sorted(alert.annotations.items()),
        ("alert", alert.alert_id),
    ]
    return [(one_line(name), value) for name, value in rows if value]


def _text(summary: str, blocks: list[list[tuple[str, str]]], more: int, url: str) -> str:
    parts = [summary, *("\n".join(f"{name:<16} {value}" for name, value in rows) for rows in blocks)]
    return "\n\n".join([*parts, *([f"and {more} more"] if more else []), *([url] if url else [])]) + "\n"


def _time(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _colour(notification: Notification) -> str:
    active = [alert for alert in notification.alerts if alert.active]
    if not active:
        return OVER
    return next((COLOURS[s] for s in ("critical", "warning") if any(a.severity == s for a in active)), COLOURS["info"])
