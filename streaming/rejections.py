"""A device whose message was rejected hears why, on a topic of its own: MQTT acknowledges before anybody has looked."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from connections.mqtt_publisher import REFUSED, RawPublisher, publish_frame, reason_text
from fleet.channels import Address, parse_data_topic, rejection_topic
from fleet.contract import Reject
from fleet.errors import Refused
from fleet.settings import Settings

PAUSE_SECONDS = 10.0
"""Between two notices to one device; the next says how many messages were rejected since, and why the last was."""
AT_ONCE = 100
"""Notices a second, to all devices together."""
REMEMBERED = 50_000
"""Devices. Beyond that those that wait for nothing are forgotten, and others not told: the dead letters have it."""
EXPIRES_SECONDS = 60
"""The broker keeps a notice so long for a device that is away."""
MAX_DETAIL = 500


@dataclass(slots=True)
class _Device:
    """`told_at`: of its last notice. `rejected`: messages since, `last` the last of them."""

    told_at: float = -inf
    rejected: int = 0
    last: Reject | None = None
    topic: str = ""


class Rejections:
    """`note` is for the bridge's workers, and never waits; `run` tells what they noted, as best it can: what was taken
    when the connection went is not told again. The dead letter is what counts."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.told = 0
        self._lock = threading.Lock()
        self._known: dict[Address, _Device] = {}
        self._waiting: dict[Address, _Device] = {}
        """Of which something is to be told, the first first."""

    def note(self, reject: Reject, topic: str) -> None:
        """`topic`: the message's. What came by a topic that is no device's is told to nobody."""
        address = parse_data_topic(topic)
        if address is None:
            return
        address = address._replace(metric=None)
        with self._lock:
            device = self._known.get(address)
            if device is None:
                if len(self._known) >= REMEMBERED:
                    self._known = dict(self._waiting)
                    if len(self._known) >= REMEMBERED:
                        return
                device = self._known[address] = _Device()
            device.rejected += 1
            device.last, device.topic = reject, topic
            self._waiting[address] = device

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
        now, taken = time.monotonic(), list[tuple[Address, bytes]]()
        with self._lock:
            for address, device in list(self._waiting.items()):
                if now - device.told_at < PAUSE_SECONDS:
                    continue
                if len(taken) == AT_ONCE:
                    break
                assert device.last is not None
                said = {
                    "reason": device.last.reason, "detail": device.last.detail[:MAX_DETAIL], "topic": device.topic,
                    "rejected": device.rejected,
                }  # fmt: skip
                taken.append((address, json.dumps(said, separators=(",", ":")).encode()))
                del self._waiting[address]
                device.told_at, device.rejected = now, 0
        return taken
