"""Messages that were refused or given up: kept, and sent again by hand unless the receiver knows better by now."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from fleet.notification import Notification, decode_notification
from fleet.receivers import KINDS
from streaming.notifications import IDENTITY, note, row_of

SUPERSEDED = "superseded: it was told of a later state since"
APART = [kind for kind, options in KINDS.items() if options.shows == "alerts"]
"""To the other kinds all alerts of a rule and device are one thing, of which what comes last counts."""


def bury(connection: Connection, receiver: str, why: str, now: datetime) -> None:
    """All that waits for a receiver is dead."""
    buried = connection.execute(
        text(
            "UPDATE outbox SET dead_at = :now, problem = :why WHERE receiver = :receiver AND dead_at IS NULL"
            " RETURNING notification::text, attempts"
        ),
        {"receiver": receiver, "now": now, "why": why},
    ).all()
    rows = [(decode_notification(n), attempts) for n, attempts in buried]
    note(connection, [row_of(n, "dead", why, attempts, now) for n, attempts in rows])


def outdate(
    connection: Connection, number: int, sent: Notification, identities: Sequence[str], told: Sequence[str] = ()
) -> None:
    """Dead letters from before the row `number`, which was sent, tell the past of what it is about; those for other
    addresses than `told`, unless it is empty, do not."""
    if not identities:
        return
    connection.execute(
        text(
            "UPDATE outbox o SET later_told = o.later_told || found.ids FROM (SELECT d.id,"  # noqa: S608
            " array_agg(alert->>'alert_id') AS ids FROM outbox d, jsonb_array_elements(d.notification->'alerts') alert"
            " WHERE d.dead_at IS NOT NULL AND d.receiver = :receiver AND d.id < :number"
            " AND d.identities && CAST(:identities AS text[]) AND alert->>'alert_id' <> ALL(d.later_told)"
            " AND (CAST(:told AS text[]) = '{}' OR coalesce(d.notification->'only_to', '{}') = '{}'"
            " OR d.notification->'only_to' ?| CAST(:told AS text[]))"
            " AND CASE WHEN :receiver IN (SELECT name FROM dispatch_receivers WHERE kind = ANY(:apart))"
            f" THEN alert->>'alert_id' = ANY(:ids) ELSE {IDENTITY} = ANY(:identities) END GROUP BY d.id) found"
            " WHERE o.id = found.id"
        ),
        {
            "number": number, "receiver": sent.receiver, "identities": list(identities), "apart": APART,
            "ids": [alert.alert_id for alert in sent.alerts], "told": list(told),
        },
    )  # fmt: skip


def revive(connection: Connection, where: str, value: str, now: datetime) -> tuple[int, int]:
    """Dead letters of a receiver, or one by its notification's id, are due again, without the alerts of which the
    receiver was told later. Returns how many, and how many stay dead since nothing else is in them."""
    column = {"receiver": "receiver", "id": "notification_id"}[where]
    which = f"dead_at IS NOT NULL AND {column} = :value"
    outdated = connection.execute(
        text(
            f"UPDATE outbox SET problem = :why WHERE {which} AND notification->'alerts' <> '[]' AND NOT EXISTS"  # noqa: S608
            " (SELECT 1 FROM jsonb_array_elements(notification->'alerts') a"
            " WHERE a->>'alert_id' <> ALL(later_told)) RETURNING id"
        ),
        {"value": value, "why": SUPERSEDED},
    ).scalars()
    stay = list(outdated)
    revived = connection.execute(
        text(
            "UPDATE outbox SET dead_at = NULL, due_at = :now, tried_since = :now, attempts = 0, later_told = '{}',"  # noqa: S608
            " notification = jsonb_set(notification, '{alerts}', (SELECT coalesce(jsonb_agg(a), '[]')"
            " FROM jsonb_array_elements(notification->'alerts') a WHERE a->>'alert_id' <> ALL(later_told)))"
            f" WHERE {which} AND id <> ALL(:stay)"
        ),
        {"value": value, "now": now, "stay": stay},
    )
    return int(revived.rowcount), len(stay)


def of_dead(connection: Connection, notification_id: str) -> str | None:
    """The receiver of a dead letter; None: there is no such letter."""
    found = connection.execute(
        text("SELECT receiver FROM outbox WHERE dead_at IS NOT NULL AND notification_id = :id"),
        {"id": notification_id},
    )
    return found.scalar_one_or_none()
