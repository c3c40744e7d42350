"""When to try again what failed, and what is wrong meanwhile."""

import logging
import time
from datetime import timedelta

from streaming.service import BACKOFF_SECONDS

RETRY_FIRST = timedelta(seconds=1)
RETRY_LONGEST = timedelta(minutes=5)


class Backoff:
    """Pauses grow with each failure in a row. `problem` is for /ready: empty when nothing is wrong."""

    def __init__(self, log: logging.Logger):
        self.problem = "starting"
        self.failures = 0
        self.again_at = 0.0
        """By time.monotonic()."""
        self._log = log

    def failed(self, problem: str) -> float:
        """Says so, and returns the seconds until the next try."""
        seconds = BACKOFF_SECONDS[min(self.failures, len(BACKOFF_SECONDS) - 1)]
        self.failures += 1
        self.again_at = time.monotonic() + seconds
        self.problem = problem
        self._log.error("again in %.1f s: %s", seconds, problem)
        return seconds

    def well(self) -> None:
        self.failures, self.problem = 0, ""


def pause(failures: int, jitter: float, longest: timedelta = RETRY_LONGEST) -> timedelta:
    """After so many failures in a row, from 1: doubled each time, less up to half of it. `jitter` is in [0, 1)."""
    whole = min(RETRY_FIRST * 2 ** min(failures - 1, 20), longest)
    return whole * (1 - jitter / 2)
