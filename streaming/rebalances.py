"""Which partitions a consumer gained and lost, told to its own loop instead of in the middle of a call."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kafka import ConsumerRebalanceListener, TopicPartition


class Rebalances(ConsumerRebalanceListener):
    """Called on kafka-python's I/O thread, so it only notes what changed."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._gained: set[TopicPartition] = set()
        self._lost: set[TopicPartition] = set()

    def on_partitions_assigned(self, assigned: Any) -> None:
        with self._lock:
            self._gained |= set(assigned)

    def on_partitions_revoked(self, revoked: Any) -> None:
        with self._lock:
            self._gained -= set(revoked)
            self._lost |= set(revoked)

    on_partitions_lost = on_partitions_revoked

    def take(self) -> tuple[set[TopicPartition], set[TopicPartition]]:
        """(lost, gained) since the last call; a partition in both was lost first."""
        with self._lock:
            lost, gained = self._lost, self._gained
            self._lost, self._gained = set(), set()
            return lost, gained

    @contextmanager
    def held(self) -> Iterator[tuple[set[TopicPartition], set[TopicPartition]]]:
        """As `take`; and until the block ends no partition changes hands, for the I/O thread waits to tell of it."""
        with self._lock:
            yield self.take()


def pause(consumer: Any, *places: TopicPartition) -> None:
    """A partition may be revoked on kafka-python's I/O thread before `take` tells of it: then there is nothing left to
    pause, and kafka-python raises KeyError. The same holds for `resume` and, with ValueError, for `seek`."""
    for place in places:
        with suppress(KeyError):
            consumer.pause(place)


def resume(consumer: Any, *places: TopicPartition) -> None:
    for place in places:
        with suppress(KeyError):
            consumer.resume(place)


def seek(consumer: Any, place: TopicPartition, offset: int) -> None:
    with suppress(KeyError, ValueError):
        consumer.seek(place, offset)
