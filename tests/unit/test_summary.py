"""The line that says all of a message, and which of many alerts its receivers show."""

from datetime import timedelta

import pytest

from fleet import mail, webhook_body
from fleet.mail import mail_of
from fleet.notification import TellingAlert
from fleet.summary import active_summary, worst_first
from fleet.webhook_body import body_of
from tests.alerts_told import START, alert, notification


def some(count: int, rule: str = "hot", site: str = "a", severity: str = "warning") -> list[TellingAlert]:
    return [alert(rule=rule, site=site, severity=severity) for _ in range(count)]


ACTIVE = [
    ("of one kind", some(2), "2 active, all warning: 2 hot at site a"),
    ("the worst severity is first, and what there is most of",
     some(2, "no_light") + some(1, severity="critical") + some(1, "dim", severity="info") + some(3, "dim"),
     "7 active, 1 critical, 5 warning, 1 info: 4 dim at site a, 2 no light at site a, 1 hot at site a"),
    ("three are named",
     some(5) + some(4, site="b") + some(3, site="c") + some(2, site="d") + some(1, site="e"),
     "15 active, all warning: 5 hot at site a, 4 hot at site b, 3 hot at site c, 3 other"),
    ("a site is called one once", some(2, site="site-7"), "2 active, all warning: 2 hot at site-7"),
]  # fmt: skip


@pytest.mark.parametrize(("alerts", "line"), [a[1:] for a in ACTIVE], ids=[a[0] for a in ACTIVE])
def test_what_is_active(alerts: list[TellingAlert], line: str) -> None:
    assert active_summary(alerts) == line


def at(minute: int, name: str, device: str = "", **more: object) -> TellingAlert:
    return alert(alert_id=name, device=device or name, starts_at=START + timedelta(minutes=minute), **more)


ORDERS = [
    ("severe", [at(3, "i", severity="info"), at(1, "c", severity="critical"), at(2, "w")], "cwi"),
    ("new", [at(1, "a"), at(3, "b"), at(2, "c")], "bca"),
    ("active", [at(3, "over", resolved_at=START, severity="critical"), at(1, "a")], ["a", "over"]),
    ("as it was, of one rule and device", [at(1, "a", "s1", resolved_at=START), at(2, "b", "s1"), at(3, "c")], "cab"),
]


@pytest.mark.parametrize(("alerts", "order"), [o[1:] for o in ORDERS], ids=[o[0] for o in ORDERS])
def test_what_matters_comes_first(alerts: list[TellingAlert], order: str) -> None:
    assert [each.alert_id for each in worst_first(alerts)] == list(order)


def test_what_is_cut_off_is_what_matters_least() -> None:
    many = [at(n, f"a{n}") for n in range(webhook_body.MOST_ALERTS + 500)]
    many[7] = at(7, "worst", severity="critical")
    told = notification("digest", *worst_first(many))
    assert b'"worst"' in body_of(told)
    assert b'"a1"' not in body_of(told)
    text = mail_of(told, "weir@x.example", ["a@x.example"]).get_body(("plain",)).get_content()  # type: ignore[union-attr]
    assert f"and {len(many) - mail.MOST_ALERTS} more" in text
    assert "worst" in text
