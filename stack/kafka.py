"""The Kafka broker's storage, formatted once with its first users."""

import shutil
import subprocess
from collections.abc import Mapping

from fleet.errors import ConfigurationError
from stack.credentials import scram_argument
from stack.layout import Layout
from stack.prefix import Prefix
from stack.programs import jvm


def initialise(layout: Layout, prefix: Prefix, secrets: Mapping[str, str]) -> None:
    folder = layout.data / "kafka"
    if (folder / "bootstrap.checkpoint").is_file() or (folder / "meta.properties").is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)
    command = [
        *jvm(prefix, layout, "128m"), "-XX:TieredStopAtLevel=1", "-cp", f"{prefix.kafka_jars}/*",
        "kafka.tools.StorageTool", "format", "--standalone", "-t", secrets["KAFKA_CLUSTER_ID"],
        "-c", layout.config / "server.properties",
        "--add-scram", scram_argument("broker", secrets["KAFKA_BROKER"]),
        "--add-scram", scram_argument("admin", secrets["KAFKA_ADMIN"]),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=layout.home)
    if done.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        raise ConfigurationError(
            f"Kafka's storage could not be formatted:\n{(done.stdout + done.stderr)[-1500:].strip()}"
        )
