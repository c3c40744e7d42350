"""The Kafka broker's storage, formatted once with its first users."""

import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from fleet.errors import ConfigurationError
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


def initialise(layout: Layout, prefix: Prefix, secrets: Mapping[str, str]) -> None:
    """Format the storage once. What a command line says is for every user of the
    machine to read, and a salted password serves to log in as well as the password: java reads its arguments from a
    file that is ours alone."""
    folder = layout.data / "kafka"
    if (folder / "bootstrap.checkpoint").is_file() or (folder / "meta.properties").is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)
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
