"""`make test`: all tests in two processes, each of which has servers of its own and takes the next file when it is
done with one; the end-to-end tests are one file to them, and go first. Arguments go to pytest."""

import subprocess
import sys
from contextlib import suppress

from tests.conftest import end_left_behind

ALL = ("tests/e2e", "tests/integration", "tests/oracle", "tests/contract", "tests/unit")
"""What takes or waits longest comes first: the rest fills what is left of the cores."""
TWO = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")


def main() -> None:
    process = subprocess.Popen([sys.executable, "-m", "pytest", *sys.argv[1:], *TWO, *ALL])
    while process.returncode is None:
        with suppress(KeyboardInterrupt):  # it has reached pytest too, which takes its servers down
            process.wait()
    end_left_behind()  # xdist ends its workers hard at an interrupt
    sys.exit(process.returncode)


if __name__ == "__main__":
    main()
