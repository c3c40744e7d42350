"""Mails as pure text: threads, and devices that say what they should not."""

import email
from email import policy

import pytest

from fleet.mail import MOST_ALERTS, mail_of, one_line
from tests.alerts_told import ALERT_ID, alert, empty, notification, resolved

ROOT = f"<{ALERT_ID}-1.r@x.example>"


def read(told, url=""):
    written = mail_of(told, "weir@x.example", ["a@x.example"], url).as_bytes()
    return email.message_from_bytes(written, policy=policy.default)


@pytest.mark.parametrize(
    ("told", "own", "thread", "subject"),
    [
        (notification(), ROOT, None, "High Temperature: s1 at roof"),
        (notification("escalated", alert(2)), f"<{ALERT_ID}-2.r@x.example>", ROOT, "Re: High Temperature: s1 at roof"),
        (resolved(3), f"<{ALERT_ID}-3.r@x.example>", ROOT, "Re: High Temperature: s1 at roof"),
        (notification("reminder", notification_id=f"{ALERT_ID}-1-reminder-2@r"),
         f"<{ALERT_ID}-1-reminder-2.r@x.example>", ROOT, "Re: High Temperature: s1 at roof"),
        (notification("digest", alert(), alert(device="s2"), notification_id="digest-1@r", summary="2 of 4 at roof"),
         "<digest-1.r@x.example>", None, "2 of 4 at roof"),
        (empty("heartbeat"), "<heartbeat-1.r@x.example>", None, "Weir lives"),
    ],
    ids=["firing", "escalated", "resolved", "reminder", "digest", "heartbeat"],
)  # fmt: skip
def test_threads(told, own, thread, subject):
    mail = read(told)
    assert (mail["Message-ID"], mail["References"], mail["In-Reply-To"], mail["Subject"]) == (
        own,
        thread,
        thread,
        subject,
    )
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Date"] == "Mon, 04 May 2026 12:00:00 +0000"


HOSTILE = [
    "x\r\nBcc: victim@x.example", "x\nBcc: victim@x.example\n\nbody", "x\x0bBcc: v@x.example", "x\x85Bcc: v@x.example",
    "x\u2028Bcc: v@x.example", "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "\u202egnp.exe",
    "=?utf-8?q?=0ABcc:_v=40x.example?=", "é" * 3000, "\x00\x1b[31m", "{{ 7 * 7 }}",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_devices_say_ends_no_header_and_is_no_html(text):
    changed = alert(
        device=text, site=text, title=text, annotations={text: text}, labels={text: text}, values={text: 1.0},
        reason=text, acknowledged_by=text, acknowledged_comment=text,
    )  # fmt: skip
    for told in (notification("firing", changed, summary=text), notification("digest", changed, changed, summary=text)):
        mail = read(told)
        assert mail["Bcc"] is None
        assert set(mail.keys()) <= {
            "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type",
        }  # fmt: skip
        assert len(mail["Subject"]) <= 150
        page = mail.get_body(("html",)).get_content()
        assert "<script" not in page
        assert "<img" not in page
        assert "49" not in page.replace(ALERT_ID, "")
        assert not any(c in page for c in "\u202e\x00\x1b")


def test_a_storm_is_cut_and_says_so():
    many = notification("digest", *[alert(device=f"s{n}") for n in range(MOST_ALERTS + 12)])
    mail = read(many, "https://weir.example")
    for part in ("plain", "html"):
        text = mail.get_body((part,)).get_content()
        assert "and 12 more" in text
        assert "https://weir.example" in text
        assert text.count(ALERT_ID) == MOST_ALERTS


@pytest.mark.parametrize(("text", "line"), [("a\r\n b", "a b"), ("\ta\u2029\u200fb ", "a b"), ("ok", "ok")])
def test_one_line(text, line):
    assert one_line(text) == line
