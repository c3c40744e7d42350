"""What two readings of a device have in common that are the same one: event time, seq or what stands for it, metrics.

64 bits, the same in every process: sums of products with odd numbers, modulo 2^64.
"""

from typing import Any

import numpy as np

from fleet.text import Bools, Ints

ANONYMOUS = 0
"""Of a reading that has no identity: it takes its place among the last ones, and equals none."""
_TIME, _SAID, _NAMES = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_INVENTED = 0x27D4EB2F165667C5
_HALF, _WHOLE = 1 << 63, 1 << 64


def identity(time_us: int, said: int, names: int, invented: bool) -> int:
    """`said`: seq, or with `invented` what stands for it; `names` stands for the metrics."""
    key = (time_us * _TIME + said * _SAID + names * _NAMES + (_INVENTED if invented else 0)) % _WHOLE
    return (key - _WHOLE if key >= _HALF else key) or 1


def identities(times_us: Ints, said: Ints, names: Any, invented: Bools) -> Ints:
    """The same of many."""
    keys = times_us.view(np.uint64) * np.uint64(_TIME) + said.view(np.uint64) * np.uint64(_SAID)
    with np.errstate(over="ignore"):
        keys += np.asarray(names, np.int64).view(np.uint64) * np.uint64(_NAMES)
    if invented.any():
        keys += np.where(invented, np.uint64(_INVENTED), np.uint64(0))
    found = keys.view(np.int64)
    found[found == ANONYMOUS] = 1
    return found
