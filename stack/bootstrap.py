"""`make env`: from a bare Python to the locked environment in `.venv`. Standard library only.

Run by any Python 3; the work is done by the newest fit one (3.11 to 3.13), or the one that PYTHON names. The second
run sees that nothing changed and does nothing. Downloads are kept in the user's cache folder.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent
FIT = ("3.13", "3.12", "3.11")
ASK = (
    "import sys, ssl, sqlite3, ctypes, zlib, bz2, lzma, venv;"
    "print('{}.{}'.format(*sys.version_info)); print(sys.executable)"
)
RUN = "import sys; sys.path.insert(0, {!r}); sys.argv[0] = 'bootstrap'; from stack.environment import main; main()"


def fit_version(python: str) -> "tuple[str, str] | None":
    """(version, executable) of a Python with all the modules that Weir needs, else None."""
    try:
        told = subprocess.run([python, "-c", ASK], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = told.stdout.decode().split("\n")
    if told.returncode or words[0] not in FIT:
        return None
    return words[0], words[1]


def choose() -> "tuple[str, str]":
    """The Python to use. Exits with one clear line when there is none."""
    named = os.environ.get("PYTHON")
    if named:
        found = fit_version(named)
        if not found:
            sys.exit(f"weir: PYTHON={named} is not a complete Python 3.11, 3.12 or 3.13")
        return found
    present = fit_version(str(CHECKOUT / ".venv" / "bin" / "python"))
    if present:
        return present
    for name in ["python" + version for version in FIT] + ["python3", sys.executable]:
        found = fit_version(name)
        if found:
            return found
    sys.exit(
        "weir: no Python 3.11, 3.12 or 3.13 with ssl, sqlite3, ctypes and lzma here"
        f" (this is {sys.version.split()[0]}); install one, or name it: PYTHON=/path/to/python3.11"
    )


if __name__ == "__main__":
    if sys.path and Path(sys.path[0]).resolve() == HERE:
        sys.path[0] = str(CHECKOUT)
    version, executable = choose()
    if "{}.{}".format(*sys.version_info) != version or os.environ.get("PYTHON"):
        os.execv(executable, [executable, "-c", RUN.format(str(CHECKOUT)), *sys.argv[1:]])  # noqa: S606
    from stack.environment import main

    main()
