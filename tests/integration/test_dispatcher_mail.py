"""Mail to two addresses, of which the server does not take one: the other hears all at once, and nobody twice."""

from collections.abc import Iterator

import pytest

from fleet.mail import message_id
from tests.integration.hostile_smtp import Behaviour, SmtpServer
from tests.integration.processes import wait_for
from tests.integration.test_dispatcher import Alerts, Ground, alerts, ground

__all__ = ["alerts", "ground"]
pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

FULL, GOOD = "full@x.example", "good@x.example"
FOR_LONG = 10_000
"""Attempts."""


@pytest.fixture
def server(ground: Ground) -> Iterator[SmtpServer]:
    """Of the receiver `post`, who is told all."""
    with SmtpServer(behaviour=Behaviour()) as server:
        ground.file.write_text(
            f"receivers:\n  post: {{kind: email, host: 127.0.0.1, port: {server.port}, starttls: never,"
            f" sender: weir@site.example, to: [{FULL}, {GOOD}]}}\n"
            f"routes:\n  - {{match: {{system: {ground.system}}}, to: post}}\n"
        )
        yield server


def arrived(server: SmtpServer, address: str) -> list[str]:
    return [str(mail["Message-ID"]) for to, mail, _ in server.mails if address in to]


def ids(ground: Ground) -> list[str]:
    return [message_id(f"{transition}@post", "site.example") for transition in ground.told]


def is_well(ground: Ground) -> bool:
    return ground.reader.rows("SELECT failing_since, problem FROM dispatch_receivers WHERE name = 'post'") == [
        {"failing_since": None, "problem": None}
    ]


def test_an_address_that_is_away_for_long_keeps_nothing_from_the_other(
    ground: Ground, server: SmtpServer, alerts: Alerts
) -> None:
    server.behaviour.recipients[FULL] = ["450 mailbox full"] * FOR_LONG
    ground.process.start().ready()
    for number, to in enumerate(("firing", "escalated", "resolved"), 1):
        ground.say("m0", number, to)
    wait_for(lambda: arrived(server, GOOD) == ids(ground), 20, ground.log)
    left = "SELECT 1 FROM outbox WHERE receiver = 'post' AND notification->'only_to' ? :full"
    wait_for(lambda: len(ground.reader.rows(left, full=FULL)) == 3, 20, ground.log)
    assert arrived(server, FULL) == []
    shown = alerts("receivers")
    assert "failing" in shown
    assert f"{FULL}: 450 mailbox full" in shown
    assert ground.process.metric('weir_dispatcher_receiver_failing{receiver="post"}') == 1
    ground.process.kill()
    ground.process.start().ready()
    ground.say("m1", 1, "firing")
    wait_for(lambda: arrived(server, GOOD) == ids(ground), 20, ground.log)
    server.behaviour.recipients[FULL].clear()
    wait_for(lambda: set(arrived(server, FULL)) == set(ids(ground)), 60, ground.log)
    of_m0 = [each for each in arrived(server, FULL) if each in ids(ground)[:3]]
    assert of_m0 == ids(ground)[:3]
    assert len(arrived(server, FULL)) == 4
    assert arrived(server, GOOD) == ids(ground), "each once, the restart or not"
    wait_for(lambda: is_well(ground), 20, ground.log)


def test_an_address_that_is_refused_for_good_is_seen_and_can_be_sent_to_again(
    ground: Ground, server: SmtpServer, alerts: Alerts
) -> None:
    server.behaviour.recipients[FULL] = ["550 no such user"] * FOR_LONG
    ground.process.start().ready()
    ground.say("n0", 1, "firing")
    wait_for(lambda: "n0-1@post" in ground.dead(), 20, ground.log)
    assert arrived(server, GOOD) == ids(ground)
    said = f"{FULL}: 550 no such user"
    for where in (alerts("receivers"), alerts("dead"), ground.log()):
        assert said in where
    assert f"post did not take it everywhere: {said}" in alerts("test-receiver", "post", code=1)
    server.behaviour.recipients[FULL].clear()
    assert "done" in alerts("resend", "n0-1@post")
    wait_for(lambda: arrived(server, FULL) == ids(ground), 20, ground.log)
    assert arrived(server, GOOD).count(ids(ground)[0]) == 1
    wait_for(lambda: is_well(ground), 20, ground.log)
