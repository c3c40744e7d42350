"""From minutes whose truth is known to an estimator, and what it has to beat. Pure, and the same minutes give the same
estimator: seeds are fixed, rows are in order.

Time order everywhere: the newest part is held out and decides; the estimator is chosen within the older part, by what
each says of a stretch after being trained on what was before it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from etl.features import Array, Minutes
from fleet.promotion import score

HOLDOUT = 0.3
"""Of the minutes with a known truth, the newest."""
MIN_TRAINING = 500
"""Minutes: a working day. Of fewer a model knows one day's light and nothing else."""
LEAST_KNOWN = 0.01
"""Of a feature, the share of minutes in which it must be known to be learned from."""
FOLDS = 3
SEED = 7


def candidates() -> dict[str, Any]:
    """By name, the simplest first: of equals it is taken. Each bears what is missing, and weighs rare counts up."""
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return {
        "logistic regression": make_pipeline(
            SimpleImputer(keep_empty_features=True),
            StandardScaler(),
            LogisticRegression(class_weight="balanced", max_iter=500),
        ),
        "random forest": RandomForestClassifier(
            100, min_samples_leaf=5, class_weight="balanced", random_state=SEED
        ),
        "gradient boosting": HistGradientBoostingClassifier(
            max_iter=40, max_leaf_nodes=15, class_weight="balanced", early_stopping=False, random_state=SEED
        ),
    }  # fmt: skip


@dataclass(frozen=True)
class Split:
    training: Minutes
    holdout: Minutes


def split(minutes: Minutes) -> Split:
    """By time, so that minutes of several sites stay together. Minutes without a truth are in neither."""
    known = minutes.where(~np.isnan(minutes.truth))
    if not len(known):
        return Split(known, known)
    border = known.at[min(len(known) - 1, int(len(known) * (1 - HOLDOUT)))]
    return Split(known.where(known.at < border), known.where(known.at >= border))


def lacking(parts: Split) -> str:
    """Why nothing can be learned from it; empty where something can."""
    have = len(parts.training)
    if have < MIN_TRAINING:
        return f"not enough data: {have:,} minutes with a known truth to train on, {MIN_TRAINING:,} needed"
    counts = np.unique(parts.training.truth)
    if len(counts) < 2:
        return f"nothing to learn: the truth is {counts[0]:g} in all {have:,} minutes to train on"
    return ""


@dataclass(frozen=True)
class Trained:
    estimator: Any
    columns: Sequence[int]
    """Of the minutes' values, those that it takes."""
    algorithm: str
    chosen_by: Mapping[str, float]
    """F1 of each candidate over the later stretches of the training minutes; NaN where it could not be trained."""


def train(training: Minutes) -> Trained:
    from threadpoolctl import threadpool_limits

    those = candidates()  # before the limit, which only libraries know that are loaded
    # One thread: sums do not depend on how work was shared out, and on a busy machine threads that spin for each other
    # took twenty times as long.
    with threadpool_limits(1):
        found = {name: _forward(estimator, training) for name, estimator in those.items()}
        # NaN is less than anything; of equals the first stays.
        best = max(found, key=lambda name: -1.0 if np.isnan(found[name]) else found[name])
        columns = _known(training.values)
        estimator = candidates()[best].fit(training.values[:, columns], training.truth.astype(np.int64))
    return Trained(estimator, columns, best, found)


def estimates(estimator: Any, minutes: Minutes, columns: Sequence[int]) -> Array:
    from threadpoolctl import threadpool_limits

    if not len(minutes):
        return np.empty(0)
    with threadpool_limits(1):
        return np.asarray(estimator.predict(minutes.values[:, columns]), np.float64)


def _known(values: Array) -> list[int]:
    """Columns with enough to learn from. The others are of a node that was silent; gradient boosting breaks on them."""
    return [int(i) for i in np.flatnonzero((~np.isnan(values)).mean(axis=0) >= LEAST_KNOWN)]


def _forward(estimator: Any, training: Minutes) -> float:
    """F1 over all stretches but the first, each estimated from what was before it."""
    from sklearn.model_selection import TimeSeriesSplit

    truth, said = [], []
    for before, stretch in TimeSeriesSplit(FOLDS).split(training.values):
        y = training.truth[before].astype(np.int64)
        if len(np.unique(y)) < 2:
            continue
        columns = _known(training.values[before])
        estimator.fit(training.values[before][:, columns], y)
        said.append(np.asarray(estimator.predict(training.values[stretch][:, columns]), np.float64))
        truth.append(training.truth[stretch])
    return score(np.concatenate(truth), np.concatenate(said)).f1 if truth else float("nan")


# Baselines: what needs no model. None looks at the truth of the minutes that it is asked for.


def majority(parts: Split) -> Array:
    """The most frequent count, always."""
    return np.full(len(parts.holdout), _most_frequent(parts.training.truth))


def last_known(parts: Split) -> Array:
    """What was counted last, at each site, as long as somebody counted."""
    last = dict(zip(parts.training.site, parts.training.truth, strict=True))
    return np.array([last.get(site, parts.training.truth[-1]) for site in parts.holdout.site], np.float64)


def hour_of_day(parts: Split) -> Array:
    """The most frequent count at that hour (UTC)."""
    of, overall = _hours(parts.training.at), _most_frequent(parts.training.truth)
    usual = {hour: _most_frequent(parts.training.truth[of == hour]) for hour in np.unique(of)}
    return np.array([usual.get(hour, overall) for hour in _hours(parts.holdout.at)], np.float64)


BASELINES: Mapping[str, Callable[[Split], Array]] = {
    "the most frequent count": majority,
    "the last count known": last_known,
    "the usual count at that hour": hour_of_day,
}


def a_minute_ago(parts: Split) -> Array:
    """The truth of the minute before. No baseline: who has it needs no estimate. It shows how slowly counts change."""
    found = parts.holdout.truth.copy()
    for site in np.unique(parts.holdout.site):
        own = np.flatnonzero(parts.holdout.site == site)
        found[own[1:]] = parts.holdout.truth[own[:-1]]
    return found


def _most_frequent(truth: Array) -> float:
    counts, n = np.unique(truth, return_counts=True)
    return float(counts[np.argmax(n)])


def _hours(at: Array) -> Array:
    return at.astype("datetime64[h]").astype(np.int64) % 24
