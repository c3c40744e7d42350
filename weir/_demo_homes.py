"""The demo's homes: their devices in the registry, how long they live, and what is asked of a lamp of theirs."""

import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from connections.warehouse import Warehouse
from fleet.catalog import Catalog
from fleet.errors import Unavailable, WeirError
from fleet.settings import CHECKOUT, Settings
from simulators.household import SYSTEM, registry_lines
from streaming.command_requests import request

HOMES = 3
LONGEST_SECONDS = 3600.0
"""Of event time. Each home has 28 devices, so that an hour at EVERY makes 20,160 messages."""
EVERY = "15s"
"""The devices' cadence is 5 s, and three that do not come are a silence."""
APART_SECONDS = 60.0
"""Between a demo's homes and those of the next: what a lamp says twice of one moment would be one reading."""
FAULTS = ("out_of_range=0.004,metric=temperature",)
LAMP, PERCENT = "home-1-living-lamp", 40
KNOWN_SECONDS = 60
POLL_SECONDS = 0.2


def arguments(heard_before: datetime | None, seconds: float) -> tuple[list[str], float]:
    """Of `weir`, and the minutes of event time: at most an hour that ends `seconds` from now. It begins after what is
    there already."""
    span = LONGEST_SECONDS
    if heard_before is not None:
        since = (datetime.now(UTC) - heard_before).total_seconds()
        span = min(span, max(seconds, since + seconds - APART_SECONDS))
    told = ["--homes", str(HOMES), "--every", EVERY, "--duration", f"{span:.0f}s", "--speed", str(span / seconds)]
    return ["simulate", SYSTEM, *told, *(part for fault in FAULTS for part in ("--fault", fault))], span / 60


def register_homes(settings: Settings, file: Path, environ: Mapping[str, str]) -> None:
    """Their devices, those that are not registered, by `weir devices import`; returns when the bridge knows of it.

    Raises WeirError where the registry refuses them, Unavailable."""
    warehouse = Warehouse.of(settings)
    try:
        rows = warehouse.rows(
            "SELECT type, device_id FROM devices WHERE system = :system AND retired_at IS NULL", system=SYSTEM
        )
        known = {(row["type"], row["device_id"]) for row in rows}
        head, *lines = registry_lines(HOMES)
        if not (new := [line for line in lines if tuple(line.split(",")[:2]) not in known]):
            return
        file.write_text("\n".join([head, *new, ""]), encoding="utf-8")
        command = [sys.executable, "-m", "weir.main", "devices", "import", str(file)]
        done = subprocess.run(
            command, cwd=CHECKOUT, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode:
            raise WeirError(f"the homes' devices were not registered: {done.stderr.strip()[-2000:]}")
    finally:
        warehouse.close()
    until_the_bridge_knows(settings)


def until_the_bridge_knows(settings: Settings) -> None:
    """Of the registry's last change: what devices say that it does not know it rejects. Raises Unavailable."""
    warehouse = Warehouse.of(settings)
    try:
        (row,) = warehouse.rows("SELECT revision FROM registry")
    finally:
        warehouse.close()
    revision = row["revision"]
    url = f"http://127.0.0.1:{settings.port_bridge_metrics}/metrics"
    deadline, at = time.monotonic() + KNOWN_SECONDS, "nothing"
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                found = re.search(r"^weir_bridge_registry_revision (\S+)$", answer.read().decode(), re.MULTILINE)
        except OSError as error:
            raise Unavailable(f"the bridge's {url} does not answer: {error}; see `make logs S=bridge`") from None
        if found and float(found[1]) >= revision:
            return
        at = found[1] if found else at
        if time.monotonic() > deadline:
            raise Unavailable(f"the bridge knows revision {at} of the registry, not {revision}: `make logs S=bridge`")
        time.sleep(POLL_SECONDS)


def heard(settings: Settings) -> datetime | None:
    """The time of the lamp's last reading that is live."""
    warehouse = Warehouse.of(settings)
    try:
        (row,) = warehouse.rows(
            "SELECT max(event_time) AS at FROM readings"
            " WHERE type = 'lamp' AND metric = 'brightness' AND device_id = :lamp",
            lamp=LAMP,
        )
    finally:
        warehouse.close()
    at: datetime | None = row["at"]
    return at


def wait_until_heard(settings: Settings, before: datetime | None, seconds: float) -> None:
    """Who does not speak yet may not listen either, and MQTT keeps no command for who never did. Not for longer than
    `seconds`: how the command ends shows what is wrong."""
    deadline = time.monotonic() + seconds
    while heard(settings) == before and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def dim(settings: Settings, catalog: Catalog) -> str:
    """The command's id. Raises CommandError, Unavailable."""
    warehouse = Warehouse.of(settings)
    try:
        args = {"level": float(PERCENT)}
        asked = request(warehouse, catalog, LAMP, "dim", args, via="cli", by="demo", why="to show it", type_name="lamp")
    finally:
        warehouse.close()
    return asked[0]


def became(settings: Settings, command_id: str) -> dict[str, str]:
    """How the command stands. It has ended when it is as old as its `expires` and a moment."""
    warehouse = Warehouse.of(settings)
    try:
        (row,) = warehouse.rows("SELECT state, reason FROM commands WHERE command_id = :id", id=command_id)
    finally:
        warehouse.close()
    return {"what": f"{LAMP} dim level={PERCENT}", **row}
