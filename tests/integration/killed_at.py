"""`python -m tests.integration.killed_at WHEN FUNCTION CALL SIGNAL …`: weir with the rest as its arguments, which sends
itself the signal at that point."""

import sys

from tests.integration.broken_off import Point, break_off
from weir.main import main

if __name__ == "__main__":
    when, function, call, number, *arguments = sys.argv[1:]
    break_off(Point(when, function, int(call)), int(number))
    sys.argv = ["weir", *arguments]
    main()
