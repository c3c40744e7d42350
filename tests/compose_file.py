"""docker/compose.yaml as Compose reads it: variables resolved, services with their mounts."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from stack.cache import CHECKOUT

PATH = CHECKOUT / "docker" / "compose.yaml"
CONFIG = "/etc/weir"


def read() -> Any:
    return yaml.safe_load(PATH.read_text(encoding="utf-8"))


def resolved(value: Any, environ: Mapping[str, str] | None = None) -> Any:
    """`${NAME:-default}` and `$$`. Raises KeyError for a variable that has no default and is not in `environ`."""
    environ = environ or {}
    if isinstance(value, dict):
        return {key: resolved(item, environ) for key, item in value.items()}
    if isinstance(value, list):
        return [resolved(item, environ) for item in value]
    if not isinstance(value, str):
        return value

    def replace(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return environ[found[1]] if found[2] is None or found[1] in environ else found[2]

    return re.sub(r"\$\$|\$\{(\w+)(?::-([^}]*))?\}", replace, value)


def mounts(service: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """(source, target, may be written) of each volume and folder."""
    rows = []
    for line in service.get("volumes", []):
        source, target, *mode = line.split(":")
        rows.append((source, target, mode != ["ro"]))
    return rows


def configuration_of(service: Mapping[str, Any]) -> str | None:
    """The folder of `weir compose configure` that the service sees at /etc/weir."""
    found = [source for source, target, _ in mounts(service) if target == CONFIG]
    return found[0].removesuffix("-config") if found else None


def words(command: Any) -> list[str]:
    return command.split() if isinstance(command, str) else list(command or [])


def folder(source: str) -> Path:
    return (PATH.parent / source).resolve()
