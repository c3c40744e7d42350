"""`make test`: the end-to-end tests beside all others, which run in two processes; each of the three has servers of its
own, and waits for half of its time, for timeouts and for servers to come up. Arguments go to both of pytest's runs."""

import subprocess
import sys
from contextlib import suppress

from tests.conftest import TEST_HOMES, end_left_behind

OTHERS = ("tests/integration", "tests/oracle", "tests/contract", "tests/unit")
"""What waits most comes first: the rest fills what is left of the cores."""
TWO = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
"""Each worker has servers of its own, and takes the next file when it is done with one."""
LOG = TEST_HOMES / "e2e.log"


def session(*arguments: str, **output: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "pytest", *sys.argv[1:], *arguments], **output)  # type: ignore[call-overload]


def ended(process: subprocess.Popen[bytes]) -> int:
    """Its exit code. An interrupt has reached it too, and it takes its servers down."""
    while True:
        with suppress(KeyboardInterrupt):
            return process.wait()


def main() -> None:
    TEST_HOMES.mkdir(parents=True, exist_ok=True)
    print(f"The end-to-end tests run beside these; what they say follows, and stands in {LOG}.", flush=True)
    with LOG.open("wb") as log:
        # One cache of what failed last is enough.
        e2e = session("-p", "no:cacheprovider", "tests/e2e", stdout=log, stderr=subprocess.STDOUT)
        codes = [ended(session(*TWO, *OTHERS)), ended(e2e)]
    end_left_behind()  # xdist ends its workers hard at an interrupt
    print(LOG.read_text(encoding="utf-8", errors="replace"))
    sys.exit(max(codes))


if __name__ == "__main__":
    main()
