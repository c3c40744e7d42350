"""Whether a model is better than another by more than noise: both are asked for the same minutes, whose truth neither
has seen, and the difference of their scores is resampled in blocks. Pure.

The score is F1, the mean over the counts that occur: a room is mostly empty, so that "nobody" is right four times in
five and says nothing. Minutes are no independent draws: who is there stays, and a model that is wrong about a minute is
wrong about the next. Resampled one by one they would make any difference look certain. Therefore whole blocks are
drawn, and both models are scored on the same ones (a paired bootstrap); blocks in which something happened and those
with the usual count alone are drawn apart, as many of each as there are. Else a resample in twenty would have nobody in
it where few blocks have, and tell nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from fleet.duration import format_duration

BLOCK = timedelta(hours=2)
"""As long as errors hang together: on the recording their autocorrelation is 0.97 a minute apart, 0.46 an hour apart,
and 0 at two hours."""
RESAMPLES = 4000
CONFIDENCE = 0.95
MIN_BLOCKS, MIN_EVENTFUL = 8, 4
"""Of fewer a resample says too little. Eventful: with another count than the most frequent one."""


@dataclass(frozen=True)
class Score:
    """Of the estimates of some minutes. `confusion` has a row a true count, a column an estimate, both in the order of
    `counts`; `mean_error` is in people (or whatever the target counts)."""

    minutes: int
    accuracy: float
    f1: float
    mean_error: float
    counts: tuple[int, ...]
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Comparison:
    """Ours less theirs in F1, and between what it lies in 90 of 100 resamples: it is below `low` in 5 of them."""

    against: str
    difference: float
    low: float
    high: float
    minutes: int
    blocks: int

    @property
    def better(self) -> bool:
        return self.low > 0

    def __str__(self) -> str:
        return f"{self.difference:+.3f} F1 against {self.against} ({self.low:+.3f} to {self.high:+.3f})"


def score(truth: np.ndarray, estimate: np.ndarray) -> Score:
    counts = _counts(truth, estimate)
    confusion = _confusions(truth, estimate, counts, np.zeros(len(truth), np.int64))[0]
    return Score(
        len(truth),
        float(np.mean(truth == estimate)),
        float(_f1(confusion)),
        float(np.mean(np.abs(truth - estimate))),
        tuple(int(c) for c in counts),
        tuple(tuple(int(n) for n in row) for row in confusion),
    )


def blocks_of(site: np.ndarray, at: np.ndarray, length: timedelta = BLOCK) -> np.ndarray:
    """The number of each minute's block: a stretch of that length at one site. `at` is datetime64."""
    if not len(at):
        return np.empty(0, np.int64)
    stretch = at.astype("datetime64[s]").astype(np.int64) // int(length.total_seconds())
    _, sites = np.unique(site, return_inverse=True)
    _, found = np.unique(np.stack([sites, stretch]), axis=1, return_inverse=True)
    return np.asarray(found).reshape(-1)


def compare(truth: np.ndarray, ours: np.ndarray, theirs: np.ndarray, block: np.ndarray, against: str) -> Comparison:
    """The same arguments always give the same figures."""
    counts = _counts(truth, ours, theirs)
    of_ours, of_theirs = (_confusions(truth, estimate, counts, block) for estimate in (ours, theirs))
    n, eventful, rng = len(of_ours), _eventful(truth, block), np.random.default_rng(0)
    drawn = np.zeros((RESAMPLES, n), np.int64)
    for those in (np.flatnonzero(eventful), np.flatnonzero(~eventful)):
        if len(those):
            drawn[:, those] = rng.multinomial(len(those), np.full(len(those), 1 / len(those)), RESAMPLES)
    differences = _f1(np.tensordot(drawn, of_ours, 1)) - _f1(np.tensordot(drawn, of_theirs, 1))
    low, high = np.quantile(differences, (1 - CONFIDENCE, CONFIDENCE))
    difference = _f1(of_ours.sum(axis=0)) - _f1(of_theirs.sum(axis=0))
    return Comparison(against, float(difference), float(low), float(high), len(truth), n)


def verdict(comparisons: Iterable[Comparison]) -> tuple[bool, str]:
    """Whether it is better than each, and why (not) in words."""
    found: Sequence[Comparison] = list(comparisons)
    failed = [c for c in found if not c.better]
    if failed:
        return False, "not better by more than noise: " + "; ".join(map(str, failed))
    return True, "better by more than noise: " + "; ".join(map(str, found))


def undecidable(truth: np.ndarray, block: np.ndarray) -> str:
    """Why these minutes decide nothing between two models; empty where they do."""
    eventful = _eventful(truth, block)
    if len(eventful) >= MIN_BLOCKS and eventful.sum() >= MIN_EVENTFUL:
        return ""
    return (
        f"{len(eventful)} stretches of {format_duration(BLOCK)}, {eventful.sum()} of them with other counts than the"
        f" usual one, where {MIN_BLOCKS} and {MIN_EVENTFUL} are needed"
    )


def _eventful(truth: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Of each block, whether any count of it is another than the most frequent one of all."""
    counts, n = np.unique(truth, return_counts=True)
    unusual = truth != counts[n.argmax()] if len(counts) else np.empty(0, bool)
    return np.bincount(block, unusual, minlength=int(block.max(initial=-1)) + 1) > 0


def _counts(*values: np.ndarray) -> np.ndarray:
    return np.unique(np.concatenate(values)).astype(np.int64)


def _confusions(truth: np.ndarray, estimate: np.ndarray, counts: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Of each block: [block, truth, estimate]."""
    found = np.zeros((int(block.max(initial=0)) + 1, len(counts), len(counts)), np.int64)
    np.add.at(found, (block, np.searchsorted(counts, truth), np.searchsorted(counts, estimate)), 1)
    return found


def _f1(confusion: np.ndarray) -> np.ndarray:
    """[…, truth, estimate] → […]: the mean over the counts that truly occur. 2·hits / (true + estimated) is the
    harmonic mean of precision and recall."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, estimated = confusion.sum(axis=-1), confusion.sum(axis=-2)
    each = 2 * hits / np.maximum(true + estimated, 1)
    return (each * (true > 0)).sum(axis=-1) / np.maximum((true > 0).sum(axis=-1), 1)
