"""What must not change when an input is told another way. Of the engine alone."""

import copy
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fleet.transition import Transition
from tests.oracle.streams import cases
from tests.oracle.subject import Subject
from tests.oracle.test_differential import budget, told


def play(case: dict[str, Any], lines: list[tuple[int, Any]]) -> list[Transition]:
    """(offset, line): the same records keep their offsets, whatever stands between them."""
    subject = Subject(case)
    for offset, line in lines:
        subject.take(line, offset)
    return subject.transitions


@budget(0.3)
@given(cases())
def test_a_restart_anywhere_changes_nothing(case: dict[str, Any]) -> None:
    with told(case):
        lines = [(place, line) for place, line in enumerate(case["input"]) if line != "restart"]
        between = [(place, line) for one in lines for place, line in (one, (one[0], "restart"))]
        assert play(case, between) == play(case, lines)


@budget(0.3)
@given(cases(), st.integers(0, 50))
def test_going_on_from_a_snapshot_is_going_on(case: dict[str, Any], place: int) -> None:
    with told(case):
        cut = place % (len(case["input"]) + 1)
        subject = Subject(case)
        for offset, line in enumerate(case["input"][:cut]):
            subject.take(line, offset)
        data = subject.engine.snapshot()
        other = copy.copy(subject)
        other.engine = type(subject.engine).restore(data)
        assert other.engine.snapshot() == data, "what is read back is what was written"
        before = list(subject.transitions)
        ends = []
        for one in (subject, other):
            one.transitions, one.zones, one.registered = list(before), dict(subject.zones), dict(subject.registered)
        for one in (subject, other):
            for offset, line in list(enumerate(case["input"]))[cut:]:
                one.take(line, offset)
            ends.append(one.transitions)
        assert ends[0] == ends[1]


@budget(0.3)
@given(cases(spec_changes=False), st.integers(0, 50))
def test_the_same_spec_again_changes_versions_only(case: dict[str, Any], place: int) -> None:
    with told(case):
        cut = place % (len(case["input"]) + 1)
        lines = list(enumerate(case["input"]))
        again = [(cut, {"at": "0s", "spec": {**spec, "version": 2}}) for spec in case["specs"]]
        changed = play(case, lines[:cut] + again + lines[cut:])
        assert [msgspec.structs.replace(t, spec_version=1) for t in changed] == play(case, lines)
        assert {t.spec_version for t in changed if t.offset >= cut} <= {2}


@budget(0.3)
@given(cases(appends=True))
def test_heartbeats_repeated_add_nothing(case: dict[str, Any]) -> None:
    with told(case):
        lines = list(enumerate(case["input"]))
        twice = [one for one in lines for _ in range(2 if "heartbeat" in one[1] else 1)]
        assert play(case, twice) == play(case, lines)
