"""From transitions to receivers: killed, a receiver that hangs, the database away, over a restart."""

import re
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from connections import kafka
from connections.partition_log import committed
from connections.warehouse import Warehouse
from fleet.catalog import Catalog
from fleet.channels import ALERTS_GROUP, OWN_TYPE, TRANSITIONS
from fleet.settings import Settings
from fleet.transition import Transition, encode_transition
from stack.stack import Stack
from tests.command import command
from tests.integration.inbox import Inbox
from tests.integration.processes import Process, wait_for
from weir import _alert_people

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

SettingsFor = Callable[[str], Settings]
KILLED_AFTER = (0, 6, 1, 3, 9, 2)
"""So many messages have arrived since the start, when it is killed with others under way."""
LATENCIES = 200


class Ground:
    """A system of transitions of its own, and the dispatcher with two receivers for it."""

    def __init__(self, settings_for: SettingsFor, folder: Path, system: str):
        self.system = system
        self.ops, self.boss = Inbox(), Inbox()
        self.file = folder / "receivers.yaml"
        self.rules("")
        self.producer = kafka.producer(settings_for("alerts"), "tests-transitions", linger_ms=0)
        self.warehouse = Warehouse.of(settings_for("dispatcher"))
        self.reader = Warehouse.of(settings_for("operator"))
        self.process = Process(
            "dispatcher", settings_for("dispatcher"), folder / "dispatcher.log", WEIR_RECEIVERS_FILE=self.file
        )
        self.told: list[str] = []

    def rules(self, more: str, route: str = "", ops: str = "", to: str = "[ops, boss]") -> None:
        self.file.write_text(
            f"receivers:\n"
            f"  ops: {{kind: webhook, url: '{self.ops.url}', timeout: 2s{ops}}}\n"
            f"  boss: {{kind: webhook, url: '{self.boss.url}', timeout: 2s}}\n"
            f"routes:\n  - {{match: {{system: {self.system}}}, to: {to}{route}}}\n{more}"
        )

    def say(self, alert: str, number: int, to: str, **more: Any) -> None:
        self.begin_to_say(alert, number, to, **more).get(timeout=60)

    def begin_to_say(self, alert: str, number: int, to: str, **more: Any) -> Any:
        """Returns what to wait for."""
        now = time.time_ns() // 1000
        t = Transition(**{
            "transition_id": f"{alert}-{number}", "alert_id": alert, "rule": "hot", "device": alert, "site": "roof",
            "type": "sensor", "system": self.system, "to": to, "severity": "critical" if number > 1 else "warning",
            "reason": "recovered" if to == "resolved" else None, "values": {"t": 36.5}, "spec_version": 1,
            "flapping": False, "title": "High Temperature", "annotations": {}, "labels": {}, "event_time_us": now,
            "detected_at_us": now, "since_us": now, "starts_at_us": now, "partition": 0, "offset": number, **more,
        })  # fmt: skip
        self.told.append(t.transition_id)
        return self.producer.send(TRANSITIONS, encode_transition(t), alert.encode())

    def all_to(self, inbox: Inbox, name: str) -> Callable[[], bool]:
        return lambda: set(inbox.ids()) >= {f"{t}@{name}" for t in self.told}

    def missing(self, inbox: Inbox, name: str) -> Callable[[], str]:
        return lambda: f"{sorted({f'{t}@{name}' for t in self.told} - set(inbox.ids()))[:20]}\n{self.log()}"

    def dead(self) -> set[str]:
        rows = self.reader.rows("SELECT notification_id AS id FROM outbox WHERE dead_at IS NOT NULL")
        return {row["id"] for row in rows}

    def log(self) -> str:
        return self.process.log.read_text()[-3000:]

    def close(self) -> None:
        self.process.kill()
        self.producer.close(5)
        with self.warehouse.transaction() as connection:
            for table in ("outbox", "dispatch_alerts", "dispatch_groups", "dispatch_receivers"):
                connection.exec_driver_sql(f"DELETE FROM {table}")
        self.warehouse.close()
        self.reader.close()
        self.ops.close()
        self.boss.close()


@pytest.fixture
def ground(settings_for: SettingsFor, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Ground]:
    ground = Ground(settings_for, tmp_path, request.node.name.removeprefix("test_")[:40])
    yield ground
    ground.close()


Alerts = Callable[..., str]


@pytest.fixture
def alerts(stack: Stack) -> Alerts:
    """What `weir alerts …` says, or what is wrong."""
    weir = command(WEIR_HOME=stack.layout.home)

    def said(*arguments: str, code: int = 0) -> str:
        done = weir("alerts", *arguments, code=code)
        return done.stderr or done.stdout

    return said


def in_order(ids: list[str]) -> bool:
    last: dict[str, int] = {}
    for each in ids:
        alert, _, number = each.partition("@")[0].rpartition("-")
        if int(number) <= last.get(alert, 0):
            return False
        last[alert] = int(number)
    return True


def test_kill_9_loses_no_message_and_makes_no_new_id(ground: Ground) -> None:
    ground.rules("storm: {more_than: 1000}\n")
    ground.process.start().ready()
    begun = 0

    def say_some() -> None:
        nonlocal begun
        for _ in range(6):
            ground.say(f"k{begun}", 1, "firing")
            if begun >= 4:
                ground.say(f"k{begun - 4}", 2, "escalated")
            if begun >= 8:
                ground.say(f"k{begun - 8}", 3, "resolved")
            begun += 1

    for many in KILLED_AFTER:
        enough = len(ground.ops.arrived) + many
        say_some()
        wait_for(lambda enough=enough: len(ground.ops.arrived) >= enough, 30, ground.log, every=0.001)  # type: ignore[misc]
        say_some()
        ground.process.kill()
        ground.process.start()
    for inbox, name in ((ground.ops, "ops"), (ground.boss, "boss")):
        wait_for(ground.all_to(inbox, name), 60, ground.missing(inbox, name))
        assert set(inbox.ids()) == {f"{t}@{name}" for t in ground.told}, "no id that is new"
        assert in_order(inbox.ids())
        again = len(inbox.arrived) - len(inbox.ids())
        bodies: dict[str, Any] = {}
        assert all(bodies.setdefault(a.id, a.body) == a.body for a in inbox.arrived)
        print(f"{name}: {len(inbox.ids())} messages, {again} came again")
    ground.process.ready()
    wait_for(
        lambda: ground.reader.rows(
            "SELECT count(DISTINCT notification_id) AS n FROM notifications"
            " WHERE outcome = 'sent' AND system = :system",
            system=ground.system,
        )[0]["n"]
        == 2 * len(ground.told),
        30, "not all is written down",
    )  # fmt: skip

    took = []
    for n in range(LATENCIES):
        began = time.time()
        ground.say(f"l{n}", 1, "firing")
        wait_for(lambda n=n: f"l{n}-1@ops" in ground.ops.ids()[-3:], 5, ground.log, every=0.0005)  # type: ignore[misc]
        took.append(1000 * (ground.ops.arrived[-1].at - began))
    print(f"transition sent to webhook received: p50 {statistics.median(took):.1f} ms, slowest {max(took):.1f} ms")
    assert statistics.median(took) < 200


def test_one_receiver_hangs_and_the_other_hears_all(ground: Ground) -> None:
    ground.rules("storm: {more_than: 1000}\n")
    ground.ops.hang.set()
    ground.process.start().ready()
    for n in range(40):
        ground.say(f"h{n}", 1, "firing")
        ground.say(f"h{n}", 2, "resolved")
    wait_for(ground.all_to(ground.boss, "boss"), 10, ground.missing(ground.boss, "boss"))
    assert ground.ops.arrived == []
    wait_for(lambda: ground.process.metric('weir_dispatcher_receiver_failing{receiver="ops"}') == 1, 10, ground.log)
    ground.ops.hang.clear()
    wait_for(ground.all_to(ground.ops, "ops"), 60, ground.missing(ground.ops, "ops"))
    assert in_order(ground.ops.ids())
    wait_for(lambda: ground.process.metric('weir_dispatcher_receiver_failing{receiver="ops"}') == 0, 30, ground.log)


def test_what_a_receiver_refuses_is_kept_and_sent_again(ground: Ground, alerts: Alerts) -> None:
    ground.ops.answer = lambda message: 400 if message.startswith("r0-1") else 200
    ground.process.start().ready()
    ground.say("r0", 1, "firing")
    ground.say("r0", 2, "escalated")
    wait_for(lambda: "r0-2@ops" in ground.ops.ids(), 20, ground.log)
    assert "r0-1@ops" not in ground.ops.ids()
    assert "r0-1@ops" in alerts("dead")
    ground.ops.answer = lambda _message: 200
    assert "superseded" in alerts("resend", "r0-1@ops", code=1)
    assert "superseded" in alerts("dead")
    ground.ops.answer = lambda message: 400 if message.startswith("r3") else 200
    ground.say("r3", 1, "firing")
    wait_for(lambda: "r3-1@ops" in ground.dead(), 20, ground.log)
    ground.ops.answer = lambda _message: 200
    assert "done" in alerts("resend", "r3-1@ops")
    wait_for(lambda: "r3-1@ops" in ground.ops.ids(), 20, ground.log)
    assert "no dead letter" in alerts("resend", "r3-1@ops", code=1)

    ground.ops.answer = lambda _message: 410
    ground.say("r1", 1, "firing")
    wait_for(lambda: "r1-1@ops" in ground.dead(), 20, ground.log)
    assert "gone" in alerts("receivers")
    ground.say("r2", 1, "firing")
    wait_for(lambda: "r2-1@boss" in ground.boss.ids(), 20, ground.log)
    assert "switched_off" in alerts("held", "--system", ground.system)
    assert '"cause": "switched_off"' in alerts("held", "--receiver", "ops", "--json")
    assert "switched_off: the receiver said 410" in alerts("held", "--receiver", "ops")
    ground.ops.answer = lambda _message: 200
    assert "done: 1 messages" in alerts("resend", "--receiver", "ops")
    wait_for(lambda: {"r1-1@ops", "r2-1@ops"} <= set(ground.ops.ids()), 20, ground.log)
    assert "has arrived" in alerts("test-receiver", "boss")
    assert ground.boss.ids()[-1].startswith("test-")


def test_what_a_test_says_of_a_receiver_that_does_not_take_it(
    ground: Ground, alerts: Alerts, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground.file.write_text(ground.file.read_text().replace("timeout: 2s", "timeout: 60s"))
    ground.process.start().ready()
    for status, says in ((400, "ops did not take it: 400"), (500, "ops does not take it yet, it is tried again: 500")):
        ground.ops.answer = lambda _message, status=status: status  # type: ignore[misc]
        assert says in alerts("test-receiver", "ops", code=1)

    asked = _alert_people._ask

    def answered(*arguments: Any, **more: Any) -> int:
        """And from then on nobody has patience."""
        number = asked(*arguments, **more)
        monkeypatch.setattr(_alert_people, "ANSWER_SECONDS", 0.5)
        return number

    monkeypatch.setattr(_alert_people, "_ask", answered)
    ground.ops.hang.set()
    said = alerts("test-receiver", "ops", code=1)
    assert "@ops is still on its way; `weir alerts receivers` shows how ops is" in said


def test_what_its_spec_says_of_a_rule_decides_what_it_holds_back(ground: Ground, alerts: Alerts) -> None:
    ground.process.start().ready()
    for alert, type_name in (("i0", "room_climate"), ("i1", "smoke_alarm")):
        ground.say(alert, 1, "firing", type=type_name, rule="silent", device="d9")
    wait_for(ground.all_to(ground.ops, "ops"), 20, ground.log)
    ground.say("i2", 1, "firing", type="room_climate", rule="uncomfortable", device="d9")
    ground.say("i3", 1, "firing", type="smoke_alarm", rule="smoke", device="d9")
    wait_for(lambda: "i3-1@ops" in ground.ops.ids(), 20, ground.log)
    wait_for(lambda: "inhibited (silent)" in alerts("held", "--system", ground.system), 20, ground.log)
    assert "i2-1@ops" not in ground.ops.asked


def test_the_database_is_away_for_a_while(ground: Ground, stack: Stack) -> None:
    ground.process.start().ready()
    ground.say("d0", 1, "firing")
    wait_for(ground.all_to(ground.ops, "ops"), 20, ground.log)
    wait_for(ground.all_to(ground.boss, "boss"), 20, ground.log)
    stack.supervisor.stop_program("postgres")
    try:
        ground.say("d0", 2, "escalated")
        ground.say("d1", 1, "firing")
        wait_for(lambda: "warehouse" in ground.process.readiness(), 30, ground.log)
        assert {*ground.ops.asked, *ground.boss.asked} == {"d0-1@ops", "d0-1@boss"}
    finally:
        stack.restart("postgres")
    for inbox, name in ((ground.ops, "ops"), (ground.boss, "boss")):
        wait_for(ground.all_to(inbox, name), 60, ground.missing(inbox, name))
        assert set(inbox.ids()) == {f"{t}@{name}" for t in ground.told}
        assert in_order(inbox.ids())
    ground.process.ready()


MISTYPED = {
    "a severity": (("--severity", "critcal"), "no severity 'critcal'; did you mean 'critical'?"),
    "a system": (("--system", "wether"), "no system 'wether'; did you mean 'weather'?"),
    "a rule": (("--rule", "high_temp"), "no rule 'high_temp'; did you mean 'high_temperature'?"),
    "a device": (("--device", "nobody"), "no device 'nobody' is known; `weir devices list` shows those there are"),
    "a cause": (("held", "--cause", "silence"), "no cause 'silence'; did you mean 'silenced'?"),
    "a receiver": (
        ("held", "--receiver", "nobody"),
        "no receiver 'nobody' is known; `weir alerts receivers` shows those",
    ),
    "a site": (("held", "--site", "nowhere"), "no site 'nowhere' is known; `weir sites list` shows those there are"),
}
QUIET = {
    "a severity": (("--severity", "info", "--since", "-1s"), "no active alerts that started since then"),
    "a system": (("--history", "--system", "occupancy", "--since", "-1s"), "no alerts that started since then"),
    "a rule": (("--rule", "low_humidity", "--json"), "[]"),
    "a cause": (("held", "--cause", "maintenance", "--since", "-1s"), "nothing was held back in that time"),
}


@pytest.mark.parametrize(("arguments", "said"), MISTYPED.values(), ids=MISTYPED)
def test_a_filter_that_nothing_has_is_mistyped(alerts: Alerts, arguments: tuple[str, ...], said: str) -> None:
    assert said in alerts(*arguments, code=1)


@pytest.mark.parametrize(("arguments", "said"), QUIET.values(), ids=QUIET)
def test_a_filter_that_there_is_may_find_nothing(alerts: Alerts, arguments: tuple[str, ...], said: str) -> None:
    assert alerts(*arguments).strip() == said


def test_a_restart_goes_on_with_repeats_and_people(ground: Ground, alerts: Alerts) -> None:
    ground.rules("", route=", repeat: 1s, escalate: {after: 3s, to: boss}", to="ops")
    ground.process.start().ready()
    ground.say("p0", 1, "firing")
    wait_for(lambda: "p0-1-reminder-1@ops" in ground.ops.ids(), 10, ground.log)
    ground.process.kill()
    known = len([i for i in ground.ops.ids() if "reminder" in i])
    ground.process.start().ready()
    wait_for(lambda: f"p0-1-reminder-{known + 1}@ops" in ground.ops.ids(), 10, ground.log)
    wait_for(lambda: "p0-1@boss" in ground.boss.ids(), 10, ground.log)
    assert "done" in alerts("ack", "p0", "--by", "ann", "--comment", "on my way")
    wait_for(lambda: "p0-acknowledged-1@boss" in ground.boss.ids(), 10, ground.log)
    (told,) = [a.body["alerts"][0] for a in ground.boss.arrived if a.id == "p0-acknowledged-1@boss"]
    assert (told["annotations"]["acknowledged_by"], told["annotations"]["acknowledged_comment"]) == ("ann", "on my way")
    wait_for(lambda: '"cause": "acknowledged"' in alerts("held", "--system", ground.system, "--json"), 10, ground.log)
    numbers = [i for i in ground.ops.ids() if "reminder" in i]
    assert numbers == [f"p0-1-reminder-{n + 1}@ops" for n in range(len(numbers))]
    ground.say("p0", 2, "resolved")
    wait_for(lambda: {"p0-2@ops", "p0-2@boss"} <= {*ground.ops.ids(), *ground.boss.ids()}, 10, ground.log)


def test_a_wrong_file_changes_nothing_and_a_changed_one_reaches_what_is_active(ground: Ground) -> None:
    ground.rules("", to="ops")
    ground.process.start().ready()
    good = ground.file.read_text()
    ground.file.write_text(good.replace("routes", "roots"))
    wait_for(lambda: "did you mean 'routes'" in ground.log(), 10, ground.log)
    ground.say("w0", 1, "firing")
    ground.say("w1", 1, "firing")
    wait_for(ground.all_to(ground.ops, "ops"), 20, ground.log)
    assert ground.boss.asked == []
    ground.file.write_text(good.replace("to: ops", "to: boss"))
    wait_for(lambda: ground.boss.arrived, 10, ground.log)
    (active,) = ground.boss.arrived
    assert active.id in ("active-w0-1@boss", "active-w1-1@boss")
    assert {each["labels"]["device"] for each in active.body["alerts"]} == {"w0", "w1"}
    ground.say("w2", 1, "firing")
    wait_for(lambda: "w2-1@boss" in ground.boss.ids(), 20, ground.log)
    assert ground.boss.ids() == [active.id, "w2-1@boss"]
    assert ground.reader.rows("SELECT 1 FROM outbox WHERE receiver = 'ops'") == []
    assert "w2-1@ops" not in ground.ops.asked


def test_who_leaves_the_file_and_returns_is_told_of_what_waited_for_it(ground: Ground) -> None:
    ground.ops.answer = lambda _message: 500
    ground.process.start().ready()
    ground.say("b0", 1, "firing")
    wait_for(lambda: "b0-1@ops" in ground.ops.asked and "b0-1@boss" in ground.boss.ids(), 20, ground.log)
    good = ground.file.read_text()
    ground.file.write_text(re.sub("  ops: .*\n", "", good).replace("[ops, boss]", "boss"))
    wait_for(lambda: "b0-1@ops" in ground.dead(), 20, ground.log)
    ground.ops.answer = lambda _message: 200
    ground.file.write_text(good)
    wait_for(lambda: "b0-1-return-1@ops" in ground.ops.ids(), 20, ground.log)
    ground.say("b0", 2, "resolved")
    wait_for(lambda: "b0-2@ops" in ground.ops.ids() and "b0-2@boss" in ground.boss.ids(), 20, ground.log)
    assert ground.boss.ids() == ["b0-1@boss", "b0-2@boss"]


def test_a_heartbeat_reaches_who_wants_one_and_comes_no_sooner_over_a_restart(ground: Ground) -> None:
    def beats() -> list[str]:
        return [each for each in ground.ops.asked if each.startswith("heartbeat-")]

    def written_down() -> bool:
        query = "SELECT 1 FROM dispatch_receivers WHERE name = 'ops' AND heartbeat_at IS NOT NULL"
        return bool(ground.reader.rows(query))

    ground.rules("", ops=", heartbeat: 1h")
    ground.process.start().ready()
    wait_for(written_down, 20, ground.log)
    (beat,) = ground.ops.arrived
    assert (beat.id, beat.body["alerts"]) == (beats()[0], [])
    ground.process.kill()
    ground.process.start().ready()
    ground.say("e0", 1, "firing")  # a courier looks at its heartbeat before it looks at what is to be sent
    wait_for(lambda: "e0-1@ops" in ground.ops.ids() and "e0-1@boss" in ground.boss.ids(), 20, ground.log)
    assert len(beats()) == 1
    ground.rules("", ops=", heartbeat: 1s")
    wait_for(lambda: len(beats()) >= 3, 20, ground.log)
    assert not any(each.startswith("heartbeat-") for each in ground.boss.asked)


def test_that_the_alert_service_has_stopped_shows_in_the_log_of_reports(
    ground: Ground, settings_for: SettingsFor, own_types: Path, own_catalog: Catalog, tmp_path: Path
) -> None:
    """As this user may see it: the dispatcher's own reports are taken, and after a kill they are not."""
    settings, topic = settings_for("dispatcher"), own_catalog.types[OWN_TYPE].topic

    def taken() -> int:
        return sum(offset or 0 for offset in committed(settings, ALERTS_GROUP, topic).values())

    def written() -> int:
        consumer = kafka.consumer(settings_for("alerts"), "tests-ends")
        try:
            return sum(kafka.end_offsets(consumer, [topic]).values())
        finally:
            consumer.close(autocommit=False)

    ground.process.start().ready()
    with Process("alerts", settings_for("alerts"), tmp_path / "alerts.log", WEIR_TYPES_DIR=own_types) as alerts:
        alerts.start().ready()
        before = written()
        wait_for(lambda: taken() > before, 60, alerts.log.read_text, every=0.5)
    at, before = taken(), written()
    wait_for(lambda: written() > before, 60, ground.log, every=0.5)
    assert taken() == at


def test_a_receiver_that_hangs_and_is_changed_holds_up_nobody(ground: Ground) -> None:
    ground.rules("", ops=", heartbeat: 1h")
    ground.file.write_text(ground.file.read_text().replace("timeout: 2s, heartbeat", "timeout: 60s, heartbeat"))
    ground.process.start().ready()
    ground.say("c0", 1, "firing")
    wait_for(ground.all_to(ground.ops, "ops"), 20, ground.log)
    ground.ops.hang.set()
    ground.say("c1", 1, "firing")
    wait_for(lambda: "c1-1@ops" in ground.ops.asked, 20, ground.log)
    ground.file.write_text(ground.file.read_text().replace("timeout: 60s", "timeout: 61s"))
    wait_for(lambda: ground.log().count("receivers=ops,boss") >= 2, 10, ground.log)
    ground.say("c2", 1, "firing")
    wait_for(ground.all_to(ground.boss, "boss"), 10, ground.missing(ground.boss, "boss"))
    assert "c2-1@ops" not in ground.ops.asked, "its successor waits until it has come to an end"
    ground.ops.hang.clear()
    wait_for(ground.all_to(ground.ops, "ops"), 90, ground.missing(ground.ops, "ops"))


def test_a_storm_is_one_message(ground: Ground) -> None:
    ground.rules("storm: {more_than: 3, within: 2s}\n", to="ops")
    ground.process.start().ready()
    names = {f"s{n}" for n in range(50)}
    for sent in [ground.begin_to_say(name, 1, "firing") for name in sorted(names)]:
        sent.get(timeout=60)

    def told() -> set[str]:
        return {each["labels"]["device"] for a in ground.ops.arrived for each in a.body["alerts"]}

    wait_for(lambda: told() == names, 20, ground.log)
    digests = [a for a in ground.ops.arrived if a.id.startswith("digest-")]
    assert len(digests[0].body["alerts"]) >= 20
    assert len(ground.ops.ids()) <= 10
