"""What a courier does with each outcome of sending: when it tries again, what it gives up, when it stops."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from fleet.errors import Unavailable
from fleet.notification import Delivered, Gone, Notification, Outcome, Partly, Refused, Retry, TellingAlert
from fleet.receivers import AlertmanagerOptions, EmailOptions, WebhookOptions
from streaming.backoff import RETRY_LONGEST, pause
from streaming.courier import Courier
from streaming.outbox import Waiting
from streaming.requests import receivers_of
from tests.unit.alert_log import START, transition


class FakeOutbox:
    """Remembers what was written: `sent 1`, `later 1 0.5-1.0`, `dead 1`, `gone ops`."""

    def __init__(self, *messages: Waiting):
        self.messages = list(messages)
        self.written: list[str] = []
        self.due_at: dict[int, datetime] = {}

    def due(self, receiver: str, now: datetime, limit: int) -> tuple[list[Waiting], datetime | None]:
        due = [m for m in self.messages if self.due_at.get(m.id, now) <= now][:limit]
        return due, min((at for at in self.due_at.values() if at > now), default=None)

    def _drop(self, word: str, message: Waiting) -> None:
        self.messages.remove(message)
        self.due_at.pop(message.id, None)
        self.written.append(f"{word} {message.id}")

    def sent(self, message: Waiting, said: str, now: datetime) -> None:
        self._drop("sent", message)

    def dead(self, message: Waiting, why: str, now: datetime) -> None:
        self._drop("dead", message)

    def partly(self, message: Waiting, outcome: Partly, why: str, due_at: datetime | None, now: datetime) -> None:
        if due_at is None:
            self._drop(f"partly dead ({why})", message)
        else:
            self.due_at[message.id] = due_at
            self.written.append(f"partly {message.id}")

    def behind(self, message: Waiting) -> dict[str, str]:
        return {"a@x": f"before {message.id}"}

    def later(self, message: Waiting, why: str, due_at: datetime, now: datetime) -> None:
        self.due_at[message.id] = due_at
        self.written.append(f"later {message.id}")

    def gone(self, receiver: str, why: str, now: datetime) -> None:
        self.written.append(f"gone {receiver}")

    def bury_late(self, receiver: str, now: datetime) -> None:
        self.written += [f"buried {m.id}" for m in self.messages]
        self.messages = []

    def heartbeat_at(self, receiver: str) -> datetime | None:
        return None

    def beaten(self, receiver: str, now: datetime) -> None:
        self.written.append("heartbeat")

    def failing(self, receiver: str, why: str, now: datetime) -> None:
        self.written.append("failing")


class FakeSender:
    def __init__(self, **outcomes: Any):
        """Of a notification by its id; else delivered."""
        self.outcomes, self.asked = outcomes, list[str]()
        self.behind: list[dict[str, str]] = []

    def send(self, notification: Notification) -> Outcome:
        self.asked.append(notification.notification_id)
        self.behind.append(notification.but_not_to)
        outcome = self.outcomes.get(notification.notification_id, Delivered())
        if isinstance(outcome, Exception):
            raise outcome
        return outcome  # type: ignore[no-any-return]

    def close(self) -> None:
        pass


def message(number: int, alert: str, age: timedelta = timedelta(0), attempts: int = 0, to: str = "firing") -> Waiting:
    from fleet.standing import taken

    about = taken(None, transition(alert, to=to), False, True).alert
    n = Notification(
        notification_id=f"m{number}", receiver="ops", kind="firing", alerts=(about,), summary="", created_at=START
    )
    return Waiting(number, n, datetime.now(UTC) - age, attempts)


def courier(outbox: FakeOutbox, sender: FakeSender, **options: Any) -> Courier:
    made = WebhookOptions.model_validate({"kind": "webhook", "url": "http://ops", **options})
    return Courier("ops", made, sender, outbox)  # type: ignore[arg-type]


OUTCOMES = [
    ("all arrive", {}, ["sent 1", "sent 2", "sent 3"]),
    ("one is refused", {"m1": Refused("400")}, ["dead 1", "sent 2", "sent 3"]),
    ("one fails: the others wait for it a moment", {"m1": Retry("500")}, ["later 1"]),
    ("a mistake of ours is no loss", {"m1": ValueError("oh")}, ["later 1"]),
    ("it wants no more", {"m2": Gone("410")}, ["sent 1", "gone ops"]),
]


@pytest.mark.parametrize(("outcomes", "written"), [o[1:] for o in OUTCOMES], ids=[o[0] for o in OUTCOMES])
def test_outcomes(outcomes: dict[str, Any], written: list[str]) -> None:
    outbox = FakeOutbox(message(1, "a"), message(2, "a"), message(3, "b"))
    courier(outbox, FakeSender(**outcomes)).work()
    assert outbox.written == written


LEFT, NEVER = Partly({"a@x": "450 grey"}, ("b@x",)), Partly({"a@x": "550 no"}, ("b@x",), never=True)
PARTLY = [
    ("later for one address: the next message follows", LEFT, {}, ["partly 1", "sent 2"], 0, "a@x: 450 grey"),
    ("never for one address", NEVER, {}, ["partly dead (a@x: 550 no) 1", "sent 2"], 1, "a@x: 550 no"),
    (
        "given up for one address", LEFT, {"age": timedelta(days=4), "attempts": 9},
        ["partly dead (given up after 10 attempts: a@x: 450 grey) 1", "sent 2"], 1, "a@x: 450 grey",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "about", "written", "dead", "problem"), [p[1:] for p in PARTLY], ids=[p[0] for p in PARTLY]
)
def test_what_an_address_does_not_take_is_seen_and_holds_up_nobody_else(
    caplog: pytest.LogCaptureFixture, outcome: Partly, about: Any, written: list[str], dead: int, problem: str
) -> None:
    outbox, sender = FakeOutbox(message(1, "a", **about)), FakeSender(m1=outcome)
    by = courier(outbox, sender)
    by.options = EmailOptions(kind="email", host="mail", sender="weir@x", to=("a@x", "b@x"))
    by.work()
    assert by.problem == problem
    assert problem in caplog.text
    outbox.due_at = dict.fromkeys(outbox.due_at, datetime.now(UTC) + timedelta(hours=1))  # however slow this machine
    outbox.messages.append(message(2, "b"))
    by.work()
    assert outbox.written == written
    assert (by.sent, by.dead, by.problem) == (2, dead, "")
    assert sender.behind == [{"a@x": "before 1"}, {"a@x": "before 2"}]


def test_a_receiver_that_fails_is_left_alone_for_a_while() -> None:
    outbox, sender = FakeOutbox(message(1, "a"), message(2, "b")), FakeSender(m1=Retry("away"))
    by = courier(outbox, sender)
    by.work()
    assert 0 < by.work() <= 1
    assert sender.asked == ["m1"]
    assert by.problem == "away"


def test_what_was_read_long_ago_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after this process was frozen: by now another dispatcher has sent the rest, and the outbox is not ours."""
    outbox = FakeOutbox(message(1, "a"), message(2, "b"))

    class Freezing(FakeSender):
        def send(self, notification: Notification) -> Outcome:
            monkeypatch.setattr("streaming.courier.time.monotonic", lambda: float("inf"))
            return super().send(notification)

    sender = Freezing()
    by = courier(outbox, sender)
    assert by.work() == 0.0
    monkeypatch.undo()
    outbox.messages = []
    by.work()
    assert sender.asked == ["m1"]


def test_its_own_wish_counts() -> None:
    outbox = FakeOutbox(message(1, "a"))
    by = courier(outbox, FakeSender(m1=Retry("429", after_seconds=120)))
    by.work()
    assert 110 < (outbox.due_at[1] - datetime.now(UTC)).total_seconds() <= 120
    assert by.work() > 25


def test_who_asks_for_it_does_not_wait_for_its_wish() -> None:
    outbox, sender = FakeOutbox(message(1, "a")), FakeSender(m1=Retry("429", after_seconds=86_400))
    by = courier(outbox, sender)
    by.work()
    outbox.messages.append(message(2, "b"))
    by.work()
    assert sender.asked == ["m1"]
    by.at_once()
    by.work()
    assert sender.asked == ["m1", "m2"]


REQUESTS = [
    ("test", "ops", ("ops",)), ("resend", "receiver:ops", ("ops",)), ("resend", "a-1@ops", ("ops",)),
    ("acknowledge", "a", ()),
]  # fmt: skip


@pytest.mark.parametrize(("what", "subject", "receivers"), REQUESTS, ids=[f"{r[0]} {r[1]}" for r in REQUESTS])
def test_which_receivers_a_request_is_about(what: str, subject: str, receivers: tuple[str, ...]) -> None:
    assert receivers_of(SimpleNamespace(what=what, subject=subject)) == receivers


@pytest.mark.parametrize(("age", "written"), [(timedelta(days=2), "later 1"), (timedelta(days=4), "dead 1")], ids=str)
def test_it_gives_up_after_days(age: timedelta, written: str) -> None:
    outbox = FakeOutbox(message(1, "a", age, attempts=90))
    courier(outbox, FakeSender(m1=Retry("away"))).work()
    assert outbox.written == [written]


def test_what_was_decided_before_it_was_known_to_be_off_does_not_wait_for_ever() -> None:
    outbox, sender = FakeOutbox(message(1, "a")), FakeSender(m1=Gone("410"))
    by = courier(outbox, sender)
    by.work()
    outbox.messages.append(message(2, "b"))
    by.work()
    assert outbox.written == ["gone ops", "buried 1", "buried 2"]
    assert sender.asked == ["m1"]


def test_a_heartbeat_is_sent_only_where_it_is_true() -> None:
    outbox, sender = FakeOutbox(), FakeSender()
    by = courier(outbox, sender, heartbeat="1m")
    by._is_well = lambda: False
    assert by.work() <= 1, "it may be well the next moment, as at the start"
    assert outbox.written == []
    by._is_well = lambda: True
    by.work()
    assert outbox.written == ["heartbeat"]
    outbox, sender = FakeOutbox(), FakeSender()
    by = courier(outbox, sender, heartbeat="1m")
    assert by.work() <= 60
    by.work()
    assert outbox.written == ["heartbeat"]
    assert sender.asked[0].startswith("heartbeat-")


def test_a_heartbeat_that_an_address_does_not_take_is_told_and_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox, sender = FakeOutbox(), FakeSender()
    monkeypatch.setattr(sender, "send", lambda notification: LEFT)
    by = courier(outbox, sender, heartbeat="1m")
    by.work()
    assert outbox.written == ["heartbeat", "failing"]
    assert by.problem == "a@x: 450 grey"


class Away(FakeOutbox):
    """Knows of alerts a and b, and then is away."""

    away = False

    def known_to(self, receiver: str) -> list[TellingAlert]:
        if self.away:
            raise Unavailable("away")
        return [message(0, alert).notification.alerts[0] for alert in ("a", "b")]

    def due(self, receiver: str, now: datetime, limit: int) -> tuple[list[Waiting], datetime | None]:
        if self.away:
            raise Unavailable("away")
        return super().due(receiver, now, limit)


class FakeAlertmanager(FakeSender):
    def __init__(self) -> None:
        super().__init__()
        self.refreshed: list[set[str]] = []

    def refresh(self, alerts: list[TellingAlert]) -> Outcome:
        self.refreshed.append({alert.alert_id for alert in alerts})
        return Delivered()


def test_alertmanager_hears_on_while_the_warehouse_is_away() -> None:
    over = message(1, "a", to="resolved")
    outbox, sender = Away(over, message(2, "c")), FakeAlertmanager()
    options = AlertmanagerOptions.model_validate({"kind": "alertmanager", "url": "http://am", "refresh": "1s"})
    by = Courier("ops", options, sender, outbox)  # type: ignore[arg-type]
    by.work()
    assert outbox.written == ["sent 1", "sent 2"]
    outbox.away = True
    by._refresh_at = START
    with pytest.raises(Unavailable):
        by.work()
    assert sender.refreshed == [{"a", "b"}, {"b", "c"}], "a is over by now, and c is new"


@pytest.mark.parametrize(
    ("failures", "least", "most"), [(1, 0.5, 1), (2, 1, 2), (5, 8, 16), (9, 128, 256), (10, 150, 300), (500, 150, 300)]
)
def test_pauses_double_up_to_the_longest(failures: int, least: float, most: float) -> None:
    assert pause(failures, 0.0) == timedelta(seconds=most)
    assert pause(failures, 0.999999) >= timedelta(seconds=least)
    assert pause(failures, 0.0) <= RETRY_LONGEST
