"""`make env`: from a bare Python to the locked environment in `.venv`. Standard library only.

Run by any Python 3; the work is done by the newest fit one (3.11 to 3.13), or the one that PYTHON names. The second
run sees that nothing changed and does nothing. Downloads are kept in the user's cache folder.
"""

import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
CHECKOUT = os.path.dirname(HERE)
FIT = ("3.13", "3.12", "3.11")
ASK = "import sys, ssl, sqlite3, ctypes, zlib, bz2, lzma, venv; print('%d.%d' % sys.version_info[:2]); print(sys.executable)"


def fit_version(python):
    """(version, executable) of a Python with all the modules that Weir needs, else None."""
    try:
        told = subprocess.run([python, "-c", ASK], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = told.stdout.decode().split("\n")
    if told.returncode or words[0] not in FIT:
        return None
    return words[0], words[1]


def choose():
    """The Python to use. Exits with one clear line when there is none."""
    named = os.environ.get("PYTHON")
    if named:
        found = fit_version(named)
        if not found:
            sys.exit("weir: PYTHON=%s is not a complete Python 3.11, 3.12 or 3.13" % named)
        return found
    present = fit_version(os.path.join(CHECKOUT, ".venv", "bin", "python"))
    if present:
        return present
    for name in ["python" + version for version in FIT] + ["python3", sys.executable]:
        found = fit_version(name)
        if found:
            return found
    sys.exit(
        "weir: no Python 3.11, 3.12 or 3.13 with ssl, sqlite3, ctypes and lzma here (this is %s);"
        " install one, or name it: PYTHON=/path/to/python3.11" % sys.version.split()[0]
    )


if __name__ == "__main__":
    if sys.path and os.path.abspath(sys.path[0]) == HERE:
        sys.path[0] = CHECKOUT
    version, executable = choose()
    if "%d.%d" % sys.version_info[:2] != version or os.environ.get("PYTHON"):
        command = [executable, "-c", "import sys; sys.path.insert(0, %r); sys.argv[0] = 'bootstrap';"
                   " from stack.environment import main; main()" % CHECKOUT]  # fmt: skip
        os.execv(executable, command + sys.argv[1:])
    from stack.environment import main

    main()
