"""What the batch flags as an anomaly: the one list of kinds. etl/kernel.py finds them."""

KINDS: dict[str, str] = {
    "range": "outside its range; the score is the distance to the nearer bound, in the metric's unit",
    "zscore": "more than 5 deviations from the median of the device's values in the folder, the outermost of which say"
    " nothing of the deviation; the score is how many",
    "rate": "changed by more than `max_change` from the value before; the score is the change for each `within`",
    "stuck": "the same value for longer than `stuck_after`; the score is how many seconds the run lasts",
    "unseen": "beyond what the device said of it on the days before, as many as `history`; the score is how far, in the"
    " metric's unit; a run of such values is one",
    "missing": "came after a silence longer than `stale_after`, or three cadences; the score is its seconds",
}
"""Kind → what the value did, and what its score says."""

LEAST_DAYS = 7
"""With values, before anything is `unseen`: a week has its weekend."""
TRIM = 0.01
"""Of the hours before, by their least and by their greatest value: faults of a few hours widen nothing."""
ROOM = 0.1
"""Of what is seen, beyond it: some value is always the greatest so far."""


def with_room(low: float, high: float) -> tuple[float, float]:
    """The limits of what is seen, from its least and its greatest value."""
    return low - ROOM * (high - low), high + ROOM * (high - low)
