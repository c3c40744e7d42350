"""Whom the dispatcher tells of an alert, and what it holds back: each cause, repeats, escalation, storms."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, get_args

import msgspec
import pytest

from fleet.board import Board
from fleet.plan import plans_of
from fleet.silence import Matcher, Silence
from fleet.standing import CAUSES, Cause, taken
from fleet.storm import flushed
from fleet.webhook_body import MOST_ALERTS
from tests.unit.alert_log import START, Told, policy_of, restarted, transition

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def silence(until: timedelta = HOUR, **labels: str) -> Silence:
    matchers = tuple(Matcher(name, value) for name, value in labels.items())
    return Silence("s-1", matchers, START - HOUR, START + until, "ann", "works on the roof")


ROUTES = [
    ("everything to everybody", "", {"ops", "boss", "panel"}),
    ("the default", "default: boss", {"boss"}),
    ("the first that matches", "routes: [{match: {site: roof}, to: ops}, {to: boss}]", {"ops"}),
    ("continue", "routes: [{match: {site: roof}, to: ops, continue: true}, {to: boss}]", {"ops", "boss"}),
    ("no route takes it", "routes: [{match: {site: yard}, to: ops}]", set()),
    ("the default after routes", "routes: [{match: {site: yard}, to: ops}]\ndefault: boss", {"boss"}),
    ("a list of sites", "routes: [{match: {site: [yard, roof]}, to: ops}]", {"ops"}),
    ("a pattern", "routes: [{match: {site: 'r*'}, to: ops}]", {"ops"}),
    ("severity", "routes: [{match: {severity: [info, critical]}, to: ops}]", set()),
    ("a label", "routes: [{match: {labels: {team: hvac}}, to: ops}]", {"ops"}),
    ("a label that is not there", "routes: [{match: {labels: {floor: '1'}}, to: ops}]", set()),
    ("a label of Weir's", "routes: [{match: {labels: {alertname: hot}}, to: ops}]", {"ops"}),
    ("all that it names", "routes: [{match: {site: roof, rule: cold}, to: ops}]", set()),
    ("type, rule, device, system", "routes: [{match: {type: sensor, rule: hot, device: s1, system: demo}, to: ops}]",
     {"ops"}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "receivers"), [r[1:] for r in ROUTES], ids=[r[0] for r in ROUTES])
def test_routes(text: str, receivers: set[str]) -> None:
    alert = taken(None, transition(labels={"team": "hvac"}), False, True).alert
    assert set(plans_of(policy_of(text), alert)) == receivers


def test_told_from_firing_to_resolved() -> None:
    told = Told()
    assert told.take() == ["ops firing a-1@ops"]
    assert told.changes[-1].messages[0].summary == "warning High Temperature at roof: s1 t 36.5"
    assert told.take("a", 2, "escalated", severity="critical") == ["ops escalated a-2@ops"]
    assert told.take("a", 3, "resolved", severity="critical") == ["ops resolved a-3@ops"]
    alert = told.changes[-1].messages[0].alerts[0]
    assert (alert.severities, alert.reason, alert.active) == (("warning", "critical"), "recovered", False)
    assert told.board.alerts == {}
    assert told.changes[-1].alerts == {"a"}, "its row goes too"


def held_at_first(policy: str = "default: ops", **transition: object) -> Callable[[], tuple[Told, list[str]]]:
    def begin() -> tuple[Told, list[str]]:
        told = Told(policy)
        return told, told.take(**transition)  # type: ignore[arg-type]

    return begin


def silenced() -> tuple[Told, list[str]]:
    told = Told()
    told.silences = [silence(site="roof")]
    return told, told.take()


def inhibited() -> tuple[Told, list[str]]:
    told = Told()
    told.take("q", rule="stuck", quality=True)
    return told, told.take()


def switched_off() -> tuple[Told, list[str]]:
    told = Told()
    told.off = frozenset({"ops"})
    return told, told.take()


def flapping() -> tuple[Told, list[str]]:
    told = Told()
    told.take("old")
    told.take("old", 2, "flapping", flapping=True)
    told.take("old", 3, "resolved", flapping=True)
    return told, told.take(flapping=True)


FIRST = [
    ("silenced", silenced),
    (
        "maintenance",
        held_at_first("default: ops\nmaintenance: [{cron: '0 12 * * *', duration: 1h, match: {site: roof}}]"),
    ),
    ("inhibited", inhibited),
    ("switched_off", switched_off),
    ("flapping", flapping),
    ("stale", held_at_first(event_time=START - 2 * HOUR)),
    ("capped", held_at_first(capped=True)),
    ("no_route", held_at_first("routes: [{match: {site: yard}, to: ops}]")),
]
FOREVER = {"stale", "capped", "no_route"}


@pytest.mark.parametrize(("cause", "begin"), FIRST, ids=[f[0] for f in FIRST])
def test_what_is_held_back(cause: str, begin: Callable[[], tuple[Told, list[str]]]) -> None:
    """Its end is not told to whoever was not told of its beginning; and while it lasts it is noted once."""
    told, lines = begin()
    receiver = "" if cause == "no_route" else "ops "
    assert lines == [f"{receiver}firing {cause}"]
    assert told.tick() == []
    end = "no_route" if cause == "no_route" else "never_told"
    assert told.take("a", 2, "resolved", flapping=cause == "flapping") == [f"{receiver}resolved {end}"]
    assert told.tick(2 * HOUR) == []


@pytest.mark.parametrize(("cause", "begin"), FIRST, ids=[f[0] for f in FIRST])
def test_what_still_fires_when_the_cause_ends(cause: str, begin: Callable[[], tuple[Told, list[str]]]) -> None:
    told, _ = begin()
    told.off = frozenset()
    if cause == "inhibited":
        told.take("q", 2, "resolved", rule="stuck", quality=True)
    if cause == "flapping":
        assert told.take("a", 2, "settled") == ["ops settled a-2@ops"]
        return
    lines = told.tick(2 * HOUR)
    assert lines == ([] if cause in FOREVER else ["ops firing a-1@ops"])
    assert told.tick(HOUR) == []


def test_a_silence_is_followed_by_another_cause() -> None:
    told, _ = silenced()
    told.silences = [silence(MINUTE, site="roof")]
    told.take("q", rule="stuck", quality=True, site="yard")
    assert told.tick(2 * MINUTE) == ["ops firing inhibited"]
    told.take("q", 2, "resolved", rule="stuck", quality=True)
    assert told.tick() == ["ops firing a-1@ops"]


def test_inhibition_is_of_one_device_and_spares_what_says_so() -> None:
    told = Told()
    told.take("q", rule="stuck", quality=True)
    assert told.take("b", device="s2") == ["ops firing b-1@ops"]
    assert told.take("c", rule="smoke", inhibitable=False) == ["ops firing c-1@ops"]
    assert told.take("d", rule="drift", quality=True) == ["ops firing d-1@ops"]
    assert told.take("e") == ["ops firing inhibited"]


def test_an_end_is_told_in_silence_to_who_knows_of_the_beginning() -> None:
    told = Told("default: {to: [ops], repeat: 5m}")
    told.take()
    told.silences = [silence(site="roof")]
    assert told.take("a", 2, "escalated", severity="critical") == ["ops escalated silenced"]
    assert told.tick(5 * MINUTE) == ["ops reminder silenced"]
    assert told.take("a", 3, "resolved", severity="critical") == ["ops resolved a-3@ops"]


def test_what_is_no_news_when_a_silence_ends_is_not_told() -> None:
    told = Told()
    told.take()
    told.silences = [silence(MINUTE, site="roof")]
    told.take("a", 2, "escalated", severity="critical")
    told.take("a", 3, "deescalated", severity="warning")
    assert told.tick(2 * MINUTE) == []
    told.silences = [silence(site="roof")]
    told.take("a", 4, "escalated", severity="critical")
    assert told.tick(HOUR) == ["ops escalated a-4@ops"]


def test_an_end_waits_for_a_receiver_that_is_switched_off() -> None:
    """Among its dead letters, from where it is sent when somebody switches it on."""
    told = Told()
    told.take()
    told.off = frozenset({"ops"})
    assert told.take("a", 2, "escalated", severity="critical") == ["ops escalated switched_off"]
    assert told.take("a", 3, "resolved") == ["ops resolved a-3@ops"]


def test_a_late_transition_leaves_what_is_held_back() -> None:
    told, _ = silenced()
    late = told.now - 2 * HOUR
    assert told.take("a", 2, "escalated", severity="critical", event_time=late) == ["ops escalated stale"]
    assert told.tick(2 * HOUR) == ["ops firing a-2@ops"]


def test_an_old_alert_that_worsens_now_is_told() -> None:
    told = Told()
    told.take(event_time=START - 2 * HOUR)
    assert told.take("a", 2, "escalated", severity="critical") == ["ops escalated a-2@ops"]
    assert told.take("a", 3, "resolved", severity="critical") == ["ops resolved a-3@ops"]


def test_what_was_before_the_first_dispatcher_is_news_for_nobody_though_its_row_is_older_than_that_word() -> None:
    told = Told("routes: [{match: {site: yard}, to: ops}]", began_at=START)
    told.take(at=START - 2 * HOUR)
    told.take("b", at=START - MINUTE, device="s2")
    told.board = Board([msgspec.structs.replace(so_far, stale=False) for so_far in told.board.alerts.values()])
    told.policy = policy_of("default: ops")
    assert told.tick() == ["ops firing b-1@ops"]


def test_what_was_before_the_first_dispatcher_is_for_nobody() -> None:
    told = Told(began_at=START)
    assert told.take(at=START - 2 * HOUR) == ["ops firing stale"]
    assert told.take("b", at=START - MINUTE, device="s2") == ["ops firing b-1@ops"]


@pytest.mark.parametrize(
    ("policy", "line"),
    [
        ("default: {to: [ops], send_resolved: false}", "ops resolved no_resolved"),
        ("default: {to: [ops], send_resolved: true}", "ops resolved a-2@ops"),
    ],
    ids=["not wanted", "wanted"],
)
def test_resolved_is_told_to_who_wants_it(policy: str, line: str) -> None:
    told = Told(policy)
    told.take()
    assert told.take("a", 2, "resolved") == [line]


def test_acknowledged_until_severity_rises() -> None:
    told = Told("default: {to: [ops], repeat: 10m, escalate: {after: 15m, to: boss}}")
    told.take()
    assert told.acknowledge() == ["ops acknowledged a-acknowledged-1@ops"]
    assert told.changes[-1].messages[0].summary == "acknowledged by ann: High Temperature at roof: s1 t 36.5"
    assert told.tick(10 * MINUTE) == ["ops reminder acknowledged"]
    assert told.tick(9 * MINUTE) == []
    assert told.take("a", 2, "escalated", severity="critical") == ["ops escalated a-2@ops"]
    assert told.changes[-1].messages[0].alerts[0].acknowledged_by is None
    assert told.tick(15 * MINUTE) == ["ops reminder a-2-reminder-2@ops", "boss firing a-2@boss"]
    assert told.acknowledge("b") == ["it is not active"]


def test_who_was_told_hears_who_took_it_on_and_why() -> None:
    told = Told("default: {to: [ops], escalate: {after: 5m, to: boss}}")
    told.take()
    told.tick(5 * MINUTE)
    assert len(told.acknowledge(comment=" on my\nway ")) == 2
    for message in told.changes[-1].messages:
        assert message.summary == "acknowledged by ann (on my way): High Temperature at roof: s1 t 36.5"
        assert message.alerts[0].acknowledged_comment == "on my way"
    assert told.acknowledge(comment="x" * 501) == ["the comment has 501 characters, and 500 at most are passed on"]
    assert told.acknowledge(by="x" * 101) == ["who acknowledges it has 101 characters; 1 to 100 are passed on"]
    assert told.acknowledge(by=" \n") == ["who acknowledges it has 0 characters; 1 to 100 are passed on"]
    told.acknowledge(by="ann\nof the roof", comment="on my way")
    assert told.changes[-1].messages[0].alerts[0].acknowledged_by == "ann of the roof"
    told.take("a", 2, "deescalated", severity="info")
    told.take("a", 3, "resolved", severity="info")
    assert told.changes[-1].messages[0].alerts[0].acknowledged_comment == "on my way"
    told.take("b")
    told.acknowledge("b", comment="again")
    told.take("b", 2, "escalated", severity="critical")
    assert told.changes[-1].messages[0].alerts[0].acknowledged_comment == "", "nobody has taken on what it is now"


def test_repeats_count_from_the_last_telling() -> None:
    told = Told("default: {to: [ops], repeat: 10m}")
    told.take()
    assert told.tick(9 * MINUTE) == []
    assert told.tick(MINUTE) == ["ops reminder a-1-reminder-1@ops"]
    assert told.tick(5 * MINUTE) == []
    told.take("a", 2, "escalated", severity="critical")
    assert told.tick(5 * MINUTE) == []
    assert told.tick(5 * MINUTE) == ["ops reminder a-2-reminder-2@ops"]
    told.take("a", 3, "resolved")
    assert told.tick(HOUR) == []


RELOADS = [
    ("a repeat is added", "default: ops", "default: {to: ops, repeat: 10m}", 15, "ops reminder a-1-reminder-1@ops"),
    ("one is taken out", "default: {to: ops, repeat: 10m}", "default: ops", 60, ""),
    ("a longer one", "default: {to: ops, repeat: 10m}", "default: {to: ops, repeat: 20m}", 14, ""),
    ("counted from the telling", "default: {to: ops, repeat: 10m}", "default: {to: ops, repeat: 20m}", 15,
     "ops reminder a-1-reminder-1@ops"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "minutes", "line"), [r[1:] for r in RELOADS], ids=[r[0] for r in RELOADS])
def test_repeats_of_a_changed_file_reach_alerts_under_way(old: str, new: str, minutes: int, line: str) -> None:
    told = Told(old)
    told.take()
    told.tick(5 * MINUTE)
    told.policy = policy_of(new)
    assert told.tick() == []
    assert told.tick(minutes * MINUTE) == ([line] if line else [])


BOTH = "default: [ops, boss]"
NEWCOMERS = [
    ("a state", "default: ops", "default: [ops, panel]", ["panel firing a-1@panel"]),
    ("a message", "default: ops", BOTH, ["boss firing a-1@boss"]),
    ("instead of the one before", "default: ops", "default: boss", ["boss firing a-1@boss"]),
    ("who knows already", BOTH, "default: ops", []),
    ("nobody was to hear of it", "routes: [{match: {site: yard}, to: ops}]", "default: boss", ["boss firing a-1@boss"]),
]


def test_who_shows_a_state_is_told_of_what_somebody_has_taken_on() -> None:
    told = Told("default: ops")
    told.take()
    told.acknowledge()
    told.policy = policy_of("default: {to: [boss, ops, panel], repeat: 10m}")
    told.silences = [silence(MINUTE, site="roof")]
    assert told.tick() == ["boss firing silenced", "panel firing silenced"]
    assert told.tick(2 * MINUTE) == ["panel firing a-1@panel", "boss firing acknowledged"]
    assert told.changes[-1].messages[0].alerts[0].acknowledged_by == "ann"
    assert "panel reminder acknowledged" in told.tick(10 * MINUTE)


@pytest.mark.parametrize("restart", [False, True], ids=["", "over a restart"])
@pytest.mark.parametrize(("old", "new", "lines"), [n[1:] for n in NEWCOMERS], ids=[n[0] for n in NEWCOMERS])
def test_who_is_new_to_the_file_is_told_of_what_is_active(old: str, new: str, lines: list[str], restart: bool) -> None:
    """Once; not of what was over, or too old for anybody."""
    told = Told(old)
    told.take()
    told.take("over", device="s3")
    told.take("over", 2, "resolved", device="s3")
    told.tick()
    told.take("late", device="s2", event_time=START - 2 * HOUR)
    told.policy = policy_of(new)
    if restart:
        told.board = restarted(told.board)
    assert told.tick() == lines
    for text in (old, new):
        told.policy = policy_of(text)
        assert told.tick(HOUR) == []


def test_several_that_are_active_are_one_message_to_who_is_new() -> None:
    told = Told("default: ops")
    for n in range(30):
        told.take(f"a{n:02}", device=f"s{n}", severity="critical" if n == 3 else "warning")
        told.now += MINUTE
    told.take("b", rule="no_light", site="yard")
    told.acknowledge("a00")
    told.tick()
    told.policy = policy_of("default: {to: [ops, boss], repeat: 2h}")
    assert told.tick() == ["boss digest active-a03-1@boss", "boss firing acknowledged"]
    (digest,) = told.changes[-1].messages
    assert digest.summary == "30 active, 1 critical, 29 warning: 29 hot at site roof, 1 no light at site yard"
    assert [a.alert_id for a in digest.alerts] == ["a03", "b", *(f"a{n:02}" for n in range(29, 0, -1) if n != 3)]
    assert told.take("a05", 2, "resolved", device="s5") == ["ops resolved a05-2@ops", "boss resolved a05-2@boss"]
    assert "boss reminder b-1-reminder-1@boss" in told.tick(2 * HOUR)


def test_very_many_that_are_active_are_a_message_a_thousand() -> None:
    """What is in the first matters most; each is kept, and sent again, by itself."""
    told = Told("default: ops")
    for n in range(MOST_ALERTS + 30):
        told.take(f"a{n}", device=f"s{n}", severity="critical" if n == 7 else "info")
    told.tick(MINUTE)
    told.policy = policy_of(BOTH)
    assert told.tick() == ["boss digest active-a7-1@boss", "boss digest active-a1000-1@boss"]
    messages = told.changes[-1].messages
    assert [len(m.alerts) for m in messages] == [MOST_ALERTS, 30]
    assert messages[0].summary == "1000 active, 1 critical, 999 info: 1000 hot at site roof"
    assert told.tick(HOUR) == []


LATER = "default: {to: ops, escalate: {after: 5m, to: boss}}"
ONE_MESSAGE = [
    ("new by a step of escalation alone", LATER, False),
    ("new by a route and a step", "default: {to: [ops, boss], escalate: {after: 5m, to: boss}}", False),
    ("rules that flap", BOTH, True),
]


@pytest.mark.parametrize(("new", "flapping"), [o[1:] for o in ONE_MESSAGE], ids=[o[0] for o in ONE_MESSAGE])
def test_who_is_new_has_one_message_by_whatever_the_file_says(new: str, flapping: bool) -> None:
    told = Told("default: ops")
    for n in range(30):
        told.take(f"a{n:02}", rule=f"rule{n}")
        if flapping:
            told.take(f"a{n:02}", 2, "flapping", rule=f"rule{n}", flapping=True)
    told.tick(6 * MINUTE)
    told.policy = policy_of(new)
    assert told.tick() == [f"boss digest active-a00-{2 if flapping else 1}@boss"]
    assert len(told.changes[-1].messages[0].alerts) == 30
    assert told.tick(HOUR) == []
    number = 3 if flapping else 2
    ended = told.take("a07", number, "resolved", rule="rule7", flapping=flapping)
    assert ended == [f"ops resolved a07-{number}@ops", f"boss resolved a07-{number}@boss"]


def test_who_is_new_and_hears_of_one_that_is_overdue_is_told_of_it_once() -> None:
    told = Told("default: ops")
    told.take()
    told.tick(6 * MINUTE)
    told.policy = policy_of("default: {to: [ops, boss], escalate: {after: 5m, to: [ops, boss]}}")
    assert told.tick() == ["ops reminder a-1-escalation-1@ops", "boss firing a-1@boss"]


def test_who_is_new_hears_after_a_silence_of_what_it_held_back() -> None:
    told = Told("default: ops")
    told.take()
    told.take("b", device="s2")
    told.silences = [silence(MINUTE, device="s1")]
    told.policy = policy_of(BOTH)
    assert told.tick() == ["boss firing b-1@boss", "boss firing silenced"]
    assert told.tick(2 * MINUTE) == ["boss firing a-1@boss"]


def test_escalation_goes_step_by_step_until_somebody_acknowledges() -> None:
    told = Told("default: {to: [ops], escalate: [{after: 10m, to: boss}, {after: 20m, to: [ops, boss]}]}")
    told.take()
    assert told.tick(9 * MINUTE) == []
    assert told.tick(MINUTE) == ["boss firing a-1@boss"]
    assert told.tick(MINUTE) == []
    assert told.tick(9 * MINUTE) == ["ops reminder a-1-escalation-2@ops", "boss reminder a-1-escalation-2@boss"]
    assert told.tick(HOUR) == []
    assert told.take("a", 2, "resolved") == ["ops resolved a-2@ops", "boss resolved a-2@boss"]


RISEN = "routes: [{match: {severity: critical}, to: ops, escalate: {after: 5m, to: boss}}]\ndefault: ops"
ONE_ROUTE = "default: {to: ops, escalate: {after: 5m, to: boss}}"


@pytest.mark.parametrize(
    ("policy", "to", "severity", "line"),
    [
        (RISEN, "escalated", "critical", "boss firing a-2@boss"),
        (ONE_ROUTE, "deescalated", "info", "boss firing a-2@boss"),
    ],
    ids=["a route with a step from a severity on", "a transition between the moment and the look"],
)  # fmt: skip
def test_a_transition_uses_up_no_step(policy: str, to: str, severity: str, line: str) -> None:
    told = Told(policy)
    told.take()
    told.now += 20 * MINUTE
    assert told.take("a", 2, to, severity=severity) == [f"ops {to} a-2@ops"]
    assert told.tick(5 * MINUTE) == [line]
    assert told.tick(HOUR) == []


OWN_STEP = """
routes:
  - {match: {severity: critical}, to: ops, escalate: {after: 15m, to: boss}}
  - {match: {severity: warning}, to: ops, escalate: {after: 10m, to: ops}}
"""


def test_what_gets_worse_is_escalated_anew() -> None:
    told = Told(OWN_STEP)
    told.take()
    assert told.tick(10 * MINUTE) == ["ops reminder a-1-escalation-1@ops"]
    told.now += 10 * MINUTE
    assert told.take("a", 2, "escalated", severity="critical") == ["ops escalated a-2@ops"]
    assert told.tick(14 * MINUTE) == []
    assert told.tick(MINUTE) == ["boss firing a-2@boss"]
    assert told.tick(HOUR) == []


def test_what_gets_worse_is_escalated_anew_though_the_first_receiver_is_switched_off() -> None:
    told = Told(OWN_STEP)
    told.off = frozenset({"ops"})
    told.take()
    told.now += 20 * MINUTE
    assert told.take("a", 2, "escalated", severity="critical") == ["ops escalated switched_off"]
    assert told.tick(14 * MINUTE) == []
    assert told.tick(MINUTE) == ["boss firing a-2@boss"]


def test_what_got_worse_too_late_is_escalated_from_the_first_telling() -> None:
    told = Told(ONE_ROUTE)
    told.take()
    late = told.now - 2 * HOUR
    assert told.take("a", 2, "escalated", severity="critical", event_time=late) == ["ops escalated stale"]
    assert told.tick(5 * MINUTE) == ["boss firing a-2@boss"]


def test_steps_taken_stay_taken_when_the_file_changes() -> None:
    told = Told("default: {to: ops, escalate: [{after: 10m, to: boss}]}")
    told.take()
    told.tick(10 * MINUTE)
    told.policy = policy_of("default: {to: ops, escalate: [{after: 5m, to: ops}, {after: 10m, to: boss}]}")
    assert told.tick() == ["ops reminder a-1-escalation-2@ops"]
    assert told.tick(HOUR) == []


def test_escalation_of_what_nobody_was_told_waits() -> None:
    told = Told("default: {to: [ops], escalate: {after: 10m, to: boss}}")
    told.silences = [silence(HOUR, site="roof")]
    told.take()
    assert told.tick(30 * MINUTE) == []
    assert told.tick(30 * MINUTE) == ["ops firing a-1@ops"]
    assert told.tick(10 * MINUTE) == ["boss firing a-1@boss"]


@pytest.mark.parametrize("restart", [False, True], ids=["", "over a restart"])
def test_escalation_counts_though_the_first_receiver_is_switched_off(restart: bool) -> None:
    told = Told("default: {to: [ops], escalate: {after: 10m, to: boss}}")
    told.off = frozenset({"ops"})
    assert told.take() == ["ops firing switched_off"]
    if restart:
        told.board = restarted(told.board)
    assert told.tick(9 * MINUTE) == []
    assert told.tick(MINUTE) == ["boss firing a-1@boss"]
    told.off = frozenset()
    assert told.tick() == ["ops firing a-1@ops"]
    assert told.tick(HOUR) == []


def test_escalation_counts_though_the_first_receiver_was_switched_off_in_a_silence() -> None:
    told = Told("default: {to: [ops], escalate: {after: 10m, to: boss}}")
    told.silences = [silence(HOUR, site="roof")]
    told.off = frozenset({"ops"})
    told.take()
    assert told.tick(30 * MINUTE) == []
    assert told.tick(30 * MINUTE) == ["ops firing switched_off"]
    assert told.tick(9 * MINUTE) == []
    assert told.tick(MINUTE) == ["boss firing a-1@boss"]


def test_one_of_two_receivers_that_is_switched_off_lets_nothing_be_escalated_in_a_silence() -> None:
    told = Told("default: {to: [ops, boss], escalate: {after: 10m, to: panel}}")
    told.silences = [silence(HOUR, site="roof")]
    told.off = frozenset({"ops"})
    told.take()
    assert told.tick(30 * MINUTE) == []
    assert sorted(told.tick(30 * MINUTE)) == ["boss firing a-1@boss", "ops firing switched_off"]
    assert told.tick(9 * MINUTE) == []
    assert told.tick(MINUTE) == ["panel firing a-1@panel"]


def test_what_rises_above_what_was_taken_on_is_escalated_though_the_first_receiver_is_switched_off() -> None:
    told = Told("default: {to: [ops], escalate: {after: 10m, to: boss}}")
    told.take()
    told.acknowledge()
    told.off = frozenset({"ops"})
    told.now += HOUR
    assert told.take("a", 2, "escalated", severity="critical") == ["ops escalated switched_off"]
    assert told.tick(9 * MINUTE) == []
    assert told.tick(MINUTE) == ["boss firing a-2@boss"]


def test_flapping_is_one_notice_then_quiet_then_settled() -> None:
    told = Told()
    told.take("a1")
    assert told.take("a1", 2, "flapping", flapping=True) == ["ops flapping a1-2@ops"]
    assert told.take("a1", 3, "resolved", flapping=True) == ["ops resolved a1-3@ops"], "it closes what was opened"
    assert told.take("a2", flapping=True) == ["ops firing flapping"]
    assert told.take("a2", 2, "resolved", flapping=True) == ["ops resolved never_told"]
    assert told.take("a3", flapping=True) == ["ops firing flapping"]
    assert set(told.board.alerts) == {"a3"}
    assert told.take("a3", 2, "settled") == ["ops settled a3-2@ops"]
    assert told.take("a3", 3, "resolved") == ["ops resolved a3-3@ops"]


def test_what_begins_to_flap_in_silence_is_told_when_that_ends() -> None:
    told = Told()
    told.take()
    told.silences = [silence(MINUTE, site="roof")]
    assert told.take("a", 2, "flapping", flapping=True) == ["ops flapping silenced"]
    assert told.tick(2 * MINUTE) == ["ops flapping a-2@ops"]
    assert told.tick(MINUTE) == []
    told.silences = [silence(site="roof")]
    assert told.take("a", 3, "settled") == ["ops settled silenced"]
    assert told.tick(HOUR) == ["ops settled a-3@ops"]
    assert told.tick(HOUR) == []


def test_what_flaps_since_a_silence_is_told_with_its_next_alert() -> None:
    told = Told()
    told.silences = [silence(MINUTE, site="roof")]
    told.take("a1")
    assert told.take("a1", 2, "flapping", flapping=True) == ["ops flapping silenced"]
    told.take("a1", 3, "resolved", flapping=True)
    assert told.take("a2", flapping=True) == ["ops firing silenced"]
    assert told.tick(2 * MINUTE) == ["ops flapping a2-1@ops"]
    told.take("a2", 2, "resolved", flapping=True)
    assert told.take("a3", flapping=True) == ["ops firing flapping"]
    assert told.tick(HOUR) == []


def test_settled_while_nothing_fires() -> None:
    told = Told()
    told.take("a1")
    told.take("a1", 2, "resolved")
    assert told.take("a1", 3, "flapping", flapping=True) == ["ops flapping a1-3@ops"]
    assert told.take("a1", 4, "settled") == ["ops settled a1-4@ops"]
    assert told.board.alerts == {}


HELD_BY = [
    ("silenced", "", lambda told: setattr(told, "silences", [silence(site="roof")])),
    ("maintenance", "maintenance: [{cron: '5 12 * * *', duration: 1h}]", lambda told: None),
    ("inhibited", "", lambda told: told.take("q", rule="stuck", quality=True)),
    ("switched_off", "", lambda told: setattr(told, "off", frozenset({"ops"}))),
]


@pytest.mark.parametrize(("policy", "begin"), [h[1:] for h in HELD_BY], ids=[h[0] for h in HELD_BY])
def test_the_end_of_flapping_is_told_while_nothing_fires(policy: str, begin: Callable[[Told], object]) -> None:
    """As any end, whatever holds back what begins."""
    told = Told(f"default: ops\n{policy}")
    told.take("a1")
    told.take("a1", 2, "flapping", flapping=True)
    told.take("a1", 3, "resolved", flapping=True)
    told.tick(6 * MINUTE)
    begin(told)
    assert told.take("a1", 4, "settled", event_time=START - HOUR) == ["ops settled a1-4@ops"]
    assert "a1" not in told.board.alerts
    told.off, told.silences = frozenset(), []
    assert told.tick(2 * HOUR) == []


def test_the_end_of_flapping_is_told_of_what_somebody_had_taken_on() -> None:
    told = Told()
    told.take("a1")
    told.take("a1", 2, "flapping", flapping=True)
    told.acknowledge("a1")
    told.take("a1", 3, "resolved", flapping=True)
    assert told.take("a1", 4, "settled") == ["ops settled a1-4@ops"]


@pytest.mark.parametrize(("cause", "policy", "begin"), HELD_BY, ids=[h[0] for h in HELD_BY])
def test_the_end_of_flapping_that_was_held_back_is_told_with_the_alerts(
    cause: str, policy: str, begin: Callable[[Told], object]
) -> None:
    """Of an alert that is quiet because its rule flaps only that was told."""
    told = Told(f"default: ops\n{policy}")
    told.take("a1")
    told.take("a1", 2, "flapping", flapping=True)
    told.take("a1", 3, "resolved", flapping=True)
    told.take("a2", flapping=True)
    told.tick(6 * MINUTE)
    begin(told)
    assert told.take("a2", 2, "settled") == [f"ops settled {cause}"]
    assert told.take("a2", 3, "resolved") == ["ops settled a2-3@ops"]
    told.off, told.silences = frozenset(), []
    assert told.tick(2 * HOUR) == []


def test_the_end_of_flapping_reaches_who_wants_no_ends_of_alerts() -> None:
    told = Told("default: {to: [ops], send_resolved: false}")
    told.take()
    told.take("a", 2, "flapping", flapping=True)
    told.silences = [silence(site="roof")]
    assert told.take("a", 3, "settled") == ["ops settled silenced"]
    assert told.take("a", 4, "resolved") == ["ops settled a-4@ops"]


def test_a_storm_is_one_digest() -> None:
    told = Told("default: ops\nstorm: {more_than: 3, within: 1m}")
    lines = [told.take(f"a{n:03}", device=f"s{n}")[0] for n in range(312)]
    assert lines[:4] == ["ops firing a000-1@ops", "ops firing a001-1@ops", "ops firing a002-1@ops", "ops firing storm"]
    assert set(lines[3:]) == {"ops firing storm"}
    assert told.take("other", rule="cold") == ["ops firing other-1@ops"]
    assert told.take("a005", 2, "resolved", device="s5") == ["ops resolved storm"]
    assert told.tick(59 * timedelta(seconds=1)) == []
    assert told.tick(timedelta(seconds=1)) == ["ops digest digest-a003-1@ops"]
    (digest,) = told.changes[-1].messages
    assert digest.summary == "311 of 400 hot at site roof"
    assert len(digest.alerts) == 312
    assert [a.alert_id for a in digest.alerts if not a.active] == ["a005"]
    assert "a005" not in told.board.alerts
    assert told.take("a001", 2, "resolved", device="s1") == ["ops resolved a001-2@ops"]
    assert told.tick(HOUR) == []
    assert told.board.groups == {}
    assert told.take("b", device="s5") == ["ops firing b-1@ops"]


def test_a_storm_of_ends_is_one_digest_too() -> None:
    told = Told("default: ops\nstorm: {more_than: 2, within: 1m}")
    for n in range(5):
        told.take(f"a{n}", device=f"s{n}")
    told.tick(MINUTE)
    for n in range(4):
        told.take(f"a{n}", 2, "resolved", device=f"s{n}")
    assert told.tick(MINUTE) == ["ops digest digest-a2-2@ops"]
    assert told.changes[-1].messages[0].summary == "resolved: 2 hot at site roof, 1 of 400 still"


STORM = "default: ops\nstorm: {more_than: 2, within: 1m}"


def listed(told: Told) -> list[str]:
    return [f"{m.kind} {', '.join(a.alert_id for a in m.alerts)}" for m in told.changes[-1].messages]


@pytest.mark.parametrize("restart", [False, True], ids=["", "after a restart"])
@pytest.mark.parametrize("flapping", [False, True], ids=["", "flapping"])
def test_an_end_in_a_storm_is_told_though_the_rule_fires_again(flapping: bool, restart: bool) -> None:
    told = Told(STORM)
    for n in range(4):
        told.take(f"a{n}", device=f"s{n}")
    told.tick(MINUTE)
    for n in range(4):
        told.take(f"a{n}", 2, "resolved", device=f"s{n}", flapping=flapping)
    told.take("b3", device="s3", flapping=flapping)
    if restart:
        told.board = Board(reversed(told.board.alerts.values()), told.board.groups)
    told.tick(MINUTE)
    digest = next(m for m in told.changes[-1].messages if m.kind == "digest")
    assert {a.alert_id for a in digest.alerts} - {"a0", "a1"} == {"a2", "a3"}
    assert "a3" not in told.board.alerts
    assert told.board.alerts["b3"].alert.active


def test_all_alerts_of_one_device_in_a_storm_are_listed() -> None:
    told = Told(STORM)
    for n in range(3):
        told.take(f"a{n}", device=f"s{n}")
    for alert in ("a3", "b3", "c3"):
        told.take(alert, device="s3")
        if alert != "c3":
            told.take(alert, 2, "resolved", device="s3")
    told.tick(MINUTE)
    assert listed(told) == ["digest a0, a1, a2, a3, b3, c3"]
    assert set(told.board.alerts) == {"a0", "a1", "a2", "c3"}


@pytest.mark.parametrize("restart", [False, True], ids=["", "after a restart"])
@pytest.mark.parametrize("receiver", ["ops", "panel"], ids=["a webhook", "a state"])
def test_who_moves_while_a_digest_is_to_come_is_told_in_it_once(receiver: str, restart: bool) -> None:
    told = Told(f"default: {receiver}\nstorm: {{more_than: 2, within: 1m}}")
    for n in range(4):
        told.take(f"a{n}", device=f"s{n}")
    assert told.take("a2", 2, "escalated", severity="critical", site="yard", device="s2") == [
        f"{receiver} escalated storm"
    ]
    if restart:
        told.board = restarted(told.board)
    told.tick(MINUTE)
    assert listed(told) == ["digest a2, a0, a1, a3"]
    (digest,) = told.changes[-1].messages
    assert [a.site for a in digest.alerts] == ["yard", "roof", "roof", "roof"]
    assert digest.summary == "4 of 400 hot at site roof"
    assert told.tick(HOUR) == []
    assert told.take("a2", 3, "resolved", site="yard", device="s2") == [f"{receiver} resolved a2-3@{receiver}"]
    assert "a2" not in told.board.alerts


def of_old(board: Board) -> Board:
    """As rows were before they had the site of the digest that they wait for."""
    rows = [
        msgspec.structs.replace(
            so_far,
            standings={n: msgspec.structs.replace(s, digest_site="") for n, s in so_far.standings.items()},
        )
        for so_far in board.alerts.values()
    ]
    return Board(rows, board.groups)


@pytest.mark.parametrize("to", ["escalated", "resolved"])
def test_what_was_left_out_of_its_digest_as_it_moved_is_told_after_a_restart(to: str) -> None:
    told = Told(STORM)
    for n in range(4):
        told.take(f"a{n}", device=f"s{n}")
    told.take("a3", 2, to, severity="critical", site="yard", device="s3")
    told.board.groups = {key: flushed(group) for key, group in told.board.groups.items()}
    told.board = of_old(told.board)
    assert told.tick() == ["ops digest digest-a2-1@ops", "ops digest digest-a3-2@ops"]
    assert [a.alert_id for a in told.changes[-1].messages[1].alerts] == ["a3"]
    assert all(standing.digest is None for a in told.board.alerts.values() for standing in a.standings.values())
    assert ("a3" in told.board.alerts) == (to == "escalated")
    assert told.tick(HOUR) == []


def test_what_waits_for_a_digest_since_of_old_may_move_yet() -> None:
    told = Told(STORM)
    for n in range(4):
        told.take(f"a{n}", device=f"s{n}")
    told.board = of_old(told.board)
    told.take("a3", 2, "escalated", severity="critical", site="yard", device="s3")
    told.tick(MINUTE)
    assert listed(told) == ["digest a3, a0, a1, a2"]


def test_who_moves_into_a_storm_of_its_new_site_is_in_the_first_digest_only() -> None:
    told = Told(STORM)
    for n in range(4):
        told.take(f"a{n}", device=f"s{n}")
        told.take(f"b{n}", device=f"t{n}", site="yard")
    told.take("a3", 2, "escalated", severity="critical", site="yard", device="s3")
    told.tick(MINUTE)
    assert listed(told) == ["digest a3, a0, a1, a2", "digest b0, b1, b2, b3"]
    assert told.tick(HOUR) == []


STATES = [
    ("a webhook has each", "ops", ["digest a2, a3"]),
    ("a state has the newest", "panel", ["digest a2"]),
]


@pytest.mark.parametrize(("receiver", "lines"), [s[1:] for s in STATES], ids=[s[0] for s in STATES])
def test_an_end_does_not_overwrite_the_state_of_a_newer_alert(receiver: str, lines: list[str]) -> None:
    told = Told(f"default: {receiver}\nstorm: {{more_than: 2, within: 1m}}")
    for n in range(4):
        told.take(f"a{n}", device=f"s{n}")
    told.tick(2 * MINUTE)
    for n in range(4):
        told.take(f"a{n}", 2, "resolved", device=f"s{n}")
    assert told.take("b3", device="s3") == [f"{receiver} firing b3-1@{receiver}"]
    told.tick(MINUTE)
    assert listed(told) == lines


@pytest.mark.parametrize("held", [False, True], ids=["in the same digest", "held back"])
def test_of_a_state_an_end_is_left_out_only_for_what_is_told(held: bool) -> None:
    told = Told("default: panel\nstorm: {more_than: 1, within: 1m}")
    told.take("a1")
    told.take("a2", device="s2")
    told.take("a2", 2, "resolved", device="s2")
    told.silences = [silence(device="s2")] if held else []
    told.take("b2", device="s2")
    told.tick(MINUTE)
    assert listed(told) == ["digest a1, a2" if held else "digest a1, b2"]


def test_a_tick_looks_only_at_alerts_whose_time_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told("default: {to: ops, repeat: 10m, escalate: {after: 5m, to: boss}}")
    for n in range(3):
        told.take(f"a{n}", device=f"s{n}")
        told.now += MINUTE
    looked: list[str] = []
    monkeypatch.setattr("fleet.board.due", lambda so_far, given: looked.append(so_far.alert.alert_id) or [])
    told.tick()
    assert looked == []
    told.tick(2 * MINUTE)
    assert looked == ["a0"]


def test_silences_are_gone_through_once_an_alert_whatever_the_number_of_receivers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Told("routes: [{match: {site: yard}, to: ops}]")
    told.silences = [silence(site="cellar")]
    for n in range(3):
        told.take(f"a{n}", device=f"s{n}")
    looked: list[str] = []
    covers = Silence.covers
    monkeypatch.setattr(
        Silence, "covers", lambda s, labels, now: looked.append(labels["device"]) or covers(s, labels, now)
    )
    told.policy = policy_of("")
    assert len(told.tick()) == 3, "a message each to ops, boss and panel"
    assert looked == ["s0", "s1", "s2"]


def test_a_digest_for_a_receiver_that_left_the_file_is_noted() -> None:
    told = Told("default: ops\nstorm: {more_than: 1, within: 1m}")
    told.take("a0")
    told.take("a1", device="s1")
    told.take("a2", device="s2")
    told.policy = policy_of("default: boss", without="ops")
    assert told.tick(MINUTE) == ["boss digest active-a0-1@boss", "ops firing no_receiver", "ops firing no_receiver"]
    assert [held.alert.alert_id for held in told.changes[-1].held] == ["a1", "a2"]


def test_after_a_restart_the_board_goes_on() -> None:
    told = Told("default: {to: [ops], repeat: 10m}")
    told.take()
    told.take("q", rule="stuck", quality=True)
    told.take("h", rule="cold")
    told.board = restarted(told.board)
    assert sorted(told.tick(10 * MINUTE)) == ["ops reminder inhibited", "ops reminder q-1-reminder-1@ops"]
    assert told.take("q", 2, "resolved", rule="stuck", quality=True) == ["ops resolved q-2@ops"]
    assert told.tick() == ["ops firing h-1@ops"]


def test_a_receiver_that_left_the_file_is_told_nothing() -> None:
    told = Told("default: {to: [ops, boss], repeat: 10m}")
    told.take()
    told.policy = policy_of("default: {to: boss, repeat: 10m}", without="ops")
    assert told.tick(10 * MINUTE) == ["boss reminder a-1-reminder-1@boss"]
    assert told.take("a", 2, "resolved") == ["boss resolved a-2@boss", "ops resolved no_receiver"]


def leave_and_return(told: Told, escalates: bool = False, silenced: bool = False) -> list[str]:
    policy = told.policy
    told.policy = policy_of("default: boss", without="ops")
    told.tick(MINUTE)
    if escalates:
        assert told.take("a", 2, "escalated", severity="critical") == ["boss escalated a-2@boss"]
    told.policy = policy
    told.silences = [silence(2 * MINUTE, site="roof")] if silenced else []
    return told.tick()


RETURNS = [
    ("as it was", {}, ["ops firing a-1-return-1@ops"]),
    ("worse since", {"escalates": True}, ["ops firing a-2-return-1@ops"]),
    ("silenced by now", {"silenced": True}, ["ops firing silenced"]),
]


@pytest.mark.parametrize("restart", [False, True], ids=["", "over a restart"])
@pytest.mark.parametrize(("how", "lines"), [r[1:] for r in RETURNS], ids=[r[0] for r in RETURNS])
def test_who_leaves_the_file_and_returns_is_told_of_what_is_active(how: Any, lines: list[str], restart: bool) -> None:
    """By an id of its own: what waited when it left is a dead letter, and nothing is put beside it by the same id."""
    told = Told(BOTH)
    told.take()
    assert leave_and_return(told, **how) == lines
    if restart:
        told.board = restarted(told.board)
    assert told.tick(10 * MINUTE) == (["ops firing a-1-return-1@ops"] if lines == ["ops firing silenced"] else [])
    assert leave_and_return(told) == [f"ops firing a-{2 if 'escalates' in how else 1}-return-2@ops"]
    assert told.take("a", 3, "resolved") == ["ops resolved a-3@ops", "boss resolved a-3@boss"]


def test_who_returns_while_it_is_silent_hears_of_the_end() -> None:
    """It may have the alert open from before."""
    told = Told(BOTH)
    told.take()
    leave_and_return(told, silenced=True)
    assert "ops resolved a-2@ops" in told.take("a", 2, "resolved")


def test_who_returns_while_a_rule_flaps_is_told_that_it_does() -> None:
    told = Told(BOTH)
    told.take()
    told.take("a", 2, "flapping", flapping=True)
    assert leave_and_return(told) == ["ops flapping a-2-return-1@ops"]
    assert told.take("a", 3, "settled") == ["ops settled a-3@ops", "boss settled a-3@boss"]


def test_who_returns_is_told_of_no_more_than_was_for_it() -> None:
    told = Told(BOTH)
    told.take(event_time=START - 2 * HOUR)
    assert leave_and_return(told) == []
    told.take("b", rule="no_light")
    told.take("b", 2, "resolved", rule="no_light")
    assert leave_and_return(told) == []


def test_to_whom_it_was_escalated_and_who_returns_is_told_again() -> None:
    told = Told("default: {to: boss, escalate: {after: 5m, to: ops}}")
    told.take()
    told.tick(5 * MINUTE)
    assert leave_and_return(told) == ["ops firing a-1-return-1@ops"]


@pytest.mark.parametrize("in_time", [False, True], ids=["after the digest", "before it"])
def test_who_returns_is_told_of_what_a_digest_was_to_tell(in_time: bool) -> None:
    told = Told("default: ops\nstorm: {more_than: 1, within: 4m}")
    told.take("a0")
    told.take("a1", device="s1")
    told.take("a2", device="s2")
    policy, told.policy = told.policy, policy_of("default: boss", without="ops")
    told.tick(MINUTE if in_time else 5 * MINUTE)
    told.policy = policy
    told.tick()
    told.tick(4 * MINUTE)
    messages = [m for changes in told.changes for m in changes.messages if m.receiver == "ops"]
    assert {alert.alert_id for m in messages[1:] for alert in m.alerts} == {"a0", "a1", "a2"}
    assert all(s.told == "warning" for a in told.board.alerts.values() for name, s in a.standings.items())


def test_every_cause_has_a_word_on_it() -> None:
    assert set(CAUSES) == set(get_args(Cause))
