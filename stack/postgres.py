"""PostgreSQL's data folder, and the way off uid 0."""

import os
import secrets
import shutil
import subprocess
from pathlib import Path

from fleet.errors import ConfigurationError
from stack.layout import Layout
from stack.prefix import Prefix

NOBODY = 65534
UNSHARE = ("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}")
INITDB = (
    "--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C",
)  # fmt: skip
SETPRIV = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


def drop_root(prefix: Prefix, uid: int | None = None) -> tuple[str, ...]:
    """The words before a command that PostgreSQL accepts: none for an ordinary user.

    For root a user namespace of its own first, because it leaves the files root's and so works inside a home that is
    closed to others; else another uid. Raises ConfigurationError when neither can run the program.
    """
    if (os.getuid() if uid is None else uid) != 0:
        return ()
    program = str(prefix.postgres_bin / "postgres")
    for words in (UNSHARE, SETPRIV):
        if shutil.which(words[0]) is None:
            continue
        if subprocess.run([*words, program, "--version"], capture_output=True).returncode == 0:
            return words
    raise ConfigurationError(
        "PostgreSQL does not run as root, user namespaces are off here, and another user cannot reach"
        f" {prefix.root}: move the checkout to where others may enter (chmod o+x on its folders), run as an ordinary"
        " user, or give WEIR_DB_URL"
    )


def hand_over(layout: Layout, drop: tuple[str, ...]) -> None:
    """With another uid, the data and configuration have to be that user's."""
    if drop[:1] == SETPRIV[:1]:
        for folder, _, files in os.walk(layout.postgres):
            for name in (".", *files):
                os.chown(Path(folder) / name, NOBODY, NOBODY)


def initialise(layout: Layout, prefix: Prefix, drop: tuple[str, ...], superuser_password: str) -> None:
    """Make the data folder once. An attempt that broke off is made again."""
    data = layout.postgres / "data"
    if (data / "PG_VERSION").is_file():
        return
    fresh = layout.postgres / "data.new"
    shutil.rmtree(fresh, ignore_errors=True)
    password_file = layout.postgres / f"password-{secrets.token_hex(4)}"
    handle = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(handle, superuser_password.encode())
    os.close(handle)
    try:
        hand_over(layout, drop)
        done = subprocess.run(
            [*drop, prefix.postgres_bin / "initdb", "-D", fresh, "-U", "postgres", "--pwfile", password_file,
             *INITDB, "--no-sync", "--no-instructions"],
            capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "TZ": "UTC"}, cwd=layout.postgres,
        )  # fmt: skip
    finally:
        password_file.unlink()
    if done.returncode:
        raise ConfigurationError(f"initdb failed:\n{(done.stdout + done.stderr).strip()}")
    fresh.rename(data)
