"""What the simulators say they sent, held against what the books downstream show for it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Observed:
    """What came of one device type's messages, in readings, counted from logs and books."""

    bridged: int = 0
    """On Kafka."""
    landed: int = 0
    """In the lake, as the ledger read them."""
    valid: int = 0
    quarantined: int = 0
    duplicate: int = 0
    quarantined_values: int = 0
    """In the quarantine table: of readings that live and of those quarantined whole."""
    loaded: int = 0
    """Values in the rollups table, as its counts of one grain add up."""
    live: int = 0
    """In the table of recent readings."""

    def __sub__(self, before: "Observed") -> "Observed":
        return Observed(**{name: value - getattr(before, name) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Outcome:
    """Of one run of all simulators together."""

    types: Mapping[str, Observed]
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Dead letters on Kafka, by reason."""
    rejects_loaded: Mapping[str, int] = field(default_factory=dict)
    """Dead letters in the quarantine, by reason."""


def differences(summaries: Iterable[Mapping[str, Any]], outcome: Outcome) -> list[str]:
    """Where the books and the simulators' own summaries disagree, in words; empty when they reconcile.

    MQTT's QoS 1 may deliver a message twice: what is on Kafka beyond what was published is `redelivered`, and must
    show as that many more duplicates.
    """
    expected = _expected(summaries)
    found = []
    for name in sorted(set(expected.types) | set(outcome.types)):
        sent, seen = expected.types.get(name, {}), outcome.types.get(name, Observed())
        redelivered = seen.bridged - sent.get("readings", 0)
        if redelivered < 0:
            found.append(f"{name}: {-redelivered} readings were confirmed to the simulator and are not on Kafka")
            redelivered = 0
        pairs = {
            "landed and bridged": (seen.landed, seen.bridged),
            "landed and valid + quarantined + duplicate": (seen.landed, seen.valid + seen.quarantined + seen.duplicate),
            "live and bridged": (seen.live, seen.bridged),
            "valid and expected": (seen.valid, sent.get("valid", 0)),
            "quarantined and expected": (seen.quarantined, sent.get("quarantined", 0)),
            "duplicate and expected": (seen.duplicate, sent.get("duplicates", 0) + redelivered),
            "quarantined values and expected": (seen.quarantined_values, sent.get("quarantined_values", 0)),
            "values in rollups and expected": (
                seen.loaded,
                sent.get("known_values", 0) - sent.get("quarantined_values", 0),
            ),
        }
        found += [
            f"{name}: {what} differ: {left} and {right}" for what, (left, right) in pairs.items() if left != right
        ]
    for reason in sorted({*expected.rejected, *outcome.rejected, *outcome.rejects_loaded}):
        sent_count, seen_count = expected.rejected.get(reason, 0), outcome.rejected.get(reason, 0)
        # More than were sent are redelivered, or late enough at ingest for `clock_dependent` times to have come true.
        if seen_count < sent_count - expected.clock_dependent or (sent_count == 0 and not expected.clock_dependent):
            found.append(f"rejected as {reason}: {sent_count} expected, {seen_count} on Kafka")
        if outcome.rejects_loaded.get(reason, 0) != seen_count:
            found.append(f"rejected as {reason}: {seen_count} on Kafka, {outcome.rejects_loaded.get(reason, 0)} loaded")
    return found


@dataclass(frozen=True)
class _Expected:
    types: dict[str, dict[str, int]]
    """Totals as in simulators.books.TypeBooks; values of all metrics together."""
    rejected: dict[str, int]
    clock_dependent: int


def _expected(summaries: Iterable[Mapping[str, Any]]) -> _Expected:
    types: dict[str, dict[str, int]] = {}
    rejected: dict[str, int] = {}
    clock_dependent = 0
    for summary in summaries:
        books = summary["expected"]
        clock_dependent += books.get("clock_dependent", 0)
        for reason, count in books["rejected"].items():
            rejected[reason] = rejected.get(reason, 0) + count
        for name, of_type in books["types"].items():
            total = types.setdefault(name, {})
            for key in ("readings", "duplicates", "quarantined", "valid"):
                total[key] = total.get(key, 0) + of_type[key]
            for key in ("known_values", "quarantined_values"):
                total[key] = total.get(key, 0) + sum(of_type[key].values())
    return _Expected(types, rejected, clock_dependent)
