"""What a machine must have, checked and named all at once before anything is downloaded. Standard library only."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from stack.cache import CHECKOUT, cache_folder
from stack.conflicts import chosen, conflict_message, conflicts_of

NEEDED_BYTES = 4 * 10**9
"""Environment 1.0 GB, native parts 0.2, cache 2.1 when empty, and room for data."""
KEYRINGS = ("/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp")


def missing(environ: Mapping[str, str], checkout: Path = CHECKOUT, with_ports: bool = False) -> "list[str]":
    """One line for each thing that is missing: what, and what to do about it. Empty when all is there."""
    problems = []
    if sys.platform != "linux":
        return [f"Weir's servers run on Linux, this is {sys.platform}: use a Debian-like machine or container"]
    if not os.access(checkout, os.W_OK):
        problems.append(f"{checkout} cannot be written by this user: use a checkout of your own")
    elif not finished(checkout) and (problem := short_of_disk(checkout)):
        problems.append(problem)
    if not (checkout / "var" / "prefix" / "STAMP").is_file():
        problems += missing_programs(environ)
    if not Path("/usr/share/zoneinfo/UTC").exists():
        problems.append("no time zones in /usr/share/zoneinfo: install tzdata")
    if with_ports and not running(checkout, environ):
        try:
            conflicts = conflicts_of(chosen(remembered(checkout, environ), environ))
            problems += [conflict_message(conflicts)] if conflicts else []
        except ValueError as error:
            problems.append(str(error))
    return problems


def missing_programs(environ: Mapping[str, str]) -> "list[str]":
    own_database = not environ.get("WEIR_DB_URL")
    path = environ.get("PATH")
    absent = [name for name in ("apt-get", "apt-cache", "dpkg-deb", "tar") if not shutil.which(name, path=path)]
    problems = []
    if absent and own_database:
        problems.append(
            f"no {', '.join(absent)} here: PostgreSQL and Mosquitto come as Debian packages (unpacked, not installed);"
            " use a Debian-like machine, or give WEIR_DB_URL (a TimescaleDB of yours) and have mosquitto and"
            " prometheus-alertmanager on the PATH"
        )
    elif absent:
        problems += [
            f"neither {absent[0]} nor {name} here: install {name}"
            for name in ("mosquitto", "prometheus-alertmanager")
            if not shutil.which(name, path=f"{path}:/usr/sbin")
        ]
    elif not any(Path(name).is_file() for name in KEYRINGS):
        problems.append(f"Debian's archive keyring is not here ({KEYRINGS[0]}): install debian-archive-keyring")
    if (
        own_database
        and os.getuid() == 0
        and not (shutil.which("unshare", path=path) or shutil.which("setpriv", path=path))
    ):
        problems.append("PostgreSQL does not run as root: install util-linux (unshare), or run as an ordinary user")
    return problems


def finished(checkout: Path) -> bool:
    return (checkout / ".venv" / "weir.stamp").is_file() and (checkout / "var" / "prefix" / "STAMP").is_file()


def short_of_disk(checkout: Path) -> "str | None":
    for folder in {checkout, cache_folder()}:
        free = shutil.disk_usage(folder).free
        needed = NEEDED_BYTES if folder == checkout else NEEDED_BYTES // 2
        if free < needed:
            told = f"{folder} has {free / 1e9:.1f} GB free and Weir needs {needed / 1e9:.0f}"
            return f"{told}: free some, or move it (the cache: XDG_CACHE_HOME)"
    return None


def home(checkout: Path, environ: Mapping[str, str]) -> Path:
    return Path(environ.get("WEIR_HOME") or checkout / "var")


def running(checkout: Path, environ: Mapping[str, str]) -> bool:
    """Whether this checkout's own stack is up: then its ports are taken by itself."""
    try:
        pid = int((home(checkout, environ) / "run" / "supervisord.pid").read_text())
        return b"supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return False


def remembered(checkout: Path, environ: Mapping[str, str]) -> "dict[str, int]":
    """The ports that an earlier set-up wrote down."""
    try:
        lines = (home(checkout, environ) / "env" / "operator.env").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split("=", 1) for line in lines if line.startswith("WEIR_PORT_"))
    return {key.removeprefix("WEIR_PORT_").lower(): int(value) for key, value in pairs}
