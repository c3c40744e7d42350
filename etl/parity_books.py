"""Audits of alerts, and what the warehouse keeps of them: tables parity and parity_differences."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import text

from connections.warehouse import Warehouse, copy_rows
from etl.parity import audit
from etl.run import Job
from etl.window import Window, parse_window
from fleet.errors import ConfigurationError
from fleet.parity import Explained, PartitionParity
from fleet.reading import to_datetime

MOST = 10_000
"""Differences that are written of one type and Kafka partition; their number is always whole."""
KEPT = timedelta(days=366)
SETTLED = timedelta(minutes=2)
"""Before now: what was appended since may not have been said, or not have landed yet."""

COUNTS = (
    "system", "type", "kafka_partition", "starts_at", "ends_at", "first_offset", "end_offset", "begun", "readings",
    "published", "same", "explained", "unexplained",
)  # fmt: skip
DIFFERENCES = (
    "system", "type", "kafka_partition", "starts_at", "ends_at", "transition_id", "alert_id", "rule", "device_id",
    '"to"', "event_time", "source_offset", "difference", "cause", "explained", "detail",
)  # fmt: skip


def span_of(start: str | None, to: str | None, now: datetime) -> Window:
    """All of yesterday where neither is given; with `start` alone up to what is settled. Raises ConfigurationError."""
    if start is None and to is None:
        today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return Window(today - timedelta(days=1), today)
    if start is None:
        raise ConfigurationError("to without from: parity is of a span")
    return parse_window(start, (now - SETTLED).isoformat() if to in (None, "now") else to, now)


def audited(job: Job, system: str, window: Window) -> list[PartitionParity]:
    """Written down, too. Raises ConfigurationError, Unavailable, Refused, DataError."""
    found = audit(job, system, window)
    write(job.warehouse, system, window, found)
    return found


def write(warehouse: Warehouse, system: str, window: Window, parts: Sequence[PartitionParity]) -> None:
    """In place of what an earlier audit of the same span has left."""
    span = {"system": system, "start": window.start, "end": window.end}
    with warehouse.transaction() as c:
        for table in ("parity", "parity_differences"):
            c.execute(
                text(
                    f"DELETE FROM {table} WHERE ends_at < :before"  # noqa: S608
                    " OR (system = :system AND starts_at = :start AND ends_at = :end)"
                ),
                {**span, "before": datetime.now(UTC) - KEPT},
            )
        copy_rows(c, "parity", COUNTS, (row for part in parts for row in _counts(part, window)))
        copy_rows(c, "parity_differences", DIFFERENCES, (row for part in parts for row in _differences(part, window)))


def _counts(part: PartitionParity, window: Window) -> Iterator[list[Any]]:
    for type_name, books in sorted(part.books.items()):
        yield [
            part.system, type_name, part.partition, window.start, window.end, part.first, part.end, part.begun,
            books.readings, books.published, books.same, books.explained, books.unexplained,
        ]  # fmt: skip


def _differences(part: PartitionParity, window: Window) -> Iterator[list[Any]]:
    by_type: dict[str, list[Explained]] = defaultdict(list)
    for one in sorted(part.differences, key=lambda one: one.is_explained):
        by_type[one.difference.transition.type].append(one)
    for type_name, some in by_type.items():
        for one in islice(some, MOST):
            t = one.difference.transition
            yield [
                part.system, type_name, part.partition, window.start, window.end, t.transition_id, t.alert_id, t.rule,
                t.device, t.to, to_datetime(t.event_time_us), t.offset, one.difference.kind, one.cause,
                one.is_explained, one.detail,
            ]  # fmt: skip
