"""A rule that fires for more devices than people can be told of: the log has all of it, and marks what is beyond."""

import msgspec
import yaml

from fleet.control import Resolve, Retire, Spec
from fleet.engine import Engine
from fleet.reading import Reading
from fleet.rule_test import inline_spec
from fleet.transition import Transition, decode_transition, encode_transition

SECOND = 1_000_000
SPEC = {
    "type": "roof", "version": 1, "system": "demo", "cadence": "10s", "max_active_alerts": 3,
    "metrics": {"heat": {"unit": "degC"}, "wind": {"unit": "metre_per_second"}},
    "alerts": [{"id": "hot", "when": "heat > 35"}, {"id": "stormy", "when": "wind > 20"}],
}  # fmt: skip


class Partition:
    def __init__(self) -> None:
        self.engine = Engine(0, [inline_spec(SPEC)])

    @property
    def _next(self) -> int:
        return self.engine.offset + 1

    def hear(self, device: str, at: int, **values: float) -> list[Transition]:
        return list(self.engine.reading(Reading(device, "roof", "x", at * SECOND, dict(values)), offset=self._next))

    def tell(self, control: object) -> list[Transition]:
        return list(self.engine.control(control, offset=self._next))  # type: ignore[arg-type]

    def counts(self) -> tuple[dict[str, int], int]:
        of_type = self.engine.known.types["roof"]
        return {rule: n for rule, n in of_type.active.items() if n}, of_type.capped


def test_the_log_is_complete_and_marks_what_is_beyond_the_cap() -> None:
    partition = Partition()
    fired = [t for n in range(5) for t in partition.hear(f"d{n}", 0, heat=40.0)]
    assert [(t.device, t.to, t.capped) for t in fired] == [(f"d{n}", "firing", n >= 3) for n in range(5)]
    assert partition.counts() == ({"hot": 5}, 2)
    # Another rule has a cap of its own.
    assert [t.capped for t in partition.hear("d4", 1, wind=30.0)] == [False]
    # The mark stays with the alert to its end, whatever becomes of the others.
    assert [t.capped for t in partition.hear("d0", 2, heat=10.0)] == [False]
    assert [(t.to, t.capped) for t in partition.hear("d4", 2, heat=10.0)] == [("resolved", True)]
    assert partition.counts() == ({"hot": 3, "stormy": 1}, 1)
    # There is room again where three are active no more.
    assert [t.capped for t in partition.hear("d0", 3, heat=40.0)] == [True]
    assert [t.capped for t in partition.hear("d1", 3, heat=10.0)] == [False]
    assert [t.capped for t in partition.hear("d2", 3, heat=10.0)] == [False]
    assert [t.capped for t in partition.hear("d2", 4, heat=40.0)] == [False]


def test_a_restart_and_control_records_keep_the_count() -> None:
    partition = Partition()
    for n in range(5):
        partition.hear(f"d{n}", 0, heat=40.0)
    before = partition.counts()
    partition.engine = Engine.restore(partition.engine.snapshot())
    assert partition.counts() == before == ({"hot": 5}, 2)
    (retired,) = partition.tell(Retire(revision=0, at=1000, type="roof", device="d3"))
    assert (retired.reason, retired.capped) == ("device_retired", True)
    partition.tell(Resolve(revision=0, at=1000, type="roof", device="d0", rule="hot", by="ada"))
    assert partition.counts() == ({"hot": 3}, 1)
    larger = {**SPEC, "max_active_alerts": 4}
    assert partition.tell(Spec(revision=0, at=2000, type="roof", version=1, text=yaml.safe_dump(larger))) == []
    assert [t.capped for n in (5, 6) for t in partition.hear(f"d{n}", 3, heat=40.0)] == [False, True]
    gone = partition.tell(
        Spec(revision=0, at=4000, type="roof", version=1, text=yaml.safe_dump({**SPEC, "alerts": []}))
    )
    assert {(t.device, t.reason, t.capped) for t in gone} == {
        ("d1", "rule_removed", False), ("d2", "rule_removed", False), ("d4", "rule_removed", True),
        ("d5", "rule_removed", False), ("d6", "rule_removed", True),
    }  # fmt: skip
    assert partition.counts() == ({}, 0)


def test_the_mark_is_on_the_wire_where_it_says_something() -> None:
    partition = Partition()
    fired = [t for n in range(4) for t in partition.hear(f"d{n}", 0, heat=40.0)]
    for transition in fired:
        wire = encode_transition(transition)
        assert decode_transition(wire) == transition
        assert ("capped" in msgspec.json.decode(wire)) is transition.capped
    assert "reason" in msgspec.json.decode(encode_transition(fired[0])), "the keys of RULES 5 are always there"
