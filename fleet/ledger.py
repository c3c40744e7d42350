"""The books: what must add up between Kafka, the lake and the warehouse, and where it does not. Pure.

Offsets: manifests cover each Kafka partition's log without gap or overlap, and each counts every one of its offsets.
Rows: of each lake partition, landed = valid + quarantined + duplicate.
Values: of each metric, known values in rows that are no duplicates = those in rollups (of either grain) + quarantined.
Rejects: of each hour, dead letters landed = Σ over reasons.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fleet.manifest import Manifest

GRAINS = ("1m", "1h")


@dataclass(frozen=True)
class Imbalance:
    """`where` is a Kafka partition, lake partition or metric of one."""

    where: str
    what: str
    expected: int
    found: int

    def __str__(self) -> str:
        return f"{self.where}: {self.what}: expected {self.expected:,}, found {self.found:,}"


@dataclass(frozen=True)
class TopicBooks:
    """One Kafka partition. `end_offset` is the offset after its last record; None: Kafka was not asked.

    Of `covered` offsets each is a row, unreadable, a heartbeat, a control record or missing: lost, because the log
    no longer had it when landing came. `gaps` are offsets that no manifest covers, as (first, last).
    """

    topic: str
    partition: int
    first_offset: int
    landed_to: int
    rows: int
    unreadable: int
    heartbeats: int
    controls: int
    missing: int
    end_offset: int | None
    gaps: tuple[tuple[int, int], ...] = ()
    overlaps: int = 0

    @property
    def name(self) -> str:
        return f"{self.topic}/{self.partition}"

    @property
    def pending(self) -> int | None:
        """Written to Kafka and not yet landed."""
        return None if self.end_offset is None else self.end_offset - self.landed_to

    @property
    def counted(self) -> int:
        return self.rows + self.unreadable + self.heartbeats + self.controls + self.missing


def topic_books(topic: str, partition: int, manifests: Sequence[Manifest], end_offset: int | None) -> TopicBooks:
    """Of all the manifests of one Kafka partition. A log begins at offset 0, so an uncovered start is a gap too."""
    ordered = sorted(manifests, key=lambda m: m.first_offset)
    gaps: list[tuple[int, int]] = []
    overlaps, reached = 0, 0
    for m in ordered:
        if m.first_offset > reached:
            gaps.append((reached, m.first_offset - 1))
        overlaps += max(0, min(reached, m.last_offset + 1) - m.first_offset)
        reached = max(reached, m.last_offset + 1)
    return TopicBooks(
        topic,
        partition,
        ordered[0].first_offset if ordered else 0,
        reached,
        sum(m.rows for m in ordered),
        sum(m.unreadable for m in ordered),
        sum(m.heartbeats for m in ordered),
        sum(m.controls for m in ordered),
        sum(m.missing for m in ordered),
        end_offset,
        tuple(gaps),
        overlaps,
    )


def topic_imbalances(books: TopicBooks) -> list[Imbalance]:
    found = [Imbalance(books.name, f"offsets {a} to {b} are in no manifest", 0, b - a + 1) for a, b in books.gaps]
    if books.overlaps:
        found.append(Imbalance(books.name, "offsets are in more than one manifest", 0, books.overlaps))
    if not books.gaps and not books.overlaps and books.counted != books.landed_to:
        found.append(
            Imbalance(books.name, "offsets landed against what manifests count", books.landed_to, books.counted)
        )
    if books.pending is not None and books.pending < 0:
        what = "landed beyond the end of the topic: was the topic deleted and made anew?"
        found.append(Imbalance(books.name, what, books.end_offset or 0, books.landed_to))
    return found


@dataclass(frozen=True)
class MetricBooks:
    """Known values of one metric in rows that are no duplicates, and where they went."""

    metric: str
    known: int
    rolled: Mapping[str, int]
    """Σ of rollup counts by grain."""
    quarantined: int


@dataclass(frozen=True)
class PartitionBooks:
    """One partition of the lake as it was processed. `rejects` only of dead letters: reason → rows."""

    key: str
    landed: int
    valid: int
    quarantined: int
    duplicate: int
    metrics: tuple[MetricBooks, ...] = ()
    rejects: Mapping[str, int] | None = None


def partition_imbalances(books: PartitionBooks) -> list[Imbalance]:
    """Within what one job computed of one partition."""
    found = []
    spread = books.valid + books.quarantined + books.duplicate
    if books.landed != spread:
        found.append(Imbalance(books.key, "rows landed against valid + quarantined + duplicate", books.landed, spread))
    for m in books.metrics:
        found += [
            Imbalance(f"{books.key} {m.metric}", f"known values against {grain} rollups + quarantined", m.known, total)
            for grain in GRAINS
            if (total := m.rolled.get(grain, 0) + m.quarantined) != m.known
        ]
    if books.rejects is not None and sum(books.rejects.values()) != books.landed:
        found.append(
            Imbalance(books.key, "dead letters against Σ of reasons", books.landed, sum(books.rejects.values()))
        )
    return found


@dataclass(frozen=True)
class Stored:
    """What the warehouse's tables hold of one partition, counted there."""

    rolled: Mapping[tuple[str, str], int]
    """(metric, grain) → Σ count."""
    quarantined_values: Mapping[str, int]
    quarantined_rows: int
    """Whole readings, or dead letters."""
    anomalies: int


def stored_imbalances(
    books: PartitionBooks, stored: Stored, landed_in_manifests: int, anomalies: int
) -> list[Imbalance]:
    """Between the books of a partition, the tables, and the manifests it was made from."""
    key = books.key
    found = []

    def compare(where: str, what: str, expected: int, actual: int) -> None:
        if expected != actual:
            found.append(Imbalance(where, what, expected, actual))

    compare(key, "rows in manifests against rows landed", landed_in_manifests, books.landed)
    compare(key, "quarantined rows against the quarantine table", books.quarantined, stored.quarantined_rows)
    compare(key, "anomalies against the table", anomalies, stored.anomalies)
    known = {m.metric: m for m in books.metrics}
    for metric in sorted(set(known) | {m for m, _ in stored.rolled} | set(stored.quarantined_values)):
        m = known.get(metric, MetricBooks(metric, 0, {}, 0))
        kept = stored.quarantined_values.get(metric, 0)
        compare(f"{key} {metric}", "quarantined values against the quarantine table", m.quarantined, kept)
        for grain in GRAINS:
            total = stored.rolled.get((metric, grain), 0) + kept
            compare(f"{key} {metric}", f"known values against the {grain} rollups table + quarantine", m.known, total)
    return found


@dataclass(frozen=True)
class Verdict:
    """The books in a word. What waits (`pending`, `unprocessed`: rows and records) is said and is no error."""

    imbalances: int
    lost: int
    failed: int
    unprocessed: int
    pending: int

    @property
    def balance(self) -> bool:
        return self.imbalances == 0

    @property
    def good(self) -> bool:
        return self.balance and not self.lost and not self.failed

    def __str__(self) -> str:
        if not self.balance:
            return f"the books do not balance ({self.imbalances:,} imbalances)"
        told = (
            (self.lost, "records lost"),
            (self.failed, "partitions failed"),
            (self.unprocessed, "rows not yet processed"),
            (self.pending, "records not yet landed"),
        )
        but = ", ".join(f"{n:,} {what}" for n, what in told if n)
        return f"the books balance, but: {but}" if but else "the books balance"
