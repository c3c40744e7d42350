"""How the demo's inbox checks what it gets."""

import json
from datetime import UTC, datetime

import pytest

from fleet.mail import mail_of
from fleet.webhook_body import body_of, signed
from simulators.arrivals import LAST, Arrivals, thread_problem
from tests.alerts_told import alert, empty, notification
from weir._demo_told import samples

NOW = datetime(2026, 5, 4, tzinfo=UTC)
SECRET = "whsec_" + "b2xk" * 8
A, B = "a" * 32, "b" * 32


@pytest.mark.parametrize(
    ("own", "first", "reply_to", "problem"),
    [
        (f"<{A}-1.r@x>", "", "", ""),
        (f"<{A}-2.r@x>", f"<{A}-1.r@x>", f"<{A}-1.r@x>", ""),
        ("<digest-1.r@x>", "", "", ""),
        (f"<{A}-2.r@x>", "", "", "wrong_thread"),
        (f"<{A}-2.r@x>", f"<{B}-1.r@x>", f"<{B}-1.r@x>", "wrong_thread"),
        (f"<{A}-2.r@x>", f"<{A}-3.r@x>", f"<{A}-3.r@x>", "wrong_thread"),
        (f"<{A}-2.r@x>", f"<{A}-1.r@x>", "", "wrong_thread"),
    ],
    ids=["first", "later", "digest", "no thread", "another's", "not the first", "no reply"],
)
def test_threads_are_checked(own, first, reply_to, problem):
    assert thread_problem(own, first, reply_to) == problem


@pytest.mark.parametrize(
    ("body", "status"),
    [(body_of(notification()), 200), (b"[]", 400), (b"{", 400), (json.dumps({"version": "5"}).encode(), 400)],
    ids=["good", "no object", "no JSON", "another version"],
)
def test_bodies_are_checked(body, status):
    got, wrong = Arrivals(SECRET).hook(signed("id", NOW, body, [SECRET]), body, NOW)
    assert got == status
    assert bool(wrong) is (status != 200)


ONE = notification("firing", alert())
DIGESTS = [
    notification("digest", alert(device="s1"), alert(device="s2"), notification_id=f"digest-{n}@r")
    for n in range(LAST + 1)
]
STORM_OF_ONE = notification("digest", alert(), notification_id="digest-one@r")


@pytest.mark.parametrize(
    ("messages", "sample"),
    [
        ([ONE, *DIGESTS], ONE),
        ([ONE, STORM_OF_ONE, empty("heartbeat")], ONE),
        (DIGESTS, DIGESTS[-1]),
        ([STORM_OF_ONE], STORM_OF_ONE),
        ([], None),
    ],
    ids=["one before a storm", "a heartbeat and a small digest after it", "digests only", "a small one", "nothing"],
)
def test_the_demo_shows_a_message_about_one_alert_if_there_was_one(messages, sample):
    arrivals = Arrivals(SECRET)
    for each in messages:
        body = body_of(each)
        assert arrivals.hook(signed(each.notification_id, NOW, body, [SECRET]), body, NOW) == (200, "")
        arrivals.mail(["ann@x.example"], mail_of(each, "weir@x.example", ["ann@x.example"]).as_bytes(), True)
    found = samples(arrivals.told())
    assert set(found) == (set() if sample is None else {"webhook", "mail"})
    if sample is not None:
        assert found["webhook"]["id"] == sample.notification_id
        assert found["mail"]["message_id"] == mail_of(sample, "weir@x.example", ["ann@x.example"])["Message-ID"]
