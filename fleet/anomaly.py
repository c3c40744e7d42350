"""What the batch flags as an anomaly: the one list of kinds. etl/kernel.py finds them."""

KINDS: dict[str, str] = {
    "range": "outside its range; the score is the distance to the nearer bound, in the metric's unit",
    "zscore": "more than 5 deviations from the median of the device's values in the folder, the outermost of which say"
    " nothing of the deviation; the score is how many",
    "rate": "changed by more than `max_change` from the value before; the score is the change for each `within`",
    "stuck": "the same value for longer than `stuck_after`; the score is how many seconds the run lasts",
    "missing": "came after a silence longer than `stale_after`, or three cadences; the score is its seconds",
}
"""Kind → what the value did, and what its score says."""
