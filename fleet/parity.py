"""Parity: the transitions that were published, beside those that the rules say of the landed log; and why they differ.

Pure. A transition has the same id on every replay (RULES.md §5), so the two are compared by it, then field by field.
A difference is explained by an experiment where Kafka still has the log: what the rules say of that is what they should
have said live. If it is what was published, the lake lacks something; if it is what the lake gave, the alert service
said something else than the rules. Where the log is gone, what is known of the time is weighed instead.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from fleet.backtest import HEARTBEAT_US, Arrival
from fleet.channels import HEARTBEAT
from fleet.engine import Engine
from fleet.log_record import LogRecord, NoControl, NoReading, take_record
from fleet.transition import Transition

Kind = Literal["only_published", "only_evaluated", "unlike", "doubled"]
Begun = Literal["log", "state", "warm_up"]
"""What the rules began with: the log's beginning, the state that an audit kept, or what is known today."""
COMPARED = tuple(name for name in Transition.__struct_fields__ if name != "detected_at_us")
"""All of a transition but when a service came to it."""


class Cause(NamedTuple):
    explains: bool
    """Whether it says that the alert service did what it should."""
    meaning: str


CAUSES = {
    "missing_file": Cause(True, "a file that a manifest names is not in the lake, or damaged"),
    "expired": Cause(True, "readings that are older than retention.lake, and were deleted from the lake"),
    "hole": Cause(True, "records that never landed: no manifest has them, or Kafka had lost them before landing came"),
    "not_landed": Cause(True, "the warehouse has the transition, and the lake does not have it yet"),
    "not_evaluated": Cause(True, "the alert service has not come so far yet"),
    "began_before": Cause(True, "the alert was under way before the log begins that could be evaluated"),
    "changed_spec": Cause(True, "the type's spec was another then, and Kafka's log no longer says which"),
    "control": Cause(True, "the device was changed, retired, or its alert ended by hand, and Kafka's log is gone"),
    "heartbeat": Cause(True, "a timer of which only Kafka's log, which is gone, said when it was reached"),
    "capped": Cause(True, "marked or not as capped: how many alerts were active before is not known"),
    "unread": Cause(False, "Kafka's log gives it, and the lake's readings do not, though none is missing"),
    "unknown": Cause(False, "the alert service published something else than the rules say of the same log"),
}


class Hole(NamedTuple):
    """Offsets, first to last, of which the lake lacks readings."""

    first: int
    last: int
    cause: str
    detail: str


@dataclass(frozen=True)
class Difference:
    kind: Kind
    transition: Transition
    """The published one, where there is one."""
    evaluated: Transition | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """In which the two are unlike."""
        return () if self.evaluated is None else unlike(self.transition, self.evaluated)


def unlike(a: Transition, b: Transition, passed_over: Collection[str] = ()) -> tuple[str, ...]:
    return tuple(n for n in COMPARED if n not in passed_over and getattr(a, n) != getattr(b, n))


class Comparison:
    """Takes what the rules say, one by one, against all that was published."""

    def __init__(self, published: Iterable[Transition], passed_over: Collection[str] = ()):
        self.published = Counter[str]()
        """Type → how many, doubled ones too."""
        self.same = Counter[str]()
        self._passed_over = passed_over
        self._differences: list[Difference] = []
        self._left: dict[str, Transition] = {}
        for transition in published:
            self.published[transition.type] += 1
            if transition.transition_id in self._left:
                self._differences.append(Difference("doubled", transition))
            self._left[transition.transition_id] = transition

    def take(self, evaluated: Transition) -> None:
        published = self._left.pop(evaluated.transition_id, None)
        if published is None:
            self._differences.append(Difference("only_evaluated", evaluated))
        elif unlike(published, evaluated, self._passed_over):
            self._differences.append(Difference("unlike", published, evaluated))
        else:
            self.same[evaluated.type] += 1

    def differences(self) -> list[Difference]:
        """In the order of the log."""
        left = (Difference("only_published", transition) for transition in self._left.values())
        return sorted([*self._differences, *left], key=lambda d: (d.transition.offset, d.transition.transition_id))


def said(engine: Engine, records: Iterable[Arrival | LogRecord]) -> Iterator[Transition]:
    """What the rules say of readings of the lake and records of Kafka, in order of offset."""
    for record in records:
        if isinstance(record, LogRecord):
            try:
                yield from take_record(engine, record, 0)
            except (NoReading, NoControl):
                continue
        else:
            reading, offset, append_us, digest = record
            yield from engine.reading(reading, offset=offset, append_us=append_us, digest=digest)


def with_heartbeats(arrivals: Iterable[Arrival], until: int) -> Iterator[Arrival | LogRecord]:
    """As fleet.backtest puts them, before the offset `until`: from there on the log itself has them."""
    beat, last = -HEARTBEAT_US, 0
    for arrival in arrivals:
        if arrival.offset < until and arrival.append_us - beat >= HEARTBEAT_US:
            yield LogRecord(last, arrival.append_us // 1000, HEARTBEAT, None)
            beat = arrival.append_us
        yield arrival
        last = arrival.offset


@dataclass(frozen=True)
class Circumstances:
    """Of one Kafka partition, by which its differences are explained."""

    holes: Sequence[Hole] = ()
    in_kafka: Mapping[str, Transition] | None = None
    """Of the differences, by id: what the rules say of Kafka's log. None: that log is gone."""
    began_us: int | None = None
    """Append time where the evaluation began without knowing what was before; None: it knew all of it."""
    committed: int | None = None
    """The next offset of the alert service; None: not known."""
    in_warehouse: Collection[str] = ()
    """Of the differences: ids of transitions that the warehouse has."""
    damaged: Sequence[str] = ()
    """Files of transitions that a manifest names and the lake does not have."""
    changed_types: Mapping[str, int] = field(default_factory=dict)
    """Types whose spec was told anew since the evaluation began with today's, and the offset where that was."""
    changed_devices: Collection[tuple[str, str]] = ()
    """(type, device) that the registry changed since then, or of which an alert was ended by hand."""
    timed: Collection[tuple[str, str]] = ()
    """(type, rule) of rules whose timers heartbeats may let act."""


@dataclass(frozen=True)
class Explained:
    difference: Difference
    cause: str
    detail: str = ""

    @property
    def is_explained(self) -> bool:
        return CAUSES[self.cause].explains


def explain(difference: Difference, known: Circumstances) -> Explained:
    cause, detail = _cause(difference, known)
    if difference.kind == "unlike":
        detail = "; ".join(filter(None, (f"unlike in {', '.join(difference.fields)}", detail)))
    return Explained(difference, cause, detail)


def _cause(d: Difference, known: Circumstances) -> tuple[str, str]:
    t = d.transition
    if d.kind == "doubled":
        return "unknown", "published more than once"
    if d.kind == "only_evaluated" and t.transition_id in known.in_warehouse:
        return ("missing_file", known.damaged[0]) if known.damaged else ("not_landed", "")
    if known.in_kafka is not None and _is_of_the_lake(d, known.in_kafka.get(t.transition_id)):
        hole = _hole_before(t.offset, known.holes)
        return (hole.cause, hole.detail) if hole else ("unread", "")
    if d.kind == "only_evaluated" and known.committed is not None and t.offset >= known.committed:
        return "not_evaluated", f"it is at offset {known.committed:,}, this is {t.offset:,}"
    if known.began_us is not None and min(t.since_us, t.starts_at_us) <= known.began_us:
        return "began_before", ""
    if t.offset < known.changed_types.get(t.type, 0):
        return "changed_spec", f"version {t.spec_version} said it"
    if d.kind == "unlike" and d.fields == ("capped",) and known.began_us is not None:
        return "capped", ""
    return ("unknown", "") if known.in_kafka is not None else _without_log(d, known)


def _is_of_the_lake(d: Difference, in_kafka: Transition | None) -> bool:
    """Whether Kafka's log gives what was published."""
    if d.kind == "only_evaluated":
        return in_kafka is None
    return in_kafka is not None and not unlike(d.transition, in_kafka)


def _hole_before(offset: int, holes: Iterable[Hole]) -> Hole | None:
    """The one that reaches closest."""
    return max((hole for hole in holes if hole.first <= offset), key=lambda hole: hole.last, default=None)


def _without_log(d: Difference, known: Circumstances) -> tuple[str, str]:
    """The likeliest, where the experiment cannot be made."""
    t = d.transition
    if hole := _hole_before(t.offset, known.holes):
        return hole.cause, hole.detail
    if t.reason == "rule_removed":
        return "changed_spec", t.reason
    if (t.type, t.device) in known.changed_devices or t.reason in ("manual", "device_retired"):
        return "control", t.reason or ""
    if (t.type, t.rule) in known.timed:
        return "heartbeat", ""
    return "unknown", "Kafka's log of that time is gone"


@dataclass
class Books:
    """Of one device type in one Kafka partition."""

    readings: int = 0
    published: int = 0
    same: int = 0
    explained: int = 0
    unexplained: int = 0

    @property
    def parity(self) -> float:
        return parity(self.same, self.explained + self.unexplained)


@dataclass(frozen=True)
class PartitionParity:
    """Of one Kafka partition, its offsets from `first` up to and without `end`."""

    system: str
    partition: int
    first: int
    end: int
    begun: Begun
    books: Mapping[str, Books]
    """By type."""
    differences: Sequence[Explained] = ()


def parity(same: int, differences: int) -> float:
    """Percent; 100 where there was nothing to compare. Never 100 where anything differs."""
    return 100.0 * same / (same + differences) if differences else 100.0
