"""Shares of what is to be told: first things first, no record's transitions torn, and how far each partition is."""

from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition

from streaming.unsent import Unsent

P, Q = TopicPartition("sensor", 0), TopicPartition("sensor", 1)
Said = list[tuple[TopicPartition, list[int]]]
"""Offsets of transitions, as polls brought them."""

ROWS: list[tuple[str, Said, int, list[int], dict[TopicPartition, int]]] = [
    ("nothing", [], 2, [], {}),
    ("all_of_it", [(P, [1, 2])], 2, [1, 2], {}),
    ("the_first", [(P, [1, 2, 3])], 2, [1, 2], {P: 3}),
    ("one_record_is_not_torn", [(P, [1, 2, 2, 2, 3])], 2, [1, 2, 2, 2], {P: 3}),
    ("one_record_is_all", [(P, [7, 7, 7])], 2, [7, 7, 7], {}),
    ("an_equal_offset_elsewhere_is_another_record", [(P, [1, 2]), (Q, [2, 2])], 2, [1, 2], {Q: 2}),
    ("a_partition_that_came_twice", [(P, [1, 2]), (Q, [5, 6]), (P, [3, 4])], 3, [1, 2, 5], {P: 3, Q: 6}),
]


@pytest.mark.parametrize(("said", "most", "sent", "ends"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_share(said: Said, most: int, sent: list[int], ends: dict[TopicPartition, int]) -> None:
    unsent = Unsent()
    for place, offsets in said:
        transitions: Any = [SimpleNamespace(offset=offset) for offset in offsets]
        unsent.add(place, transitions)
    before = len(unsent)
    share = unsent.share(most)
    assert ([t.offset for t in share.transitions], share.ends) == (sent, ends)
    assert len(unsent) == before, "a transaction may fail"
    unsent.sent(share)
    assert len(unsent) == before - len(sent)


def test_a_partition_that_is_given_away_takes_its_own_along() -> None:
    unsent = Unsent()
    for place, offset in ((P, 1), (Q, 2), (P, 3)):
        transition: Any = SimpleNamespace(offset=offset)
        unsent.add(place, [transition])
    unsent.drop(P)
    assert [(place, transition.offset) for place, transition in unsent] == [(Q, 2)]
