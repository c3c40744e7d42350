"""Better by more than noise: blocks, pairs, and the score."""

from datetime import datetime, timedelta

import numpy as np
import pytest

from fleet.promotion import BLOCK, Comparison, blocks_of, compare, score, undecidable, verdict

HOURS, MINUTES = 40, 60
RNG = np.random.default_rng(3)
BLOCKS = np.repeat(np.arange(HOURS), MINUTES)
TRUTH = np.repeat(RNG.integers(0, 3, HOURS), MINUTES).astype(float)
"""Who is there stays an hour."""


def wrong(share: float, by: str = "minute", seed: int = 1) -> np.ndarray:
    """The truth with this share of its minutes, or of its hours as a whole, off by one."""
    rng = np.random.default_rng(seed)
    off = rng.random(HOURS)[BLOCKS] < share if by == "hour" else rng.random(len(TRUTH)) < share
    return np.where(off, (TRUTH + 1) % 3, TRUTH)


def test_the_score_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

    estimate = np.where(RNG.random(len(TRUTH)) < 0.2, 3.0, wrong(0.3))
    found = score(TRUTH, estimate)
    assert found.f1 == pytest.approx(f1_score(TRUTH, estimate, labels=[0, 1, 2], average="macro"))
    assert found.accuracy == pytest.approx(accuracy_score(TRUTH, estimate))
    assert found.counts == (0, 1, 2, 3)
    assert np.array(found.confusion).tolist() == confusion_matrix(TRUTH, estimate).tolist()
    assert found.mean_error == pytest.approx(np.abs(TRUTH - estimate).mean())


@pytest.mark.parametrize(
    ("ours", "theirs", "better"),
    [
        pytest.param(wrong(0.1), wrong(0.1), False, id="the same model is not better than itself"),
        pytest.param(wrong(0.05), wrong(0.3), True, id="far fewer errors, spread evenly"),
        pytest.param(wrong(0.3), wrong(0.05), False, id="worse"),
        pytest.param(wrong(0.10, seed=1), wrong(0.11, seed=2), False, id="a little better in errors spread evenly"),
        pytest.param(wrong(0.25, "hour", 5), wrong(0.30, "hour", 6), False, id="two hours fewer wrong of forty"),
        pytest.param(wrong(0.05, "hour", 5), wrong(0.6, "hour", 6), True, id="many hours fewer wrong"),
        pytest.param(wrong(0.05), np.zeros(len(TRUTH)), True, id="against one count for all"),
    ],
)
def test_better_means_by_more_than_noise(ours: np.ndarray, theirs: np.ndarray, better: bool) -> None:
    found = compare(TRUTH, ours, theirs, BLOCKS, "the other")
    assert found.better == better
    assert found.low <= found.difference <= found.high
    assert (found.minutes, found.blocks) == (HOURS * MINUTES, HOURS)
    assert compare(TRUTH, ours, theirs, BLOCKS, "the other") == found


def test_minutes_taken_as_independent_would_be_far_too_sure() -> None:
    ours, theirs = wrong(0.25, "hour", 5), wrong(0.30, "hour", 6)
    by_hour = compare(TRUTH, ours, theirs, BLOCKS, "")
    by_minute = compare(TRUTH, ours, theirs, np.arange(len(TRUTH)), "")
    assert by_hour.high - by_hour.low > 4 * (by_minute.high - by_minute.low)


def test_a_model_that_is_right_where_the_other_is_not_is_paired() -> None:
    """Ours repairs some of their errors and makes none: certain, however noisy each of the two is."""
    theirs = wrong(0.3, "hour", 8)
    repaired = np.where(BLOCKS % 2 == 0, TRUTH, theirs)
    assert compare(TRUTH, repaired, theirs, BLOCKS, "").low >= 0


def test_few_eventful_hours_do_not_hide_a_difference() -> None:
    """Drawn together with the calm ones, a resample in fifty would have none of these four, and more than that one."""
    truth = np.where(BLOCKS < 4, 2.0, 0.0)
    nobody = np.zeros(len(truth))
    assert compare(truth, truth, nobody, BLOCKS, "").low > 0.4


def test_what_decides_nothing_is_said() -> None:
    truth = np.where(BLOCKS < 3, 2.0, 0.0)
    assert undecidable(truth, BLOCKS).startswith("40 stretches of 2h, 3 of them with other counts")
    assert undecidable(TRUTH, BLOCKS) == ""
    assert undecidable(TRUTH[:420], BLOCKS[:420]).startswith("7 stretches")
    assert undecidable(np.empty(0), np.empty(0, np.int64)).startswith("0 stretches")


def test_blocks_are_stretches_of_a_site() -> None:
    at = np.array([datetime(2026, 11, 22, 3) + minutes * timedelta(minutes=1) for minutes in (0, 59, 60, 0, 59, 60)])
    found = blocks_of(np.array(["a", "a", "a", "b", "b", "b"], object), at.astype("datetime64[us]"))
    assert timedelta(hours=2) == BLOCK
    assert found.tolist() == [0, 0, 1, 2, 2, 3]
    assert blocks_of(np.empty(0, object), np.empty(0, "datetime64[us]")).tolist() == []


def test_one_that_is_not_beaten_decides() -> None:
    beaten, not_beaten = Comparison("a", 0.2, 0.1, 0.3, 100, 10), Comparison("b", 0.2, -0.1, 0.5, 100, 10)
    assert verdict([beaten]) == (True, "better by more than noise: +0.200 F1 against a (+0.100 to +0.300)")
    assert verdict([beaten, not_beaten])[0] is False
    assert "against b" in verdict([beaten, not_beaten])[1] and "against a" not in verdict([beaten, not_beaten])[1]
