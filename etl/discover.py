"""Which partitions of the lake changed since they were last processed, and how they are grouped into work. Pure."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from etl.lake_index import PartitionFiles
from etl.window import Window
from fleet.lake_layout import REJECTED

MAX_BATCH_ROWS = 1_000_000
"""Rows that one task reads: 2 s of Spark, and where readings are rarer than minutes some millions of rollups, 1 GB. A
partition of more is a batch of its own."""
MAX_BATCH_BYTES = 256 * 1024 * 1024
"""In the lake; for dead letters, of which a few may be as large as a million readings."""
MAX_BATCH_PARTITIONS = 48
MAX_STRANGERS = 100
"""Partitions of types that no spec defines: so many are told of at once, oldest first."""
MAX_BATCHES = 200
"""Fewer than Airflow's map limit (1024), so that a long backlog is worked off in several runs, oldest first."""


@dataclass(frozen=True)
class Processed:
    """What the ledger says of a partition. `digest` is of the files it was made from; None: never loaded."""

    digest: str | None
    failed: bool


@dataclass(frozen=True)
class Batch:
    """Partitions of one type that one task processes together."""

    type: str
    partitions: tuple[str, ...]
    rows: int

    def as_json(self) -> dict[str, object]:
        return {"type": self.type, "partitions": list(self.partitions), "rows": self.rows}


@dataclass(frozen=True)
class Found:
    """What a run is to process. `strangers` are of types that no spec defines any more, and are not."""

    batches: list[Batch]
    strangers: list[PartitionFiles]


def changed(
    lake: Iterable[PartitionFiles],
    ledger: Mapping[str, Processed],
    window: Window,
    system: str | None = None,
    force: bool = False,
) -> list[PartitionFiles]:
    """New ones, those with other files than the ledger knows, and those that failed; oldest first.

    `system` None is all. Dead letters belong to every system. `force` takes also what did not change.
    """
    found = []
    for candidate in lake:
        partition = candidate.partition
        if system is not None and partition.system not in (system, REJECTED):
            continue
        if not window.has(partition):
            continue
        known = ledger.get(partition.key)
        if force or known is None or known.failed or known.digest != candidate.digest:
            found.append(candidate)
    return sorted(found, key=lambda c: (c.partition.start, c.partition.key))


def batches(partitions: Iterable[PartitionFiles]) -> list[Batch]:
    """In the order given, cut to MAX_BATCHES; what is left out is found again by the next run."""
    done: list[Batch] = []
    open_: dict[str, list[PartitionFiles]] = {}

    def close(type_name: str) -> None:
        group = open_.pop(type_name)
        done.append(Batch(type_name, tuple(c.partition.key for c in group), sum(c.rows for c in group)))

    for candidate in partitions:
        name = candidate.partition.type
        group = open_.setdefault(name, [])
        full = (
            len(group) >= MAX_BATCH_PARTITIONS
            or sum(c.rows for c in group) + candidate.rows > MAX_BATCH_ROWS
            or sum(c.bytes for c in group) + candidate.bytes > MAX_BATCH_BYTES
        )
        if group and full:
            close(name)
        open_.setdefault(name, []).append(candidate)
    for name in list(open_):
        close(name)
    return done[:MAX_BATCHES]


def sort_out(candidates: Iterable[PartitionFiles], types: Container[str]) -> Found:
    """`types`: those that specs define."""
    known: list[PartitionFiles] = []
    strangers: list[PartitionFiles] = []
    for candidate in candidates:
        is_known = candidate.partition.type == REJECTED or candidate.partition.type in types
        (known if is_known else strangers).append(candidate)
    return Found(batches(known), strangers[:MAX_STRANGERS])
