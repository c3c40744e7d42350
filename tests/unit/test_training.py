"""Splitting by time, what is too little, baselines, and an estimator that is the same each time."""

import numpy as np
import pytest

from etl.features import Minutes
from etl.training import BASELINES, a_minute_ago, estimates, lacking, split, train

START = np.datetime64("2026-11-22T00:00:00", "us")


def minutes(truth: np.ndarray, sites: int = 1, columns: int = 3) -> Minutes:
    """A row a minute and site; the first column tells the truth through noise, the last is of a node that is silent."""
    rng = np.random.default_rng(0)
    n = len(truth)
    at = START + np.repeat(np.arange(-(-n // sites)), sites)[:n] * np.timedelta64(60_000_000, "us")
    site = np.array([f"room-{i % sites}" for i in range(n)], object)
    values = rng.normal(size=(n, columns))
    values[:, 0] += 4 * np.nan_to_num(truth)
    values[:, -1] = np.nan
    values[rng.random(n) < 0.1, 1] = np.nan
    return Minutes(site, at, truth, values)


def room(n: int, seed: int = 2, counts: int = 3) -> np.ndarray:
    """Who is there stays a while."""
    return np.repeat(np.random.default_rng(seed).integers(0, counts, -(-n // 40)), 40)[:n].astype(float)


def test_the_newest_are_held_out_and_sites_stay_together() -> None:
    parts = split(minutes(room(1000), sites=2))
    assert parts.training.at.max() < parts.holdout.at.min()
    assert len(parts.training) + len(parts.holdout) == 1000
    assert len(parts.holdout) == pytest.approx(300, abs=2)


def test_minutes_that_nobody_counted_are_in_neither_part() -> None:
    truth = room(1000)
    truth[::2] = np.nan
    parts = split(minutes(truth))
    assert len(parts.training) + len(parts.holdout) == 500
    assert not np.isnan(parts.training.truth).any()


@pytest.mark.parametrize(
    ("truth", "why"),
    [
        pytest.param(room(0), "not enough data: 0 minutes with a known truth to train on", id="nothing"),
        pytest.param(np.full(3000, np.nan), "not enough data: 0 minutes", id="no truth at all"),
        pytest.param(room(1), "not enough data", id="one"),
        pytest.param(room(700), "not enough data: 489 minutes with a known truth to train on", id="too few to train"),
        pytest.param(np.zeros(3000), "nothing to learn: the truth is 0 in all 2,100 minutes", id="a single count"),
        pytest.param(room(3000), "", id="enough"),
    ],
)
def test_what_is_too_little_is_said(truth: np.ndarray, why: str) -> None:
    found = lacking(split(minutes(truth)))
    assert why in found if why else found == ""


def test_the_same_minutes_give_the_same_estimator() -> None:
    parts = split(minutes(room(1600)))
    one, other = train(parts.training), train(parts.training)
    assert (one.algorithm, one.chosen_by) == (other.algorithm, other.chosen_by)
    said, again = (estimates(of.estimator, parts.holdout, of.columns) for of in (one, other))
    assert np.array_equal(said, again)
    assert (said == parts.holdout.truth).mean() > 0.8


def test_a_node_that_is_silent_is_left_out_and_one_that_falls_silent_is_borne() -> None:
    """The last column is never known; the second is not known any more in the holdout."""
    parts = split(minutes(room(1600)))
    parts.holdout.values[:, 1] = np.nan
    found = train(parts.training)
    assert list(found.columns) == [0, 1]
    assert not any(np.isnan(f1) for f1 in found.chosen_by.values())
    assert (estimates(found.estimator, parts.holdout, found.columns) == parts.holdout.truth).mean() > 0.8


def test_the_holdout_is_in_nothing_that_is_learned() -> None:
    """Whatever the newest part says, estimator and baselines are the same: only the training part is looked at."""
    found = minutes(room(1600))
    changed = Minutes(found.site, found.at, np.where(np.arange(1600) >= 1120, 7.0, found.truth), found.values)
    for name, baseline in BASELINES.items():
        assert np.array_equal(baseline(split(found)), baseline(split(changed))), name


def test_baselines() -> None:
    truth = np.array([0.0, 0, 1, 0, 0, 2, 2])
    whole = minutes(truth)
    parts = split(whole)
    assert [len(parts.training), len(parts.holdout)] == [4, 3]
    assert {name: list(of(parts)) for name, of in BASELINES.items()} == {
        "the most frequent count": [0, 0, 0],
        "the last count known": [0, 0, 0],
        "the usual count at that hour": [0, 0, 0],
    }
    assert list(a_minute_ago(parts)) == [0, 0, 2]
