"""How much one sender may send."""

import pytest

from fleet.allowance import Allowance


@pytest.mark.parametrize(
    ("asked", "answers"),
    [
        ([(0, 10), (0, 1)], [0, 0.5]),
        ([(0, 10), (0.5, 1), (0.5, 1)], [0, 0, 0.5]),
        ([(0, 10), (100, 10), (100, 1)], [0, 0, 0.5]),
        ([(0, 11)], [0.5]),
        ([(0, 8), (0, 3), (0, 2)], [0, 0.5, 0]),
    ],
    ids=["burst", "fills again", "never above the burst", "more than a burst", "who was refused took nothing"],
)
def test_two_a_second_and_ten_at_once(asked, answers):
    allowance = Allowance(10, 0)
    assert [allowance.take(wanted, 2, 10, at) for at, wanted in asked] == answers
