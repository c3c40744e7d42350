"""Who took an alert on, and what that person said, in what each kind of receiver is sent."""

import json
from collections.abc import Callable

import pytest

from fleet.acknowledgement import acknowledged_by
from fleet.alert_labels import annotations_of
from fleet.annotation import annotation_of
from fleet.mail import mail_of
from fleet.notification import Notification, TellingAlert
from fleet.retained_state import state_of
from fleet.standing import AlertSoFar
from fleet.summary import summary_of
from fleet.webhook_body import body_of
from tests.alerts_told import alert, notification, resolved

TAKEN_ON = {"acknowledged_by": "ann", "acknowledged_comment": "on my <way>"}
SUMMARY = summary_of("acknowledged", alert(**TAKEN_ON))


def mail_part(kind: str) -> Callable[[Notification, TellingAlert], str]:
    return lambda told, _alert: mail_of(told, "weir@x.example", ["ann@x.example"]).get_body((kind,)).get_content()


SENT: list[tuple[str, Callable[[Notification, TellingAlert], str], str]] = [
    ("a mail's text", mail_part("plain"), "acknowledged by  ann (on my <way>)"),
    ("a mail's page", mail_part("html"), "<td>ann (on my &lt;way&gt;)</td>"),
    ("a webhook", lambda told, _: json.loads(body_of(told))["alerts"][0]["annotations"]["acknowledged_comment"],
     "on my <way>"),
    ("Alertmanager", lambda _, about: annotations_of(about)["acknowledged_comment"], "on my <way>"),
    ("Grafana", lambda told, about: annotation_of(about, told.summary).text,
     "acknowledged by ann (on my &lt;way&gt;)"),
    ("MQTT", lambda _, about: json.loads(state_of(about))["acknowledged_comment"], "on my <way>"),
]  # fmt: skip


@pytest.mark.parametrize(
    "told",
    [notification("acknowledged", alert(**TAKEN_ON), summary=SUMMARY), resolved(**TAKEN_ON)],
    ids=["acknowledged", "its end"],
)
@pytest.mark.parametrize(("text_of", "part"), [s[1:] for s in SENT], ids=[s[0] for s in SENT])
def test_who_took_it_on_and_the_comment_are_told(
    told: Notification, text_of: Callable[[Notification, TellingAlert], str], part: str
) -> None:
    text = text_of(told, told.alerts[0])
    assert text.count(part) == 1


def test_the_summary_names_both() -> None:
    assert SUMMARY.startswith("acknowledged by ann (on my <way>): High Temperature")
    assert summary_of("acknowledged", alert(acknowledged_by="ann")).startswith("acknowledged by ann: High Temperature")


def test_a_later_text_says_so_though_the_name_is_in_it_by_chance() -> None:
    text = annotation_of(alert(acknowledged_by="ann"), "now critical High Temperature at annex: s1").text
    assert text.endswith("<br>acknowledged by ann")


def test_nobody_took_it_on() -> None:
    assert "acknowledged_comment" not in annotations_of(alert())
    assert json.loads(state_of(alert()))["acknowledged_comment"] is None
    assert "acknowledged" not in annotation_of(alert(), "x").text


AGAIN = [
    ("no new word of the same", "ann", "", "on my <way>"),
    ("a new word of the same", "ann", "done", "done"),
    ("no word of another", "bob", "", ""),
]


@pytest.mark.parametrize(("by", "comment", "stands"), [a[1:] for a in AGAIN], ids=[a[0] for a in AGAIN])
def test_taken_on_again(by: str, comment: str, stands: str) -> None:
    found = acknowledged_by(AlertSoFar(alert=alert(**TAKEN_ON)), by, comment).alert
    assert (found.acknowledged_by, found.acknowledged_comment) == (by, stands)
