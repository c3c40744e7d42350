"""The benchmark's score: between saying nothing and knowing all, and below where alarms are false."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.nab import REWARD_LOW_FN, REWARD_LOW_FP, probation, score

ROWS = 2_000
WINDOWS = [(500, 599), (1_200, 1_399)]


def test_saying_nothing_is_0_and_the_first_row_of_each_window_is_100() -> None:
    assert score([], WINDOWS, ROWS) == 0
    assert score([500, 1_200], WINDOWS, ROWS) == pytest.approx(100)


def test_one_of_two_windows_is_half() -> None:
    assert score([500], WINDOWS, ROWS) == pytest.approx(50)


def test_a_window_counts_its_best_detection_once() -> None:
    assert score([500, 501, 540, 1_200, 1_399], WINDOWS, ROWS) == pytest.approx(100)


def test_a_late_detection_is_worth_more_than_none_and_less_than_an_early_one() -> None:
    early, middle, late = (score([row, 1_200], WINDOWS, ROWS) for row in (500, 550, 599))
    assert pytest.approx(early) == 100 and early > middle > late > 75  # 75: the window found, and worth nothing
    # By hand: at row 550 half of the window is left. 2 / (1 + e^-2.5) - 1 = 0.8483, of 0.9866 at its first row.
    assert middle == pytest.approx(100 * (1 + 0.84828 / 0.98661 + 2) / 4, abs=0.01)


def test_a_false_alarm_costs_the_profiles_price_of_four() -> None:
    """A detection before any window: 0.11 of 4, which is two windows found instead of missed."""
    assert score([400, 500, 1_200], WINDOWS, ROWS) == pytest.approx(100 - 100 * 0.11 / 4)
    assert score([400, 500, 1_200], WINDOWS, ROWS, REWARD_LOW_FP) == pytest.approx(100 - 100 * 0.22 / 4)
    assert score([500], WINDOWS, ROWS, REWARD_LOW_FN) == pytest.approx(50)


def test_right_after_a_window_it_costs_little_and_far_behind_it_all() -> None:
    near, far, farthest = (100 - score([500, row, 1_200], WINDOWS, ROWS) for row in (601, 680, 1_190))
    assert 0 < near < far < farthest == pytest.approx(100 * 0.11 / 4)


def test_what_is_in_the_probation_does_not_count() -> None:
    assert (probation(ROWS), probation(100_000)) == (300, 750)
    assert score([10, 299, 500, 1_200], [(50, 90), *WINDOWS], ROWS) == pytest.approx(100)
    with pytest.raises(ValueError, match="nothing to detect"):
        score([], [(50, 90)], ROWS)


@given(st.sets(st.integers(0, ROWS - 1), max_size=60))
def test_never_above_100_and_an_alarm_on_every_row_is_below_nothing(detections: set[int]) -> None:
    assert score(detections, WINDOWS, ROWS) <= 100 + 1e-9
    assert score(range(ROWS), WINDOWS, ROWS) < 0
