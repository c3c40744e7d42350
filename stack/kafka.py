"""The Kafka broker's storage, formatted once with its first users."""

import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from fleet.errors import ConfigurationError
from stack import pins
from stack.credentials import scram_argument, write_private
from stack.layout import Layout
from stack.prefix import Prefix
from stack.programs import jvm


def argument_file(arguments: Iterable[str | Path]) -> str:
    """A command line for `java @FILE`: the launcher takes the main class and all that follows it from there, too."""
    words = (str(argument).replace("\\", "\\\\").replace('"', '\\"') for argument in arguments)
    return "".join(f'"{word}"\n' for word in words)


def format_arguments(layout: Layout, prefix: Prefix, secrets: Mapping[str, str]) -> str:
    """What java is to read: format the storage, with the two users that may do all."""
    return argument_file([
        *jvm(prefix, layout, "128m")[1:], "-XX:TieredStopAtLevel=1", "-cp", f"{prefix.kafka_jars}/*",
        "kafka.tools.StorageTool", "format", "--standalone",
        f"--cluster-id={secrets['KAFKA_CLUSTER_ID']}",  # in one word: one in 64 begins with a hyphen
        "-c", layout.config / "server.properties",
        "--add-scram", scram_argument("broker", secrets["KAFKA_BROKER"]),
        "--add-scram", scram_argument("admin", secrets["KAFKA_ADMIN"]),
    ])  # fmt: skip


FORMATTED_BY = "kafka-version"
"""Beside the storage: the version that formatted it."""
UNSAID = "4.3.1"
"""What formatted storage that does not say by what."""


def initialise(layout: Layout, prefix: Prefix, secrets: Mapping[str, str]) -> None:
    """Format the storage once. Raises ConfigurationError.

    What a command line says is for every user of the machine to read, and a salted password serves to log in as well as
    the password: java reads its arguments from a file that is ours alone.
    """
    folder = layout.data / "kafka"
    if _is_formatted(folder):
        return
    shutil.rmtree(folder, ignore_errors=True)
    (layout.data / FORMATTED_BY).write_text(f"{version()}\n")
    told = layout.tmp / "kafka-format.args"
    write_private(told, format_arguments(layout, prefix, secrets))
    try:
        done = subprocess.run([prefix.java, f"@{told}"], capture_output=True, text=True, cwd=layout.home)
    finally:
        told.unlink()
    if done.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        raise ConfigurationError(
            f"Kafka's storage could not be formatted:\n{(done.stdout + done.stderr)[-1500:].strip()}"
        )


def version() -> str:
    """Of the broker that runs."""
    return next(jar.version for jar in pins.read().jars_in("kafka") if jar.artifact == "kafka-clients")


def check_format(layout: Layout) -> None:
    """Raises ConfigurationError for storage of a newer Kafka, at which this one would end with a stack trace."""
    folder, formatted_by = layout.data / "kafka", layout.data / FORMATTED_BY
    if not _is_formatted(folder):
        return
    by = (formatted_by.is_file() and formatted_by.read_text().strip()) or UNSAID
    theirs, ours = (tuple(map(int, one.split(".")[:2])) for one in (by, version()))
    if theirs > ours:
        raise ConfigurationError(
            f"{folder} was made by Kafka {by}, and Kafka {version()} cannot read it: stay with the checkout that made"
            " it, or begin anew with `make clean`, which deletes lake, warehouse and secrets, too (a lake or a database"
            " of your own is for you to empty)"
        )


def _is_formatted(folder: Path) -> bool:
    return (folder / "bootstrap.checkpoint").is_file() or (folder / "meta.properties").is_file()
