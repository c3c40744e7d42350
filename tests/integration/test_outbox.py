"""The dispatcher's tables, by themselves: what is due, what is known, what is sent again."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text

from connections.warehouse import Warehouse
from etl.retention import expire
from fleet.board import Board, Changes
from fleet.catalog import load_catalog
from fleet.errors import Unavailable
from fleet.hindrance import Circumstances
from fleet.notification import Partly
from fleet.receivers_file import load_receivers
from fleet.settings import Settings
from fleet.standing import AlertSoFar, Standing
from streaming.dead_letters import revive
from streaming.outbox import Outbox
from streaming.requests import answered
from tests.alerts_told import alert, notification

pytestmark = pytest.mark.stack


class Tables:
    """The outbox, taken over, with `ops` as its one receiver."""

    def __init__(self, settings: Settings):
        self.warehouse = Warehouse.of(settings)
        self.outbox = Outbox(self.warehouse)
        self.outbox.take_over(now())
        with self.warehouse.transaction() as connection:
            self.outbox.receivers(connection, {"ops": "webhook"}, now())

    def put(self, *messages: Any) -> None:
        with self.warehouse.transaction() as connection:
            self.outbox.put(connection, messages, now())

    def due(self) -> list[Any]:
        return self.outbox.due("ops", now(), 50)[0]

    def rows(self, sql: str) -> list[dict[str, Any]]:
        return self.warehouse.rows(sql)

    def close(self) -> None:
        with self.warehouse.transaction() as connection:
            for table in ("outbox", "dispatch_alerts", "dispatch_groups", "dispatch_receivers"):
                connection.execute(text(f"DELETE FROM {table}"))
        self.warehouse.close()


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def tables(settings_for: Callable[[str], Settings]) -> Iterator[Tables]:
    tables = Tables(settings_for("dispatcher"))
    yield tables
    tables.close()


KNOWN = [
    ("as it was told", {"told": "warning"}, ["warning"]),
    ("what is held back of it is not told", {"told": "warning", "held": "maintenance"}, ["warning"]),
    ("never told", {"held": "silenced"}, []),
    ("told in a digest to come", {"told": "warning", "digest": "firing"}, []),
    ("told how it is now", {"told": "critical"}, ["critical"]),
]


@pytest.mark.parametrize(("standing", "severities"), [k[1:] for k in KNOWN], ids=[k[0] for k in KNOWN])
def test_what_is_kept_alive_is_what_was_told(tables: Tables, standing: Any, severities: list[str]) -> None:
    risen = alert(2, severity="critical", severities=("warning", "critical"))
    board = Board([AlertSoFar(alert=risen, standings={"ops": Standing(**standing)})])
    with tables.warehouse.transaction() as connection:
        tables.outbox.write(connection, board, Changes(alerts={risen.alert_id}), now())
    assert [each.severity for each in tables.outbox.known_to("ops")] == severities


FIRING, OVER = alert(1, alert_id="a"), alert(2, alert_id="a", resolved_at=now())
OTHER, NEWER = alert(1, alert_id="b", device="s2"), alert(1, alert_id="c")
RESENT = [
    ("nothing came later", [FIRING], [], (1, 0), ["a-1"]),
    ("its end was told", [FIRING], [OVER], (0, 1), []),
    ("something of another", [FIRING], [OTHER], (1, 0), ["a-1"]),
    ("a digest without what was told later", [FIRING, OTHER], [OVER], (1, 0), ["b-1"]),
    ("a digest of which all was told later", [FIRING, OTHER], [OVER, OTHER], (0, 1), []),
    ("a test is about nothing", [], [OTHER], (1, 0), []),
    ("a newer alert of that rule and device", [FIRING], [NEWER], (0, 1), []),
    ("the end of an older alert", [OVER], [NEWER], (0, 1), []),
    ("a digest without what is older than another alert", [FIRING, OTHER], [NEWER], (1, 0), ["b-1"]),
]


@pytest.mark.parametrize(("dead", "later", "came", "alerts"), [r[1:] for r in RESENT], ids=[r[0] for r in RESENT])
def test_what_is_sent_again_is_no_news_of_the_past(
    tables: Tables, dead: Any, later: Any, came: tuple[int, int], alerts: list[str]
) -> None:
    first = notification("digest", *(dead or [FIRING]), receiver="ops", notification_id="dead@ops", alerts=tuple(dead))
    tables.put(first)
    tables.outbox.dead(tables.due()[0], "400", now())
    if later:
        tables.put(notification("digest", *later, receiver="ops", notification_id="later@ops"))
        tables.outbox.sent(tables.due()[0], "200", now())
    with tables.warehouse.transaction() as connection:
        assert revive(connection, "id", "dead@ops", now()) == came
    assert [a.transition_id for m in tables.due() for a in m.notification.alerts] == alerts
    assert len(tables.due()) == came[0]
    assert len(tables.rows("SELECT 1 FROM outbox WHERE problem LIKE 'superseded%'")) == came[1]
    assert tables.outbox.figures()["dead_letters"] == 0, "sent again, or known better"


APART = [
    ("the end of an older alert", [OVER], [NEWER], (1, 0)),
    ("its own end was told", [FIRING], [OVER], (0, 1)),
]


@pytest.mark.parametrize("kind", ["email", "grafana"])
@pytest.mark.parametrize(("dead", "later", "came"), [a[1:] for a in APART], ids=[a[0] for a in APART])
def test_who_shows_each_alert_by_itself_is_sent_the_end_of_an_older_one(
    tables: Tables, kind: str, dead: Any, later: Any, came: tuple[int, int]
) -> None:
    with tables.warehouse.transaction() as connection:
        tables.outbox.receivers(connection, {"ops": kind}, now())
    test_what_is_sent_again_is_no_news_of_the_past(tables, dead, later, came, [dead[0].transition_id] * came[0])


def test_a_dead_letter_never_outdates_what_came_after_it(tables: Tables) -> None:
    tables.put(notification("firing", FIRING, receiver="ops"), notification("firing", NEWER, receiver="ops"))
    first, second = tables.due()
    tables.outbox.dead(second, "400", now())
    tables.outbox.sent(first, "200", now())
    with tables.warehouse.transaction() as connection:
        assert revive(connection, "receiver", "ops", now()) == (1, 0)


def test_what_a_receiver_takes_for_one_thing_is_told_in_order_over_a_restart(tables: Tables) -> None:
    """The end of an alert that is put off holds up the next alert of its rule and device, and nothing else."""
    began = now()
    tables.put(notification("resolved", OVER, receiver="ops"))
    tables.outbox.later(tables.due()[0], "503", began + timedelta(minutes=1), began)
    tables.put(notification("firing", NEWER, receiver="ops"), notification("firing", OTHER, receiver="ops"))
    tables.put(notification("firing", NEWER, receiver="boss"))
    successor = Outbox(tables.warehouse)
    successor.take_over(began)

    def due(receiver: str, after: timedelta) -> list[str]:
        return [m.notification.notification_id for m in successor.due(receiver, began + after, 50)[0]]

    assert due("ops", timedelta(seconds=30)) == ["b-1@ops"]
    assert due("boss", timedelta(seconds=30)) == ["c-1@boss"]
    assert successor.due("ops", began + timedelta(seconds=30), 50)[1] == began + timedelta(minutes=1)
    assert successor.due("boss", began + timedelta(minutes=2), 50)[1] is None
    assert due("ops", timedelta(minutes=1)) == ["a-2@ops", "c-1@ops", "b-1@ops"]
    (at_once, *_), _ = successor.due("ops", began + timedelta(minutes=1), 50)
    successor.sent(at_once, "200", began + timedelta(minutes=1))
    assert due("ops", timedelta(minutes=1)) == ["c-1@ops", "b-1@ops"]


def test_all_that_is_dead_is_sent_again_in_its_order(tables: Tables) -> None:
    tables.put(*(notification("firing", each, receiver="ops") for each in (FIRING, OVER)))
    for message in tables.due():
        tables.outbox.dead(message, "400", now())
    with tables.warehouse.transaction() as connection:
        assert revive(connection, "receiver", "ops", now()) == (2, 0)
    for message, expected in zip(tables.due(), ("a-1@ops", "a-2@ops"), strict=True):
        assert message.notification.notification_id == expected
        tables.outbox.sent(message, "200", now())


@pytest.mark.parametrize(
    ("receivers", "off", "answer"),
    [
        ("{ops: {kind: webhook, url: 'http://ops'}}", False, "done"),
        ("{ops: {kind: webhook, url: 'http://ops'}}", True, "ops is switched off"),
        ("{boss: {kind: webhook, url: 'http://boss'}}", False, "no receiver 'ops'"),
    ],
    ids=["one that is there", "switched off", "no longer in the file"],
)
def test_a_dead_letter_is_sent_again_only_to_who_is_there(
    tables: Tables, receivers: str, off: bool, answer: str
) -> None:
    tables.put(notification("firing", FIRING, receiver="ops"))
    tables.outbox.dead(tables.due()[0], "400", now())
    if off:
        tables.outbox.gone("ops", "410", now())
    given = Circumstances(now=now(), policy=load_receivers(f"receivers: {receivers}", "receivers.yaml", {}))
    request = SimpleNamespace(what="resend", subject="a-1@ops", by="ann", comment="")
    with tables.warehouse.transaction() as connection:
        assert answered(request, Board(), given, tables.outbox, connection).startswith(answer)
    assert len(tables.due()) == (answer == "done")


@pytest.mark.parametrize("off", [True, False], ids=["switched off", "on again meanwhile"])
def test_what_comes_late_for_a_receiver_that_is_off_is_dead(tables: Tables, off: bool) -> None:
    tables.outbox.gone("ops", "410", now())
    tables.put(notification("firing", FIRING, receiver="ops"))
    if not off:
        with tables.warehouse.transaction() as connection:
            tables.outbox.switch_on(connection, "ops", now())
    tables.outbox.bury_late("ops", now())
    assert tables.rows("SELECT problem FROM outbox WHERE dead_at IS NOT NULL") == [{"problem": "410"}] * off


def test_who_was_taken_over_from_sends_no_more(tables: Tables) -> None:
    tables.put(notification("firing", FIRING, receiver="ops"))
    assert len(tables.due()) == 1
    successor = Outbox(tables.warehouse)
    successor.take_over(now())
    assert tables.due() == []
    assert len(successor.due("ops", now(), 50)[0]) == 1


def test_a_dispatcher_that_freezes_while_it_decides_can_be_taken_over_from(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.outbox.FROZEN_SECONDS", 1)
    successor = Outbox(tables.warehouse)
    with pytest.raises(Unavailable), tables.warehouse.transaction() as frozen:
        tables.outbox.hold(frozen)
        successor.take_over(now())
        frozen.execute(text("SELECT 1"))
    with pytest.raises(Unavailable, match="taken over"), tables.warehouse.transaction() as connection:
        tables.outbox.hold(connection)


def test_who_decides_does_not_wait_for_ever(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.outbox.LOCK_SECONDS", 1)
    with tables.warehouse.transaction() as other:
        tables.outbox.hold(other)
        with pytest.raises(Unavailable), tables.warehouse.transaction() as connection:
            tables.outbox.hold(connection)


def test_what_is_long_over_is_forgotten(tables: Tables, settings_for: Callable[[str], Settings]) -> None:
    for age, number in ((timedelta(days=100), 1), (timedelta(days=1), 2)):
        tables.put(notification("firing", alert(number, alert_id=f"old{number}"), receiver="ops"))
        tables.outbox.dead(tables.due()[0], "400", now() - age)
    tables.put(notification("firing", FIRING, receiver="ops"))
    batch = Warehouse.of(settings_for("batch"))
    try:
        deleted = expire(batch, load_catalog(settings_for("batch").types_dir), now())
    finally:
        batch.close()
    assert deleted["all types"]["dead_letters"] == 1
    left = {r["notification_id"] for r in tables.rows("SELECT notification_id FROM outbox")}
    assert left == {"old2-2@ops", "a-1@ops"}


def test_who_is_switched_on_by_hand_is_tried_at_once(tables: Tables) -> None:
    tables.put(notification("firing", FIRING, receiver="ops"))
    tables.outbox.later(tables.due()[0], "429", now() + timedelta(days=1), now())
    assert tables.due() == []
    with tables.warehouse.transaction() as connection:
        tables.outbox.switch_on(connection, "ops", now())
    assert len(tables.due()) == 1


A, B, C = "a@x.example", "b@x.example", "c@x.example"


@pytest.fixture
def mail(tables: Tables) -> Tables:
    with tables.warehouse.transaction() as connection:
        tables.outbox.receivers(connection, {"ops": "email"}, now())
    return tables


def put_off(mail: Tables, message: Any, left: dict[str, str], *told: str, seconds: float = 60) -> None:
    outcome = Partly(left, told)
    mail.outbox.partly(message, outcome, outcome.why, now() + timedelta(seconds=seconds), now())


def due_to(mail: Tables, after_seconds: float = 0) -> list[tuple[str, list[str]]]:
    """Ids, and to whom alone."""
    found = mail.outbox.due("ops", now() + timedelta(seconds=after_seconds), 50)[0]
    return [(m.notification.notification_id, sorted(m.notification.only_to)) for m in found]


def test_an_address_of_a_mail_hears_all_in_order_and_holds_up_no_other(mail: Tables) -> None:
    risen = alert(2, alert_id="a", severity="critical")
    over = alert(3, alert_id="a", resolved_at=now())
    mail.put(*(notification("firing", each, receiver="ops") for each in (FIRING, risen, over, OTHER)))
    first, second, third, other = mail.due()
    put_off(mail, first, {A: "450 full"}, B, C)
    assert due_to(mail) == [("a-2@ops", []), ("a-3@ops", []), ("b-1@ops", [])]
    assert [mail.outbox.behind(each) for each in (second, third, other)] == [{A: "450 full"}, {A: "450 full"}, {}]
    put_off(mail, second, {A: "450 full", C: "450 grey"}, B, seconds=-1)
    assert mail.outbox.behind(third) == {A: "450 full", C: "450 grey"}
    due = [("a-2@ops", [A, C]), ("a-3@ops", []), ("b-1@ops", [])]
    assert due_to(mail) == due, "c waits for no mail that is to go to a alone"
    put_off(mail, third, {A: "450 full", C: "450 grey"}, B, seconds=-1)
    assert due_to(mail) == [due[0], ("a-3@ops", [A, C]), due[2]]
    put_off(mail, second, {A: "450 full", C: "450 grey"})
    assert due_to(mail) == [("b-1@ops", [])], "of the third nobody is left who does not wait for the second"
    assert mail.outbox.due("ops", now(), 50)[1] is not None
    left = [("a-1@ops", [A]), ("a-2@ops", [A, C]), ("a-3@ops", [A, C]), ("b-1@ops", [])]
    assert due_to(mail, after_seconds=61) == left
    mail.outbox.sent(first, "", now())
    assert due_to(mail, after_seconds=61) == left[1:]
    mail.outbox.sent(second, "", now())
    assert mail.outbox.behind(third) == {}


def test_what_is_sent_again_to_one_address_holds_up_no_other(mail: Tables) -> None:
    mail.put(*(notification("firing", each, receiver="ops") for each in (FIRING, NEWER)))
    first, newer = mail.due()
    mail.outbox.partly(first, NOT_TO_A, NOT_TO_A.why, None, now())
    put_off(mail, newer, {B: "450 full"}, A, seconds=-1)
    with mail.warehouse.transaction() as connection:
        assert revive(connection, "id", "a-1@ops", now()) == (1, 0)
    assert due_to(mail) == [("a-1@ops", [A]), ("c-1@ops", [B])]
    put_off(mail, mail.due()[0], {A: "450 full"})
    assert due_to(mail) == [("c-1@ops", [B])]


NOT_TO_A = Partly({A: "550 no"}, (B,), never=True)
LATER_TO_A, LATER_TO_B = Partly({A: "450 grey"}, (B,)), Partly({B: "450 grey"}, (A,))
OF_ADDRESSES = [
    ("a is told of nothing later", NOT_TO_A, LATER_TO_A, (1, 0)),
    ("a is told of the end", NOT_TO_A, LATER_TO_B, (0, 1)),
    ("all are told of the end", NOT_TO_A, None, (0, 1)),
    ("nobody had it, and some are told of the end", None, LATER_TO_A, (0, 1)),
]


@pytest.mark.parametrize(
    ("dead", "later", "came"), [each[1:] for each in OF_ADDRESSES], ids=[each[0] for each in OF_ADDRESSES]
)
def test_a_dead_letter_is_for_the_addresses_that_did_not_take_it(
    mail: Tables, dead: Partly | None, later: Partly | None, came: tuple[int, int]
) -> None:
    mail.put(notification("firing", FIRING, receiver="ops"), notification("resolved", OVER, receiver="ops"))
    first, second = mail.due()
    if dead:
        mail.outbox.partly(first, dead, dead.why, None, now())
    else:
        mail.outbox.dead(first, "554 spam", now())
    assert mail.outbox.figures() == {"waiting": 1, "dead_letters": 1, "failing_receivers": int(dead is not None)}
    if later:
        mail.outbox.partly(second, later, later.why, now() + timedelta(minutes=1), now())
    else:
        mail.outbox.sent(second, "", now())
    with mail.warehouse.transaction() as connection:
        assert revive(connection, "receiver", "ops", now()) == came
    assert due_to(mail) == [("a-1@ops", [A])] * came[0]


def test_what_an_address_does_not_take_is_written_down(mail: Tables, settings_for: Callable[[str], Settings]) -> None:
    shown = "SELECT problem, failing_since IS NOT NULL AS failing, sent_at IS NOT NULL AS sent FROM dispatch_receivers"
    number = f"written-{now().timestamp()}@ops"
    mail.put(notification("firing", FIRING, receiver="ops", notification_id=number))
    mail.outbox.partly(mail.due()[0], NOT_TO_A, NOT_TO_A.why, None, now())
    assert mail.rows(shown) == [{"problem": f"{A}: 550 no", "failing": True, "sent": True}]
    reader = Warehouse.of(settings_for("operator"))
    try:
        noted = "SELECT outcome, note FROM notifications WHERE notification_id = :id ORDER BY outcome"
        rows = [tuple(row.values()) for row in reader.rows(noted, id=number)]
    finally:
        reader.close()
    assert rows == [("dead", f"{A}: 550 no"), ("sent", f"but not to {A}: 550 no")]
    with mail.warehouse.transaction() as connection:
        assert revive(connection, "id", number, now()) == (1, 0)
    mail.outbox.sent(mail.due()[0], "", now())
    assert mail.rows(shown) == [{"problem": None, "failing": False, "sent": True}]
