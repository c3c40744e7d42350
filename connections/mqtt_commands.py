"""Commands out, answers in: one session with the broker, which keeps the answers while we are away."""

import time
from contextlib import suppress
from typing import NamedTuple

from connections.mqtt import Subscriber, session_id
from connections.mqtt_publisher import REFUSED, RawPublisher, publish_frame, reason_text
from fleet.channels import ANSWERS
from fleet.errors import Unavailable
from fleet.settings import Settings

CONFIRM_SECONDS = 10.0
NOBODY_LISTENS = 0x10
CLIENT_ID = "weir-commander"


class Message(NamedTuple):
    topic: str
    payload: bytes
    expires_seconds: int
    """From 1; the broker gives it to nobody after that."""


class CommandLink(RawPublisher):
    """Not for several threads. Of two at once the broker lets the later one stay. Raises Unavailable, Refused."""

    def __init__(self, settings: Settings):
        super().__init__(settings, session_id(settings, CLIENT_ID), [ANSWERS], clean=False)
        with suppress(Unavailable):  # the session of before ids had a secret; nobody reads what it would keep
            Subscriber(settings, CLIENT_ID, (), clean=True).close()

    def send(self, messages: list[Message]) -> list[bool]:
        """All of them, and returns when the broker has each: whether anybody listens there. Answers that come meanwhile
        are kept for the next `poll`. Raises Unavailable where one is not taken; then all are to be sent again."""
        frames = [
            publish_frame(mid, m.topic.encode(), m.payload, m.expires_seconds) for mid, m in enumerate(messages, 1)
        ]  # fmt: skip
        self.answers.clear()
        self.write(b"".join(frames))
        deadline = time.monotonic() + CONFIRM_SECONDS
        while len(self.answers) < len(messages):
            left = deadline - time.monotonic()
            if left <= 0:
                raise Unavailable(f"the MQTT broker at {self._where} did not confirm within {CONFIRM_SECONDS:g} s")
            self._first += self._receive(min(left, 0.1))
        reasons = dict(self.answers)
        for mid, message in enumerate(messages, 1):
            if reasons[mid] >= REFUSED:
                raise Unavailable(
                    f"the MQTT broker at {self._where} refuses {message.topic} of user {self._settings.mqtt_user!r}:"
                    f" {reason_text(reasons[mid])}; see its ACL"
                )
        return [reasons[mid] != NOBODY_LISTENS for mid in range(1, len(messages) + 1)]

    @property
    def _where(self) -> str:
        return f"{self._settings.mqtt_host}:{self._settings.mqtt_port}"
