"""An alert with `inhibitable: false` is told whatever holds others back; an explicit silence alone keeps it."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.unit.alert_log import START, Told
from tests.unit.test_dispatch import HOUR, MINUTE, silence

MAINTENANCE = "default: ops\nmaintenance: [{cron: '0 12 * * *', duration: 1h}]"
STORM = "default: ops\nstorm: {more_than: 2, within: 1m}"


def smoke(told: Told, alert: str = "s", number: int = 1, to: str = "firing", **more: object) -> list[str]:
    return told.take(alert, number, to, rule="smoke", severity="critical", inhibitable=False, **more)


def a_sensor_that_is_not_well(told: Told) -> None:
    told.take("q", rule="battery_low", quality=True)


def others_that_are_a_storm(told: Told) -> None:
    for number in range(5):
        smoke(told, f"other-{number}", device=f"d{number}")


def one_that_flaps(told: Told) -> None:
    smoke(told, "old")
    smoke(told, "old", 2, "flapping", flapping=True)
    smoke(told, "old", 3, "resolved", flapping=True)


def nothing(told: Told) -> None:
    pass


CIRCUMSTANCES: list[tuple[str, str, Callable[[Told], None], dict[str, object]]] = [
    ("maintenance", MAINTENANCE, nothing, {}),
    ("inhibited", "default: ops", a_sensor_that_is_not_well, {}),
    ("storm", STORM, others_that_are_a_storm, {}),
    ("flapping", "default: ops", one_that_flaps, {"flapping": True}),
    ("capped", "default: ops", nothing, {"capped": True}),
    ("stale", "default: ops", nothing, {"event_time": START - 2 * HOUR}),
]

whatever = pytest.mark.parametrize(
    ("policy", "before", "more"), [case[1:] for case in CIRCUMSTANCES], ids=[case[0] for case in CIRCUMSTANCES]
)


@whatever
def test_it_is_told(policy: str, before: Callable[[Told], None], more: dict[str, object]) -> None:
    told = Told(policy)
    before(told)
    assert smoke(told, **more) == ["ops firing s-1@ops"]


@whatever
def test_others_are_not(policy: str, before: Callable[[Told], None], more: dict[str, object]) -> None:
    told = Told(policy)
    before(told)
    if before is others_that_are_a_storm:
        for number in range(5):
            told.take(f"again-{number}", rule="hot", device=f"d{number}")
    found = told.take("s", rule="hot", severity="critical", **more)
    assert len(found) == 1 and found[0].startswith("ops firing ") and "@" not in found[0]


def test_a_silence_keeps_it_until_it_ends() -> None:
    told = Told()
    told.silences = [silence(2 * MINUTE, site="roof")]
    assert smoke(told) == ["ops firing silenced"]
    assert told.tick(MINUTE) == []
    assert told.tick(2 * MINUTE) == ["ops firing s-1@ops"]


def test_a_silence_before_maintenance_counts() -> None:
    told = Told(MAINTENANCE)
    told.silences = [silence(site="roof")]
    assert smoke(told) == ["ops firing silenced"]


def test_who_was_not_told_yet_is_told_though_somebody_has_taken_it_on() -> None:
    told = Told("default: {to: [ops], repeat: 5m}")
    smoke(told)
    told.acknowledge("s")
    assert told.tick(timedelta(minutes=5)) == ["ops reminder s-1-reminder-1@ops"]
    assert smoke(told, number=2, to="escalated") == ["ops escalated s-2@ops"]


def test_a_receiver_that_takes_nothing_is_not_told_and_others_are() -> None:
    told = Told("default: [ops, boss]")
    told.off = frozenset({"ops"})
    assert smoke(told) == ["boss firing s-1@boss", "ops firing switched_off"]


def test_a_new_receiver_hears_of_one_that_was_capped() -> None:
    told = Told("default: ops")
    smoke(told, capped=True)
    told.policy = Told("default: [ops, boss]").policy
    assert told.tick() == ["boss firing s-1@boss"]


def test_what_was_before_anybody_was_told_is_for_nobody() -> None:
    """A dispatcher that is started for the first time reads weeks of transitions."""
    told = Told(began_at=START)
    past = {"at": START - 10 * HOUR, "event_time": START - 10 * HOUR}
    assert smoke(told, **past) == ["ops firing stale"]
    assert smoke(told, number=2, to="resolved", **past) == ["ops resolved never_told"]
    assert smoke(told, "late", event_time=START - 10 * HOUR) == ["ops firing late-1@ops"]


LATER = [
    ("detected before", {"at": START - 10 * HOUR, "event_time": START - 10 * HOUR}, []),
    ("detected since, of an old reading", {"event_time": START - 10 * HOUR}, ["ops firing s-1@ops"]),
]


@pytest.mark.parametrize(("more", "expected"), [case[1:] for case in LATER], ids=[case[0] for case in LATER])
def test_nor_when_a_route_is_added(more: dict[str, object], expected: list[str]) -> None:
    told = Told("routes: [{match: {site: yard}, to: ops}]", began_at=START)
    assert told.tick() == []
    smoke(told, **more)
    told.policy = Told().policy
    assert told.tick() == expected
