"""A digest goes to the broker in parts, and after a failure on from the part that failed."""

from typing import Any

import pytest

from connections.mqtt_state import AT_ONCE, MqttState
from fleet.notification import Delivered, Outcome, Refused, Retry
from fleet.receivers import MqttOptions
from fleet.settings import Settings
from tests.alerts_told import alert, empty, notification

PARTS = [AT_ONCE, AT_ONCE, 1]
TRIES = [
    ("all arrives", [Delivered()] * 3, [Delivered()], PARTS),
    ("on from where it failed", [Delivered(), Retry("away"), Delivered(), Delivered()], [Retry("away"), Delivered()],
     [AT_ONCE, AT_ONCE, AT_ONCE, 1]),
    ("the others of one refused", [Refused("ACL"), Delivered(), Delivered()], [Refused("ACL")], PARTS),
]  # fmt: skip


@pytest.mark.parametrize(("answers", "outcomes", "parts"), [t[1:] for t in TRIES], ids=[t[0] for t in TRIES])
def test_parts(
    answers: list[Outcome], outcomes: list[Outcome], parts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, sent, left = MqttState(MqttOptions(kind="mqtt"), Settings.load(environ={})), list[int](), list(answers)

    def send(messages: Any) -> Outcome:
        sent.append(len(messages))
        return left.pop(0)

    monkeypatch.setattr(sender, "_send", send)
    digest = notification("digest", *(alert(device=f"d{n}") for n in range(sum(PARTS))))
    assert [sender.send(digest) for _ in outcomes] == outcomes
    assert sent == parts
    left.append(Retry("a heartbeat fails"))
    assert sender.send(empty()) == Retry("a heartbeat fails")
