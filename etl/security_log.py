"""Keeps the log of security events: from `readings`, which go after days, into the table security_events."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import text

from connections.warehouse import Warehouse
from etl.window import Window
from fleet.catalog import System
from fleet.errors import ConfigurationError
from fleet.security_log import COLUMNS, happened, log, types_of

AGAIN = timedelta(hours=6)
"""Each time this much is written anew: a reading that comes so late still changes what happened. What comes later still
does with the first run of the next day (UTC), which writes all anew."""
UNSETTLED = timedelta(minutes=1)
MARGIN = timedelta(hours=1)
"""What is about to leave `readings` is left as it is written."""
LOOKS_BACK = timedelta(days=1)
"""As sql/always/16_states.sql does: where readings of the day before are gone, a door that stays open seems to open."""


def oldest_of(system: System, now: datetime) -> datetime:
    return now - min(spec.retention.readings for spec in types_of(system)) + MARGIN


def span(
    system: System, asked: Window, kept_to: datetime | None, now: datetime, late: datetime | None = None
) -> Window:  # fmt: skip
    """What to write: from six hours before what is kept, or from `late`, an alert that was detected since; up to what
    is settled; never what readings hold no more, of which nothing would be left. Raises ConfigurationError where that
    is nothing."""
    oldest, end = oldest_of(system, now), min(asked.end or now, now - UNSETTLED)
    if asked.start or not kept_to:
        start = asked.start or oldest
    else:
        late = oldest if _day(kept_to) < _day(end) else late
        start = min(kept_to - AGAIN, max(late or kept_to, oldest + LOOKS_BACK))
    window = Window(max(start, oldest), end)
    if window.start >= window.end:  # type: ignore[operator]
        raise ConfigurationError(
            f"nothing is to be written before {window.end:%Y-%m-%dT%H:%M} UTC: readings go back to"
            f" {oldest:%Y-%m-%dT%H:%M}, and what is older stays as it is kept"
        )
    if kept_to and window.start > kept_to:  # type: ignore[operator]
        return Window(max(kept_to, oldest), window.end)  # without a hole
    return window


def _day(at: datetime) -> date:
    return at.astimezone(UTC).date()


LATE = """
SELECT min(event_time) FROM alert_transitions
 WHERE system = :system AND type = ANY(:types) AND event_time >= :oldest AND detected_at >= :since"""
"""An hour before what is kept is soon enough: the history of alerts is written within seconds."""


def keep(warehouse: Warehouse, system: System, asked: Window, now: datetime) -> int:
    """How many events there are of the span, which are in place of those that it had. One call for a system at a time
    does this. Raises Unavailable, Refused."""
    name = {"system": system.name}
    with warehouse.transaction() as c:
        c.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": f"security_log/{system.name}"}
        )
        kept_to = c.execute(text("SELECT kept_to FROM security_kept WHERE system = :system"), name).scalar()
        late = None
        if kept_to:
            types = [spec.type for spec in types_of(system)]
            since = {"types": types, "oldest": oldest_of(system, now), "since": kept_to - MARGIN}
            late = c.execute(text(LATE), name | since).scalar()
        window = span(system, asked, kept_to, now, late)
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
