"""`weir rules parity`: what was published, beside what the rules say of the landed log."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, NamedTuple

from etl.parity_books import audited, span_of
from etl.run import Job
from etl.window import Window
from fleet.parity import CAUSES, Books, Explained, PartitionParity, parity
from fleet.settings import Settings

SHOWN = 10


class Audited(NamedTuple):
    system: str
    window: Window
    parts: Sequence[PartitionParity]

    @property
    def differences(self) -> list[Explained]:
        return [one for part in self.parts for one in part.differences]

    def total(self, name: str) -> int:
        return sum(getattr(books, name) for part in self.parts for books in part.books.values())

    @property
    def parity(self) -> float:
        return parity(self.total("same"), self.total("explained") + self.total("unexplained"))


def audits(system: str, start: str | None, to: str | None) -> list[Audited]:
    """Of each system asked for. Raises ConfigurationError, Unavailable, Refused, DataError."""
    job = Job(Settings.load(role="batch"))
    window = span_of(start, to, datetime.now(UTC))
    names = list(job.catalog.systems) if system == "all" else [job.catalog.system(system).name]
    return [Audited(name, window, audited(job, name, window)) for name in names]


def as_lines(found: Audited) -> Iterator[str]:
    start, end = found.window
    yield (
        f"{found.system}: parity {percent(found.parity)} from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC:"
        f" {found.total('same'):,} of {found.total('published'):,} published transitions are what the rules say of"
        f" {found.total('readings'):,} landed readings"
    )
    causes = Counter((one.difference.kind, one.cause) for one in found.differences)
    for (kind, cause), count in sorted(causes.items()):
        yield f"  {kind.replace('_', ' '):14} {count:>7,}  {cause}: {CAUSES[cause].meaning}"
    unexplained = [one for one in found.differences if not one.is_explained]
    for one in unexplained[:SHOWN]:
        t = one.difference.transition
        moment = datetime.fromtimestamp(t.event_time_us / 1e6, UTC)
        detail = f" ({one.detail})" if one.detail else ""
        yield f"  {moment:%Y-%m-%dT%H:%M:%SZ} {t.device} {t.rule} {t.to}, {t.transition_id}{detail}"
    if len(unexplained) > SHOWN:
        yield f"  … and {len(unexplained) - SHOWN:,} more, in the table parity_differences; --json has all"


def percent(value: float) -> str:
    """Never rounded up to 100."""
    return "100 %" if value == 100 else f"{min(value, 99.99):.2f} %"


def as_object(found: Audited) -> dict[str, Any]:
    start, end = found.window
    return {
        "system": found.system, "from": start and start.isoformat(), "to": end and end.isoformat(),
        "parity": found.parity,
        **{name: found.total(name) for name in Books.__dataclass_fields__},
        "partitions": [
            {
                "partition": part.partition, "first_offset": part.first, "end_offset": part.end, "begun": part.begun,
                "types": {name: asdict(books) for name, books in part.books.items()},
            }
            for part in found.parts
        ],
        "differences": [_difference(one) for one in found.differences],
    }  # fmt: skip


def _difference(one: Explained) -> dict[str, Any]:
    t = one.difference.transition
    return {
        "difference": one.difference.kind, "cause": one.cause, "explained": one.is_explained, "detail": one.detail,
        "type": t.type, "device": t.device, "rule": t.rule, "to": t.to, "transition_id": t.transition_id,
        "event_time": datetime.fromtimestamp(t.event_time_us / 1e6, UTC).isoformat(),
        "source": {"partition": t.partition, "offset": t.offset},
    }  # fmt: skip
