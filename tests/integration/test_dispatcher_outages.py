"""Alertmanager, the MQTT broker and the mail server go away under a dispatcher that runs, and come back."""

import json
from collections.abc import Callable
from contextlib import closing

import pytest

from connections.alertmanager import Alertmanager
from connections.mqtt import Subscriber
from fleet.mail import message_id
from fleet.settings import Settings
from stack.stack import Stack
from tests.integration.hostile_smtp import SmtpServer
from tests.integration.processes import wait_for
from tests.integration.test_dispatcher import Ground, ground, in_order
from tests.integration.test_dispatcher_alertmanager import alertmanager, ends

__all__ = ["alertmanager", "ground"]
pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

SERVERS = ("alertmanager", "mosquitto")
RECEIVERS = ("am", "panel", "post")


def sent(ground: Ground, receiver: str) -> list[str]:
    rows = ground.reader.rows(
        "SELECT notification_id AS id FROM notifications WHERE outcome = 'sent' AND receiver = :receiver"
        " AND system = :system ORDER BY at",
        receiver=receiver, system=ground.system,
    )  # fmt: skip
    return [row["id"] for row in rows]


def problems(ground: Ground) -> dict[str, bool]:
    rows = ground.reader.rows("SELECT name, failing_since IS NOT NULL AS failing FROM dispatch_receivers")
    return {row["name"]: row["failing"] for row in rows}


def test_all_of_it_arrives_later_in_order_with_its_ids(
    ground: Ground, stack: Stack, settings_for: Callable[[str], Settings], alertmanager: Alertmanager
) -> None:
    mail_server, panel = SmtpServer(), f"alerts/{ground.system}/#"
    with closing(Subscriber(settings_for("operator"), "tests-outages", [panel])):
        pass  # the broker keeps for its session what comes from now on
    with mail_server:
        ground.file.write_text(
            f"receivers:\n  am: {{kind: alertmanager, url: '{alertmanager._url}', user: weir,"
            " password: '${WEIR_ALERTMANAGER_PASSWORD}', refresh: 1s}\n"
            "  panel: {kind: mqtt}\n"
            f"  post: {{kind: email, host: 127.0.0.1, port: {mail_server.port}, starttls: never,"
            " sender: weir@site.example, to: ops@site.example}\n"
            f"routes:\n  - {{match: {{system: {ground.system}}}, to: [{', '.join(RECEIVERS)}]}}\n"
        )
        ground.process.start().ready()
        ground.say("o0", 1, "firing")
        wait_for(lambda: all(sent(ground, name) == [f"o0-1@{name}"] for name in RECEIVERS), 20, ground.log)
    try:
        for name in SERVERS:
            stack.supervisor.stop_program(name)
        # Nothing waits: it is what Alertmanager is told again every second that fails.
        wait_for(lambda: problems(ground) == {"am": True, "panel": False, "post": False}, 20, ground.log)
        for alert, number, to in (("o0", 2, "escalated"), ("o1", 1, "firing"), ("o0", 3, "resolved")):
            ground.say(alert, number, to)
        ground.say("o1", 2, "escalated")
        wait_for(lambda: all(problems(ground).values()), 20, ground.log)
        assert all(len(sent(ground, name)) == 1 for name in RECEIVERS)
    finally:
        for name in SERVERS:
            stack.restart(name)
    with mail_server:
        for name in RECEIVERS:
            every = sorted(f"{transition}@{name}" for transition in ground.told)
            wait_for(lambda name=name, every=every: sorted(sent(ground, name)) == every, 60, ground.log)  # type: ignore[misc]
            assert in_order(sent(ground, name))
        wait_for(lambda: not any(problems(ground).values()), 60, ground.log)

    messages = [str(mail["Message-ID"]) for _, mail, _ in mail_server.mails]
    assert messages == [message_id(each, "site.example") for each in sent(ground, "post")]
    assert set(ends(alertmanager, "o1")) == {"critical"}
    assert ends(alertmanager, "o0") == {}
    told: list[str] = []
    with closing(Subscriber(settings_for("operator"), "tests-outages", [panel])) as subscriber:

        def all_came() -> bool:
            told.extend(json.loads(delivery.payload)["transition_id"] for delivery in subscriber.poll(0.2))
            return len(told) >= len(ground.told)

        wait_for(all_came, 20, lambda: f"the panel was told of {told}")
        subscriber.end()
    assert [f"{each}@panel" for each in told] == sent(ground, "panel")
