"""A device whose message was rejected hears why, on a topic of its own: MQTT acknowledges before anybody has looked."""

import json
import threading
import time
from collections.abc import Callable

from connections.mqtt_publisher import REFUSED, RawPublisher, publish_frame, reason_text
from fleet.channels import Address, parse_data_topic, rejection_topic
from fleet.contract import Reject
from fleet.errors import Refused
from fleet.settings import Settings

PAUSE_SECONDS = 10.0
"""Between two notices to one device; the next says how many messages were rejected since."""
AT_ONCE = 100
"""Notices a second, to all devices together."""
WAITING = 1000
"""More are not told before these are: the reason is in the dead letter too."""
REMEMBERED = 50_000
"""Devices. Beyond that all are forgotten, and told again before their pause is over."""
EXPIRES_SECONDS = 60
"""The broker keeps a notice so long for a device that is away."""
MAX_DETAIL = 500


class Rejections:
    """`note` is for the bridge's workers, and never waits; `run` tells what they noted, as best it can: what was taken
    when the connection went is not told again. The dead letter is what counts."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.told = 0
        self._lock = threading.Lock()
        self._known: dict[Address, tuple[float, int]] = {}
        """Device → when its last notice was made, and how many messages were rejected since."""
        self._waiting: dict[Address, bytes] = {}

    def note(self, reject: Reject, topic: str) -> None:
        """`topic`: the message's. What came by a topic that is no device's is told to nobody."""
        address = parse_data_topic(topic)
        if address is None:
            return
        device, now = address._replace(metric=None), time.monotonic()
        with self._lock:
            if device not in self._known and len(self._known) >= REMEMBERED:
                self._known.clear()
            last, rejected = self._known.get(device, (float("-inf"), 0))
            rejected += 1
            if now - last < PAUSE_SECONDS or len(self._waiting) >= WAITING:
                self._known[device] = last, rejected
                return
            self._known[device] = now, 0
            said = {"reason": reject.reason, "detail": reject.detail[:MAX_DETAIL], "topic": topic, "rejected": rejected}
            self._waiting[device] = json.dumps(said, separators=(",", ":")).encode()

    def run(self, stop: threading.Event, under_way: Callable[[], None] = lambda: None) -> None:
        """Until `stop`. Raises Unavailable, and Refused where the broker's ACL does not let us."""
        link = RawPublisher(self.settings, "")
        try:
            under_way()
            while not stop.wait(1):
                notices = self._taken()
                frames = [
                    publish_frame(mid, rejection_topic(device).encode(), notice, EXPIRES_SECONDS)
                    for mid, (device, notice) in enumerate(notices, 1)
                ]
                if frames:
                    link.write(b"".join(frames))
                link.poll(0)
                answers, link.answers = link.answers, []
                if refused := [code for _, code in answers if code >= REFUSED]:
                    raise Refused(
                        f"the MQTT broker refuses notices of user {self.settings.mqtt_user!r}:"
                        f" {reason_text(refused[0])}; see its ACL"
                    )
                self.told += len(notices)
        finally:
            link.abandon()

    def _taken(self) -> list[tuple[Address, bytes]]:
        with self._lock:
            return [(device, self._waiting.pop(device)) for device in list(self._waiting)[:AT_ONCE]]
