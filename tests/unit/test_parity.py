"""What differs between transitions that were published and those that the rules say, and by what it is explained."""

from typing import Any

import msgspec
import pytest

from fleet.backtest import Arrival
from fleet.channels import HEARTBEAT
from fleet.log_record import LogRecord
from fleet.parity import Circumstances, Comparison, Difference, Hole, explain, parity, with_heartbeats
from fleet.reading import Reading
from fleet.transition import Transition
from tests.unit.alert_log import transition


def at(offset: int, **changes: Any) -> Transition:
    return msgspec.structs.replace(transition(), transition_id=f"t{offset}-1", offset=offset, **changes)


def test_the_same_differ_in_nothing_but_when_they_were_seen() -> None:
    published = [at(1), at(2), at(2), at(3), at(5)]
    found = Comparison(published)
    for evaluated in (at(1, detected_at_us=7), at(2), at(3, severity="info", title="Other"), at(4)):
        found.take(evaluated)
    said = [(d.kind, d.transition.offset, d.fields) for d in found.differences()]
    assert said == [
        ("doubled", 2, ()), ("unlike", 3, ("severity", "title")), ("only_evaluated", 4, ()), ("only_published", 5, ()),
    ]  # fmt: skip
    assert (found.published["sensor"], found.same["sensor"]) == (5, 2)


def test_where_the_offset_is_not_known_it_is_not_compared() -> None:
    found = Comparison([at(1)], passed_over=("offset",))
    found.take(msgspec.structs.replace(at(1), offset=9))
    assert found.differences() == []


HOLES = [Hole(10, 19, "hole", "no manifest"), Hole(30, 39, "missing_file", "f.parquet")]
HERE, ONLY_HERE, ONLY_PUBLISHED = at(35), Difference("only_evaluated", at(35)), Difference("only_published", at(35))
UNLIKE = Difference("unlike", at(35), at(35, severity="critical"))
CAPPED = Difference("unlike", at(35), at(35, capped=True))
ALL: dict[str, Transition] = {HERE.transition_id: HERE}
LONG_AGO, NEVER = HERE.since_us - 1, HERE.since_us


@pytest.mark.parametrize(
    ("difference", "known", "cause"),
    [
        (ONLY_HERE, {"in_kafka": {}, "holes": HOLES}, "missing_file"),
        (ONLY_PUBLISHED, {"in_kafka": ALL, "holes": HOLES[:1]}, "hole"),
        (UNLIKE, {"in_kafka": ALL, "holes": HOLES}, "missing_file"),
        (ONLY_PUBLISHED, {"in_kafka": ALL}, "unread"),
        (ONLY_PUBLISHED, {"in_kafka": ALL, "holes": [Hole(36, 40, "hole", "")]}, "unread"),
        (ONLY_HERE, {"in_kafka": ALL, "holes": HOLES}, "unknown"),
        (ONLY_PUBLISHED, {"in_kafka": {}, "holes": HOLES}, "unknown"),
        (UNLIKE, {"in_kafka": {"t35-1": at(35, severity="critical")}, "holes": HOLES}, "unknown"),
        (Difference("doubled", HERE), {"in_kafka": ALL, "holes": HOLES, "began_us": NEVER}, "unknown"),
        (ONLY_HERE, {"in_kafka": ALL, "in_warehouse": {"t35-1"}}, "not_landed"),
        (ONLY_HERE, {"in_kafka": ALL, "in_warehouse": {"t35-1"}, "damaged": ["a.parquet"]}, "missing_file"),
        (ONLY_HERE, {"in_kafka": ALL, "committed": 35}, "not_evaluated"),
        (ONLY_HERE, {"in_kafka": ALL, "committed": 36}, "unknown"),
        (ONLY_PUBLISHED, {"in_kafka": {}, "committed": 35}, "unknown"),
        (ONLY_PUBLISHED, {"in_kafka": {}, "began_us": NEVER}, "began_before"),
        (ONLY_PUBLISHED, {"in_kafka": {}, "began_us": LONG_AGO}, "unknown"),
        (ONLY_PUBLISHED, {"in_kafka": {}, "changed_types": {"sensor": 36}}, "changed_spec"),
        (ONLY_PUBLISHED, {"in_kafka": {}, "changed_types": {"sensor": 35}}, "unknown"),
        (CAPPED, {"in_kafka": {}, "began_us": LONG_AGO}, "capped"),
        (CAPPED, {"in_kafka": {}}, "unknown"),
        (ONLY_PUBLISHED, {"holes": HOLES}, "missing_file"),
        (ONLY_PUBLISHED, {"changed_devices": {("sensor", "s1")}}, "control"),
        (Difference("only_published", at(35, to="resolved", reason="manual")), {}, "control"),
        (Difference("only_published", at(35, to="resolved", reason="rule_removed")), {}, "changed_spec"),
        (ONLY_PUBLISHED, {"timed": {("sensor", "hot")}}, "heartbeat"),
        (ONLY_PUBLISHED, {}, "unknown"),
    ],
    ids=[
        "the lake has too little", "a hole before it", "read otherwise", "the lake lacks nothing", "a hole after it",
        "not said live, with a hole", "said live alone, with a hole", "other than both", "twice, whatever else",
        "in the warehouse", "in a file that is gone", "not come to", "come to", "published though not come to",
        "began before", "began later", "before the spec was told", "after it", "capped by what is not known",
        "capped for no reason", "no log: a hole", "no log: its device was changed", "no log: by hand",
        "no log: its rule is gone", "no log: a rule with timers", "no log: nothing",
    ],
)  # fmt: skip
def test_causes(difference: Difference, known: dict[str, Any], cause: str) -> None:
    found = explain(difference, Circumstances(**known))
    assert (found.cause, found.is_explained) == (cause, cause not in ("unknown", "unread"))


def test_what_is_unlike_is_named() -> None:
    assert explain(UNLIKE, Circumstances(in_kafka={})).detail == "unlike in severity"


def test_heartbeats_are_put_where_the_log_has_none() -> None:
    arrivals = [Arrival(Reading("s1", "sensor", "", 0, {}), n, n * 4_000_000) for n in range(1, 9)]
    found = list(with_heartbeats(arrivals, until=7))
    assert [r.offset for r in found if isinstance(r, Arrival)] == list(range(1, 9))
    beats = [(r.offset, r.append_ms) for r in found if isinstance(r, LogRecord) and r.mark == HEARTBEAT]
    assert beats == [(0, 4_000), (3, 16_000)]


@pytest.mark.parametrize(
    ("same", "differences", "percent"), [(0, 0, 100), (3, 1, 75), (10**9, 1, 99.9999999), (0, 2, 0)], ids=str
)
def test_percent(same: int, differences: int, percent: float) -> None:
    assert parity(same, differences) == pytest.approx(percent)
    assert (parity(same, differences) == 100) == (differences == 0)
