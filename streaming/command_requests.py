"""What a person asks of a device, checked before it is kept: which device is meant, and whether its type can do it.

The command line and the HTTP routes ask by this alike.
"""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from connections.warehouse import Warehouse
from fleet.catalog import Catalog
from fleet.command import command_of, wanted_values
from fleet.command_state import Request, Via
from fleet.errors import CommandError
from fleet.nearest import did_you_mean, nearest
from fleet.spec import DeviceType
from streaming.command_table import ask

ID_CHARACTERS = 64
TEXT_CHARACTERS = 500
NAMES = 10_000
"""So many device ids are looked through for one that was meant."""


def request(
    warehouse: Warehouse,
    catalog: Catalog,
    device: str,
    command: str,
    args: Mapping[str, float],
    *,
    via: Via,
    by: str,
    why: str = "",
    type_name: str | None = None,
    command_id: str | None = None,
) -> tuple[str, bool]:
    """(the command's id, whether it is new). Raises CommandError naming the nearest device, command or argument."""
    if command_id is not None and not (0 < len(command_id) <= ID_CHARACTERS and command_id.isprintable()):
        raise CommandError(f"id {command_id[:80]!r}: 1 to {ID_CHARACTERS} characters that can be printed")
    for name, text in (("by", by), ("why", why)):
        if len(text) > TEXT_CHARACTERS or not text.isprintable():
            raise CommandError(f"{name}: at most {TEXT_CHARACTERS} characters that can be printed")
    spec, site = meant(warehouse, catalog, device, type_name)
    wanted_values(spec, command, args)
    made = Request(
        command_id=command_id or uuid.uuid4().hex, system=spec.system, type=spec.type, device_id=device, site=site,
        command=command, args=dict(args), via=via, by=by, why=why,
        expires_at=datetime.now(UTC) + command_of(spec, command).expires,
    )  # fmt: skip
    with warehouse.transaction() as connection:
        return made.command_id, ask(connection, made)


def meant(warehouse: Warehouse, catalog: Catalog, device: str, type_name: str | None) -> tuple[DeviceType, str]:
    """The type and the site of a device in service. Raises CommandError."""
    if type_name is not None and type_name not in catalog.types:
        raise CommandError(f"no device type {type_name[:80]!r}{nearest(type_name, catalog.types)}")
    types = [type_name] if type_name else list(catalog.types)
    rows = warehouse.rows(
        "SELECT type, site, retired_at FROM devices WHERE device_id = :device AND type = ANY(:types) ORDER BY type",
        device=device if device.isprintable() else "", types=types,
    )  # fmt: skip
    there = [row for row in rows if row["retired_at"] is None]
    obeying = [row for row in there if catalog.types[row["type"]].commands] or there
    if len(obeying) > 1:
        names = ", ".join(row["type"] for row in obeying)
        raise CommandError(f"{device} is one of {names}: say which with --type")
    if not obeying:
        raise CommandError(_none(warehouse, device, types, rows))
    return catalog.types[obeying[0]["type"]], obeying[0]["site"]


def _none(warehouse: Warehouse, device: str, types: list[str], retired: list[dict[str, Any]]) -> str:
    if retired:
        row = retired[0]
        since = row["retired_at"].astimezone(UTC)
        return f"{row['type']} {device} is retired since {since:%Y-%m-%d %H:%M:%S} UTC"
    found = warehouse.rows(
        "SELECT device_id FROM devices WHERE type = ANY(:types) AND retired_at IS NULL ORDER BY device_id LIMIT :limit",
        types=types, limit=NAMES,
    )  # fmt: skip
    near = did_you_mean(device, [row["device_id"] for row in found])
    of_type = f" --type {types[0]}" if len(types) == 1 else ""
    return f"no device {device[:80]!r}{near or f'; `weir devices list{of_type}` shows those there are'}"
