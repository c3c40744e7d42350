"""One clock for all that a make target prints: each line begins with the seconds since make itself began.

Standard library only: the bootstrap uses it before anything is installed.
"""

import os
import time

BEGAN = float(os.environ.get("CLOCK_OF_WEIR") or time.time())
"""Epoch seconds; the Makefile hands on its own start, as a target is several processes."""


def say(text: str) -> None:
    print(f"{time.time() - BEGAN:6.1f} s  {text}", flush=True)
