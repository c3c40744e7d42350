"""What the rules said and no transaction has yet: the next transaction's share of it."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kafka import TopicPartition

from fleet.transition import Transition


class Share(NamedTuple):
    """`transitions` are the first of what is unsent, all that one record caused or nothing of it. `ends`: of partitions
    that have more, the offset of the first transition that is left; what comes before it is committed with these."""

    transitions: list[Transition]
    ends: dict[TopicPartition, int]


class Unsent:
    def __init__(self) -> None:
        self._said: list[tuple[TopicPartition, Transition]] = []

    def __len__(self) -> int:
        return len(self._said)

    def __iter__(self) -> Iterator[tuple[TopicPartition, Transition]]:
        return iter(self._said)

    def add(self, place: TopicPartition, transitions: Iterable[Transition]) -> None:
        """What a partition's next records caused, in order of offset."""
        self._said += ((place, transition) for transition in transitions)

    def drop(self, place: TopicPartition) -> None:
        self._said = [(where, transition) for where, transition in self._said if where != place]

    def share(self, most: int) -> Share:
        """About so many."""
        said = self._said
        count = min(most, len(said))
        while 0 < count < len(said) and _source(said[count]) == _source(said[count - 1]):
            count += 1
        ends = {place: transition.offset for place, transition in reversed(said[count:])}
        return Share([transition for _, transition in said[:count]], ends)

    def sent(self, share: Share) -> None:
        del self._said[: len(share.transitions)]


def _source(said: tuple[TopicPartition, Transition]) -> tuple[TopicPartition, int]:
    return said[0], said[1].offset
