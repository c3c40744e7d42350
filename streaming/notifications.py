"""The table notifications: what became of each message, sent, dead or held back, and why."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import msgspec
from sqlalchemy import Connection, text

from fleet.board import Held
from fleet.notification import Notification, TellingAlert

_encode = msgspec.json.encode
NOTED = (
    "at", "outcome", "cause", "note", "receiver", "kind", "notification_id", "alert_id", "transition_id", "system",
    "type", "rule", "device_id", "site", "severity", "summary", "attempts",
)  # fmt: skip
IDENTITY = "jsonb_build_array(alert->>'system', alert->>'type', alert->>'rule', alert->>'device')::text"
"""What a receiver takes for one thing (a topic, labels, a fingerprint): all of its alerts are told in order."""
SLICE_BYTES = 4 * 1024 * 1024


def note(connection: Connection, rows: Sequence[dict[str, object]]) -> None:
    names = ", ".join(NOTED)
    for part in slices(rows):
        connection.execute(
            text(
                f"INSERT INTO notifications ({names}) SELECT {names}"  # noqa: S608
                " FROM jsonb_populate_recordset(NULL::notifications, CAST(:rows AS jsonb))"
            ),
            {"rows": part},
        )


def slices(rows: Iterable[object], most_bytes: int = SLICE_BYTES) -> Iterator[str]:
    """JSON arrays of at most so many bytes, or of one row: PostgreSQL takes no jsonb beyond 256 MB, and a storm's would
    stand in memory several times over."""
    part, size = list[bytes](), 0
    for row in map(_encode, rows):
        if part and size + len(row) > most_bytes:
            yield f"[{b','.join(part).decode()}]"
            part, size = [], 0
        part.append(row)
        size += len(row)
    if part:
        yield f"[{b','.join(part).decode()}]"


def _about(alert: TellingAlert | None) -> dict[str, object]:
    names = ("alert_id", "transition_id", "system", "type", "rule", "site", "severity")
    return {**{name: getattr(alert, name, "") for name in names}, "device_id": alert.device if alert else ""}


def held_row(held: Held, now: datetime) -> dict[str, object]:
    hold = held.hold
    return {
        **_about(held.alert), "at": now, "outcome": "held", "cause": hold.cause, "note": hold.note, "kind": hold.kind,
        "receiver": hold.receiver, "notification_id": "", "summary": held.alert.title, "attempts": 0,
    }  # fmt: skip


def row_of(n: Notification, outcome: str, said: str, attempts: int, now: datetime) -> dict[str, object]:
    alert = n.alerts[0] if len(n.alerts) == 1 and n.kind != "digest" else None
    return {
        **_about(alert), "at": now, "outcome": outcome, "cause": "", "note": said, "kind": n.kind,
        "receiver": n.receiver, "notification_id": n.notification_id, "summary": n.summary, "attempts": attempts,
    }  # fmt: skip
