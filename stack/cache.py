"""Downloads, kept by their sha256 in the user's cache folder, so that a second clone downloads nothing.

Standard library only: the bootstrap uses it before anything is installed.
"""

import hashlib
import os
import pwd
import shutil
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


def home_folder() -> Path:
    """The user's home: HOME, or the password database's where HOME is unset or empty."""
    named = os.environ.get("HOME", "")
    if named:
        return Path(named)
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return CHECKOUT / "var" / "home"


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/weir`, else `~/.cache/weir`, else (where neither can be written) `var/cache` in the checkout."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    wanted = (Path(base) if base else home_folder() / ".cache") / "weir"
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        if os.access(wanted, os.W_OK | os.X_OK):
            return wanted
    except OSError:
        pass
    fallback = CHECKOUT / "var" / "cache"
    fallback.mkdir(parents=True, exist_ok=True)
    return fallback


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def stored(sha256: str) -> Path | None:
    """The cached file with this checksum, or None. A file that was damaged since is dropped."""
    path = cache_folder() / "files" / sha256
    if not path.is_file():
        return None
    if sha256_of(path) != sha256:
        path.unlink()
        return None
    return path


def store(path: Path, sha256: str) -> Path:
    """Move a checked download into the cache; atomic, so two set-ups at once do no harm."""
    folder = cache_folder() / "files"
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{sha256}.{os.getpid()}"
    shutil.copyfile(path, partial)
    partial.replace(folder / sha256)
    path.unlink()
    return folder / sha256
