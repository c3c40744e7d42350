"""Keeps the log of security events: from `readings`, which go after days, into the table security_events."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text

from connections.warehouse import Warehouse
from etl.window import Window
from fleet.catalog import System
from fleet.errors import ConfigurationError
from fleet.security_log import COLUMNS, happened, log, types_of

AGAIN = timedelta(hours=6)
"""Each time this much is written anew: a reading that comes so late still changes what happened."""
UNSETTLED = timedelta(minutes=1)
MARGIN = timedelta(hours=1)
"""What is about to leave `readings` is left as it is written."""


def span(system: System, asked: Window, kept_to: datetime | None, now: datetime) -> Window:
    """What to write: from six hours before what is kept, up to what is settled; never what readings hold no more, of
    which nothing would be left. Raises ConfigurationError where that is nothing."""
    oldest = now - min(spec.retention.readings for spec in types_of(system)) + MARGIN
    start = asked.start or (kept_to - AGAIN if kept_to else oldest)
    window = Window(max(start, oldest), min(asked.end or now, now - UNSETTLED))
    if window.start >= window.end:  # type: ignore[operator]
        raise ConfigurationError(
            f"nothing is to be written before {window.end:%Y-%m-%dT%H:%M} UTC: readings go back to"
            f" {oldest:%Y-%m-%dT%H:%M}, and what is older stays as it is kept"
        )
    if kept_to and window.start > kept_to:  # type: ignore[operator]
        return Window(max(kept_to, oldest), window.end)  # without a hole
    return window


def keep(warehouse: Warehouse, system: System, asked: Window, now: datetime) -> int:
    """How many events there are of the span, which are in place of those that it had. Raises Unavailable, Refused."""
    name = {"system": system.name}
    with warehouse.transaction() as c:
        kept_to = c.execute(text("SELECT kept_to FROM security_kept WHERE system = :system"), name).scalar()
        window = span(system, asked, kept_to, now)
        bounds = {**name, "starts": window.start, "ends": window.end}
        c.execute(text("DELETE FROM security_events WHERE system = :system AND at >= :starts AND at < :ends"), bounds)
        query = happened(system, "CAST(:starts AS timestamptz)", "CAST(:ends AS timestamptz)")
        written = c.execute(text(f"INSERT INTO security_events ({COLUMNS}) {query}"), bounds).rowcount
        c.execute(
            text(
                "INSERT INTO security_kept VALUES (:system, :ends) ON CONFLICT (system)"
                " DO UPDATE SET kept_to = greatest(security_kept.kept_to, EXCLUDED.kept_to)"
            ),
            bounds,
        )
    return written


def events(warehouse: Warehouse, system: System, window: Window, site: str | None, limit: int) -> list[dict[str, Any]]:
    """The newest, the latest first; columns of fleet.security_log.COLUMNS. The window has both ends."""
    if not types_of(system):
        raise ConfigurationError(f"no type of system {system.name} has `area: security`")
    query = log(system, "CAST(:starts AS timestamptz)", "CAST(:ends AS timestamptz)")
    return warehouse.rows(
        f"SELECT * FROM ({query}) happened WHERE :site IS NULL OR site = :site"  # noqa: S608
        " ORDER BY at DESC, device_id, name LIMIT :limit",
        starts=window.start, ends=window.end, site=site, limit=limit,
    )  # fmt: skip
