"""What a running stack was started with: what may change under it, and what may not."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from fleet.errors import ConfigurationError
from stack.credentials import write_private
from stack.layout import Layout
from stack.ports import Ports

FIXED = ("WEIR_LAKE_URI", "WEIR_SPARK_MASTER")
"""Where readings lie and where jobs run: a half of the stack on the old and a half on the new would split the data."""


def refuse_changes(running: Ports, ports: Ports, kept_then: Mapping[str, str], kept: Mapping[str, str]) -> None:
    """Raises ConfigurationError naming every port and setting that is not the running stack's."""
    there, asked = asdict(running), asdict(ports)
    changes = [f"{name} port {port}, not {asked[name]}" for name, port in there.items() if asked[name] != port]
    changes += [
        f"{name}={kept_then.get(name, '')!r}, not {kept.get(name, '')!r}"
        for name in FIXED
        if kept_then.get(name, "") != kept.get(name, "")
    ]
    if changes:
        raise ConfigurationError(f"the stack is up with {', '.join(changes)}: `make down` first, then ask for these")


def fingerprint(types: Path) -> str:
    """Of the device types' files: their names and what is in them."""
    digest = hashlib.sha256()
    for path in sorted(types.glob("*.yaml")):
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def remembered(layout: Layout) -> str:
    """The fingerprint of the types that the running programs know; empty when none is written down."""
    path = layout.run / "types.sha256"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def remember(layout: Layout, types: str) -> None:
    write_private(layout.run / "types.sha256", types + "\n")
