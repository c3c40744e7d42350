"""A run: readings become messages, faults are injected, each message goes out when it is due, and what arrived is
written into the books."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fleet.catalog import Catalog
from fleet.errors import WeirError
from fleet.reading import Reading, to_datetime
from fleet.spec import DeviceType
from simulators.books import Books
from simulators.message import Message
from simulators.outlet import Outlet
from simulators.timeline import Timeline
from simulators.wire import Wire

AHEAD_SECONDS = 0.005
"""A message that is due sooner than this goes now: shorter sleeps cost more than they keep."""
DRAIN_EVERY = 200
NAP_SECONDS = 0.2
FLUSH_SECONDS = 60.0
"""How long the other side may take to confirm the last messages."""


class Wires(NamedTuple):
    """Each type's form of message, by name."""

    by_type: dict[str, Wire]

    @classmethod
    def of(cls, specs: Iterable[DeviceType]) -> "Wires":
        return cls({spec.type: Wire(spec) for spec in specs})

    def messages(self, readings: Iterable[Reading]) -> Iterator[Message]:
        """One message or more a reading, numbered."""
        number = 0
        for reading in readings:
            for part in self.by_type[reading.device_type].split(reading):
                yield Message(number, part.event_time_us, part)
                number += 1


@dataclass
class Tally:
    """What happened in a run so far."""

    sent: int = 0
    published: int = 0
    withheld: int = 0
    """By the fault `dropout`."""
    faults: Counter[str] = field(default_factory=Counter)
    """Messages touched, by kind."""
    first_us: int | None = None
    last_us: int | None = None
    late_seconds: float = 0.0
    """After it was due, at most, a message went out; 0 where none is waited for."""
    error: str = ""


Note = Callable[[dict[str, Any]], None]
"""Takes a line of the truth."""


class Run:
    """`stopping` is asked between messages; `wait` sleeps for some seconds, or less when it is to stop."""

    def __init__(
        self,
        catalog: Catalog,
        outlet: Outlet,
        timeline: Timeline,
        note: Note,
        *,
        stopping: Callable[[], bool] = lambda: False,
        wait: Callable[[float], object] = time.sleep,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ):
        self.books, self.tally = Books(catalog), Tally()
        self._outlet, self._timeline, self._note = outlet, timeline, note
        self._stopping, self._wait, self._now_us = stopping, wait, now_us
        self._wires = Wires.of(catalog)

    def go(self, messages: Iterable[Message]) -> Tally:
        """Sends what there is to send. Where the other side fails, what was confirmed until then is in the books, and
        the error is raised again after."""
        patience = 1.0
        try:
            try:
                for message in messages:
                    if self._stopping() or not self._until_due(message):
                        break
                    self._send(message)
                patience = FLUSH_SECONDS
            finally:
                # Also after an error: what is under way may still be confirmed.
                self._outlet.close(patience)
        except WeirError as error:
            self.tally.error = str(error)
            raise
        finally:
            self._drain()
        return self.tally

    def _until_due(self, message: Message) -> bool:
        """False where the run is to stop first."""
        due_us = self._timeline.wall_us(message.due_us)
        while (ahead := (due_us - self._now_us()) / 1e6) > AHEAD_SECONDS:
            self._drain()
            self._wait(min(ahead, NAP_SECONDS))
            if self._stopping():
                return False
        if self._timeline.speed:
            self.tally.late_seconds = max(self.tally.late_seconds, -ahead)
        return True

    def _send(self, message: Message) -> None:
        if message.dropped:
            self.tally.withheld += 1
            self._tell(message, "not sent")
            return
        wire = self._wires.by_type[message.reading.device_type]
        payload = wire.payload(message.reading) if message.raw is None else message.raw
        self._outlet.send(message, wire.topic(message.reading), payload)
        self.tally.sent += 1
        if self.tally.sent % DRAIN_EVERY == 0:
            self._drain()

    def _drain(self) -> None:
        tally = self.tally
        for message, result, clock_dependent in self._outlet.confirmed():
            tally.published += 1
            tally.first_us = message.due_us if tally.first_us is None else min(tally.first_us, message.due_us)
            tally.last_us = message.due_us if tally.last_us is None else max(tally.last_us, message.due_us)
            verdict = self.books.add(result)
            self.books.clock_dependent += clock_dependent
            if message.fault:
                self._tell(message, verdict)

    def _tell(self, message: Message, verdict: str) -> None:
        fault, reading = message.fault, message.reading
        if fault is None:
            return
        self.tally.faults[fault.kind] += 1
        line = {
            "fault": fault.kind,
            "message": message.number,
            "type": reading.device_type,
            "site": reading.site,
            "device": reading.device_id,
            "event_time": to_datetime(message.due_us).isoformat(),
            "metric": fault.metric or (next(iter(reading.values)) if len(reading.values) == 1 else None),
            "original": fault.original,
            "sent": fault.sent,
            "expected": verdict,
        }
        self._note({key: value for key, value in line.items() if value is not None})

    def summary(self, about: dict[str, Any], wall_seconds: float) -> dict[str, Any]:
        """The last line of the truth. `published` is what the other side confirmed; `expected` is what the books
        downstream must show for it."""
        tally = self.tally
        return {
            **about,
            "sent": tally.sent,
            "published": tally.published,
            "unconfirmed": self._outlet.unconfirmed,
            "withheld": tally.withheld,
            "faults": dict(sorted(tally.faults.items())),
            "event_time": {
                "first": _iso(tally.first_us),
                "last": _iso(tally.last_us),
            },
            "wall_seconds": round(wall_seconds, 3),
            "messages_per_second": round(tally.published / wall_seconds, 1) if wall_seconds > 0 else None,
            "late_seconds": round(tally.late_seconds, 3),
            "expected": self.books.as_dict(),
            **({"error": tally.error} if tally.error else {}),
        }


def _iso(epoch_us: int | None) -> str | None:
    return None if epoch_us is None else to_datetime(epoch_us).isoformat()
