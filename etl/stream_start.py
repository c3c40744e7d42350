"""Where a live rollup's query begins, and whether its table, its checkpoint and its topic belong together."""

import logging
from collections.abc import Callable, Mapping
from datetime import timedelta

from connections.spark_checkpoint import Checkpoint
from etl.live_table import Progress
from fleet.catalog import System
from fleet.errors import ConfigurationError

FIRST_SPAN, LEAST_SPAN = timedelta(hours=1), timedelta(minutes=2)
"""What a first start takes in, before now; and at least, where more would be too much."""
MAX_BEHIND = 500_000
"""Records, in one batch: their stores take 160 MB of the heap. Batches with a limit would read partitions unevenly far,
and make the readings of those behind late."""

log = logging.getLogger("weir.stream")


def lost_offsets(
    system: System, progress: Progress, checkpoint: Checkpoint | None, reach: Mapping[int, tuple[int, int]]
) -> int:
    """How many offsets are gone from Kafka unread. `reach`: first and next offset of each of the topic's partitions.
    Raises ConfigurationError where table, checkpoint and topic do not belong together."""
    anew = f"`weir etl stream --system {system.name} --reset` forgets its rows, and the next start begins anew"
    if progress.checkpoint is None:
        if checkpoint is None or checkpoint.committed < 0:
            return 0
        raise ConfigurationError(f"{system.name}: a checkpoint is there, and the table knows of no batch; {anew}")
    if checkpoint is None or checkpoint.id != progress.checkpoint:
        there = "gone" if checkpoint is None else f"another's ({checkpoint.id})"
        raise ConfigurationError(
            f"{system.name}: the table was written with checkpoint {progress.checkpoint}, which is {there}; {anew}"
        )
    if not checkpoint.committed <= progress.batch <= checkpoint.begun:
        raise ConfigurationError(
            f"{system.name}: the table has batch {progress.batch}, its checkpoint {checkpoint.committed} to"
            f" {checkpoint.begun}: one of them was restored without the other; {anew}"
        )
    if others := sorted(set(checkpoint.offsets) - {system.topic}):
        raise ConfigurationError(
            f"{system.name}: its checkpoint is of topic {others[0]!r}, the spec says {system.topic!r}; {anew}"
        )
    lost = behind = 0
    for place, offset in checkpoint.offsets.get(system.topic, {}).items():
        first, end = reach.get(place, (0, 0))
        if offset > end:
            raise ConfigurationError(
                f"{system.name}: its checkpoint is at offset {offset} of {system.topic}-{place}, which ends at {end}:"
                f" the topic was made anew; {anew}"
            )
        if offset < first:
            log.error("%s-%d offsets %d to %d are gone from Kafka", system.topic, place, offset, first - 1)
            lost += first - offset
        behind += end - max(offset, first)
    if behind > MAX_BEHIND:
        raise ConfigurationError(
            f"{system.name}: it is {behind:,} records behind; at most {MAX_BEHIND:,} fit into a batch's memory; {anew}"
        )
    return lost


def first_span(appended_since: Callable[[timedelta], int]) -> timedelta:
    """How far back a first start begins: FIRST_SPAN, or half of it, and so on, where more has come since than fits into
    a batch's memory."""
    span = FIRST_SPAN
    while span > LEAST_SPAN and appended_since(span) > MAX_BEHIND:
        span /= 2
    return span
