"""How the demo's inbox checks what it gets."""

import json
from datetime import UTC, datetime

import pytest

from fleet.webhook_body import body_of, signed
from simulators.arrivals import Arrivals, thread_problem
from tests.alerts_told import notification

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
