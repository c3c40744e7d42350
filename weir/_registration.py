"""Devices of a run whose types do not register them: told of, and written for the registry."""

from collections.abc import Iterable
from pathlib import Path

import typer

from fleet.catalog import Catalog
from fleet.errors import ConfigurationError


def write_registry(path: Path, lines: Iterable[str]) -> str:
    """A CSV file for `weir devices import`, its head first. Returns what to say of it; raises ConfigurationError."""
    found = list(lines)
    try:
        path.write_text("\n".join([*found, ""]), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--registry {path}: {error.strerror}") from None
    return f"{len(found) - 1:,} devices in {path}: weir devices import {path}"


def warn_of_unregistered(to: str, catalog: Catalog, types: Iterable[str]) -> None:
    """By MQTT alone: `--to kafka` goes past those who ask the registry, and by the gateway a device has a token."""
    names = [name for name in types if not catalog.type(name).self_registration]
    if to == "mqtt" and names:
        typer.echo(
            f"weir: {', '.join(names)} do not register their devices themselves: readings of those that are not in the"
            " registry are rejected as unknown_device (weir devices import FILE, or add)", err=True,
        )  # fmt: skip
