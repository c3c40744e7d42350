"""One receiver's thread: its messages from the outbox, in order per alert; each is sent, and what came of it written.

A receiver that fails is tried with one message at a time, after growing pauses; the others know nothing of it.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec

from fleet.errors import Unavailable
from fleet.notification import Delivered, Gone, Notification, Outcome, Partly, Receiver, Refused, Retry, TellingAlert
from fleet.receivers import AlertmanagerOptions, EmailOptions, ReceiverOptions
from streaming.backoff import pause
from streaming.outbox import Outbox, Waiting

BATCH = 50
IDLE_SECONDS = 30.0
"""Between two looks at the outbox by a courier that nobody wakes."""
BATCH_SECONDS = 2.0
"""What was read from the outbox longer ago is read again: while this process was frozen another may have sent it."""
PROBE_LONGEST = timedelta(seconds=30)
"""A receiver that fails is tried at least so often."""
UNWELL = timedelta(seconds=1)
"""Between two looks at whether a heartbeat would be true by now: a dispatcher that begins is not well for a moment."""

log = logging.getLogger("weir.courier")


def utc_now() -> datetime:
    return datetime.now(UTC)


class Courier:
    def __init__(
        self,
        name: str,
        options: ReceiverOptions,
        sender: Receiver,
        outbox: Outbox,
        is_well: Callable[[], bool] = lambda: True,
        on_gone: Callable[[], None] = lambda: None,
    ):
        """`is_well`: whether a heartbeat would be true: alerts come in."""
        self.name, self.options, self.outbox = name, options, outbox
        self.sent = self.dead = self.failures = 0
        self.gone = False
        self.problem = ""
        """Why the last attempt failed; empty after one that did not."""
        self._sender, self._is_well, self._on_gone = sender, is_well, on_gone
        self._paused_until: datetime | None = None
        self._in_a_row = 0
        self._wake = threading.Event()
        self._asked = threading.Event()
        self._stop = threading.Event()
        self._refresh_at = utc_now()
        self._known: dict[str, TellingAlert] = {}
        """What Alertmanager has been told of and is not over, as of the last time that the outbox could say."""
        self._heartbeat_at: datetime | None = None
        self.thread = threading.Thread(target=self._run, name=f"to-{name}", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def wake(self) -> None:
        self._wake.set()

    def at_once(self) -> None:
        """Somebody has asked for it: neither the receiver's wish nor a pause counts any more."""
        self._asked.set()
        self._wake.set()

    def stop(self) -> None:
        """After the message that is being sent, if any."""
        self._stop.set()
        self._wake.set()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    seconds = self.work()
                except Unavailable as error:
                    self.problem = str(error)
                    seconds = 1.0
                except Exception:  # whatever it was, it is tried again: a message is never lost by a mistake
                    log.exception("receiver=%s", self.name)
                    seconds = 5.0
                if self._wake.wait(max(0.0, seconds)):
                    self._wake.clear()
        finally:
            self._sender.close()

    def work(self) -> float:
        """All that is to be done now; returns the seconds until something else is. Raises Unavailable."""
        if self.gone:
            self.outbox.bury_late(self.name, utc_now())
            return IDLE_SECONDS
        if self._asked.is_set():
            self._asked.clear()
            self._paused_until = None
        nexts = [utc_now() + timedelta(seconds=IDLE_SECONDS), self._refresh(), self._beat()]
        now = utc_now()
        if self._paused_until is not None and now < self._paused_until:
            return _seconds([*nexts, self._paused_until])
        read_at = time.monotonic()
        limit = 1 if self._in_a_row else BATCH
        messages, more_at = self.outbox.due(self.name, now, limit)
        for message in messages:
            if self._stop.is_set() or self.gone or time.monotonic() - read_at > BATCH_SECONDS:
                return 0.0
            if not self._deliver(message):
                return 0.0
        if len(messages) == limit:
            return 0.0
        return _seconds([*nexts, more_at])

    def _deliver(self, message: Waiting) -> bool:
        """Whether the next message may follow at once."""
        outcome, now = self._sent(self._to_whom(message)), utc_now()
        match outcome:
            case Delivered(note=said):
                self.sent += 1
                self._reached()
                self._know(message.notification)
                self.outbox.sent(message, said, now)
                return True
            case Partly():
                return self._partly(message, outcome, now)
            case Retry(why=why, after_seconds=wish):
                self._failed(why, wish)
                wished = timedelta(seconds=wish or 0)
                if self._is_given_up(message, now):
                    self.dead += 1
                    self.outbox.dead(message, _given_up(message, why), now)
                    return True
                later = max(wished, pause(message.attempts + 1, random.random()))  # noqa: S311
                self.outbox.later(message, why, now + later, now)
                return False
            case Refused(why=why):
                self.dead += 1
                self._reached()
                log.error("receiver=%s refuses %s: %s", self.name, message.notification.notification_id, why)
                self.outbox.dead(message, why, now)
                return True
            case Gone(why=why):
                self._switch_off(why, now)
                return False

    def _to_whom(self, message: Waiting) -> Notification:
        """Each address of a mail hears of an alert in order, and waits for no other."""
        if not isinstance(self.options, EmailOptions):
            return message.notification
        return msgspec.structs.replace(message.notification, but_not_to=self.outbox.behind(message))

    def _partly(self, message: Waiting, outcome: Partly, now: datetime) -> bool:
        """The receiver is there: what follows is sent to those of its addresses that take it."""
        number, before, why = message.notification.notification_id, self.problem, outcome.why
        self._reached()
        self.problem = why
        self.sent += bool(outcome.told)
        given_up = not outcome.never and self._is_given_up(message, now)
        if outcome.never or given_up:
            self.dead += 1
            log.error("receiver=%s does not take %s everywhere: %s", self.name, number, why)
            self.outbox.partly(message, outcome, _given_up(message, why) if given_up else why, None, now)
            return True
        if why != before:
            log.warning("receiver=%s does not take %s everywhere yet: %s", self.name, number, why)
        self.outbox.partly(message, outcome, why, now + pause(message.attempts + 1, random.random()), now)  # noqa: S311
        return False

    def _is_given_up(self, message: Waiting, now: datetime) -> bool:
        return now - message.tried_since >= self.options.give_up

    def _sent(self, notification: Notification) -> Outcome:
        try:
            return self._sender.send(notification)
        except Exception as error:  # a mistake of ours: kept and tried again, until somebody mends it
            log.exception("receiver=%s notification=%s", self.name, notification.notification_id)
            return Retry(f"{type(error).__name__}: {error}")

    def _reached(self) -> None:
        if self._in_a_row:
            log.info("receiver=%s is there again", self.name)
        self._in_a_row, self._paused_until, self.problem = 0, None, ""

    def _failed(self, why: str, wish: float | None) -> None:
        """One message may be at fault; from the second failure in a row on, it is the receiver."""
        self.failures += 1
        self._in_a_row += 1
        if self._in_a_row == 1 or why != self.problem:
            log.warning("receiver=%s: %s", self.name, why)
        self.problem = why
        length = pause(self._in_a_row, random.random(), PROBE_LONGEST)  # noqa: S311
        self._paused_until = utc_now() + max(length, timedelta(seconds=wish or 0))

    def _switch_off(self, why: str, now: datetime) -> None:
        self.gone, self.problem = True, why
        log.error("receiver=%s wants no more, and is switched off: %s", self.name, why)
        self.outbox.gone(self.name, why, now)
        self._on_gone()

    def _beat(self) -> datetime | None:
        """A heartbeat is never kept: the one that counts is the next one. Returns when that is."""
        if self.options.heartbeat is None:
            return None
        now = utc_now()
        if self._heartbeat_at is None:
            self._heartbeat_at = self.outbox.heartbeat_at(self.name) or datetime.min.replace(tzinfo=UTC)
        if now - self._heartbeat_at < self.options.heartbeat:
            return self._heartbeat_at + self.options.heartbeat
        if not self._is_well():
            return now + UNWELL
        self._heartbeat_at = now
        number = f"heartbeat-{int(now.timestamp())}@{self.name}"
        match self._sent(
            Notification(
                notification_id=number, receiver=self.name, kind="heartbeat", alerts=(), summary="Weir lives",
                created_at=now,
            )
        ):  # fmt: skip
            case Delivered():
                self._reached()
                self.outbox.beaten(self.name, now)
            case Partly(why=why):
                self._reached()
                self.outbox.beaten(self.name, now)
                self.problem = why
                self.outbox.failing(self.name, why, now)
            case Gone(why=why):
                self._switch_off(why, now)
            case Retry(why=why) | Refused(why=why):
                self.problem = why
                self.outbox.failing(self.name, why, now)
        return now + self.options.heartbeat

    def _know(self, told: Notification) -> None:
        for alert in told.alerts if isinstance(self.options, AlertmanagerOptions) and told.kind != "test" else ():
            if alert.active:
                self._known[alert.alert_id] = alert
            else:
                self._known.pop(alert.alert_id, None)

    def _refresh(self) -> datetime | None:
        """Alertmanager takes an alert for over that it is not told of again: also while the warehouse is away."""
        if not isinstance(self.options, AlertmanagerOptions):
            return None
        now = utc_now()
        if now >= self._refresh_at:
            self._refresh_at = now + self.options.refresh
            try:
                self._known = {alert.alert_id: alert for alert in self.outbox.known_to(self.name)}
            except Unavailable as error:
                log.warning("receiver=%s is told again of what was last known: %s", self.name, error)
            if self._known:
                self._tell_again(now)
        return self._refresh_at

    def _tell_again(self, now: datetime) -> None:
        began = time.monotonic()
        outcome = self._sender.refresh(list(self._known.values()))  # type: ignore[attr-defined]
        log.debug("receiver=%s refreshed=%d seconds=%.3f", self.name, len(self._known), time.monotonic() - began)
        if isinstance(outcome, Delivered):
            self._reached()
        elif isinstance(outcome, Retry | Refused):
            self._failed(outcome.why, None)
            self._refresh_at = self._paused_until or self._refresh_at
            self.outbox.failing(self.name, outcome.why, now)


def _given_up(message: Waiting, why: str) -> str:
    return f"given up after {message.attempts + 1} attempts: {why}"


def _seconds(moments: list[datetime | None]) -> float:
    return (min(m for m in moments if m is not None) - utc_now()).total_seconds()
