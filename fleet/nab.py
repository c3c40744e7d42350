"""The Numenta Anomaly Benchmark's score of a detector: early detections of labelled windows against false alarms.

Lavin and Ahmad, "Evaluating Real-time Anomaly Detection Algorithms: the Numenta Anomaly Benchmark", ICMLA 2015. Each
window counts its best detection by how early it is; one that has none costs; each detection outside costs, less right
after a window. The sum is set between a detector that says nothing (0) and a perfect one (100); it can be below 0.
"""

from collections.abc import Iterable, Sequence
from math import exp
from typing import NamedTuple

PROBATION, PROBATION_ROWS = 0.15, 750
"""What part of a series, and how many rows at most, a detector may learn from before anything counts."""
BEHIND = 3.0
"""So many widths after a window a detection is as false as any."""


class Profile(NamedTuple):
    """What a detection in a window is worth, and what a false one and a missed window cost."""

    true: float = 1.0
    false: float = 0.11
    missed: float = 1.0


STANDARD = Profile()
REWARD_LOW_FP = Profile(false=0.22)
REWARD_LOW_FN = Profile(missed=2.0)

Window = tuple[int, int]
"""First and last row of what is labelled, both in it."""


def probation(rows: int) -> int:
    """How many rows at the beginning of a series do not count."""
    return min(int(PROBATION * rows), PROBATION_ROWS)


def score(detections: Iterable[int], windows: Sequence[Window], rows: int, profile: Profile = STANDARD) -> float:
    """`detections` and `windows` (ascending, apart) by row, of a series of `rows`. Windows that begin, and detections,
    in its probation are left out. Raises ValueError where no window is left."""
    begin = probation(rows)
    counted = [window for window in windows if window[0] >= begin]
    if not counted:
        raise ValueError("no window begins after the probation: there is nothing to detect")
    best = dict.fromkeys(counted, -profile.missed)
    false = 0.0
    for row in sorted({row for row in detections if row >= begin}):
        within = next((window for window in counted if window[0] <= row <= window[1]), None)
        if within is None:
            before = [window for window in counted if window[1] < row]
            false += profile.false * _beyond(row, before[-1] if before else None)
        else:
            best[within] = max(best[within], profile.true * _within(row, within))
    nothing, perfect = -profile.missed * len(counted), profile.true * len(counted)
    return 100 * (sum(best.values()) + false - nothing) / (perfect - nothing)


def _within(row: int, window: Window) -> float:
    """1 at the window's first row, nearly 0 at its last."""
    first, last = window
    return _worth(-(last - row + 1) / (last - first + 1)) / _worth(-1.0)


def _beyond(row: int, window: Window | None) -> float:
    """0 right after the last window, -1 long after it, or where there was none."""
    if window is None:
        return -1.0
    widths = (row - window[1]) / max(1, window[1] - window[0])
    return -1.0 if widths > BEHIND else _worth(widths)


def _worth(widths: float) -> float:
    """1 far before a window's end, 0 there, -1 far after it."""
    return 2 / (1 + exp(5 * widths)) - 1
