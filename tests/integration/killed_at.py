"""`python -m tests.integration.killed_at WHEN FUNCTION CALL …`: weir with the rest as its arguments, which kills itself
at that point."""

import signal
import sys

from tests.integration.broken_off import Point, break_off
from weir.main import main

if __name__ == "__main__":
    when, function, call, *arguments = sys.argv[1:]
    break_off(Point(when, function, int(call)), signal.SIGKILL)
    sys.argv = ["weir", *arguments]
    main()
