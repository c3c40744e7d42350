"""What Mosquitto says of itself on $SYS: what it dropped, and whom it cut off. What it refuses reaches no bridge, so it
alone can say."""

import logging
import threading
from collections import Counter as Tally
from collections.abc import Callable

from connections import mqtt
from fleet.settings import Settings

ENDS = {
    b" disconnected, not authorised.": "not_authorised",
    b" disconnected due to malformed packet.": "malformed",
    b" disconnected due to oversize packet.": "oversized",
    b" disconnected due to protocol error.": "protocol_error",
    b": Quota exceeded": "forbidden_topic",  # so ends who publishes what is not its own: docs/decisions/0042
    b" has exceeded timeout, disconnecting.": "timed_out",
}
"""How lines of Mosquitto's log end → why it ended a connection. Before it stands the client's id, which is anything."""

log = logging.getLogger("weir.bridge")


def reason_of(line: bytes) -> str | None:
    """Why Mosquitto ended a connection, of a line of its log; None where the line says nothing like it."""
    return next((reason for end, reason in ENDS.items() if line.endswith(end)), None)


class BrokerWatch:
    """`run` listens until `stop` is set. What is said while nobody listens is not counted."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.dropped: int | None = None
        """Messages that Mosquitto dropped since its start, as a queue was full; None before it said."""
        self.refused: Tally[str] = Tally()
        """Reason → connections that Mosquitto ended or did not take."""

    def run(self, stop: threading.Event, under_way: Callable[[], None] = lambda: None) -> None:
        """Raises Unavailable, Refused."""
        subscriber = mqtt.Subscriber(self.settings, "", [mqtt.DROPPED, mqtt.NOTICES], clean=True, qos=0)
        try:
            under_way()
            while not stop.is_set():
                for delivery in subscriber.poll(0.5):
                    if delivery.topic == mqtt.DROPPED:
                        self._take_dropped(int(delivery.payload))
                    elif reason := reason_of(delivery.payload):
                        self.refused[reason] += 1
        finally:
            subscriber.close()

    def _take_dropped(self, dropped: int) -> None:
        if dropped > (self.dropped or 0):
            log.error("mosquitto dropped %d messages since its start: a queue is full", dropped)
        self.dropped = dropped
