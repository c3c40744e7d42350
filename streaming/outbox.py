"""The dispatcher's tables: how alerts stand, what is to be sent, what became of it.

One transaction has the position in Kafka's log, the alerts' rows and the messages; sending comes after it and is
written down by itself, so that a message may be sent twice, with one id, and never not at all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, text

from connections.warehouse import Warehouse
from fleet.board import Board, Changes
from fleet.errors import Unavailable
from fleet.notification import Notification, Partly, TellingAlert, decode_notification, decode_telling_alert
from fleet.silence import Silence
from streaming.board_rows import read_board, write_board
from streaming.dead_letters import SUPERSEDED, bury, outdate
from streaming.notifications import IDENTITY, held_row, note, row_of, slices

_encode = msgspec.json.encode
_decode_silence = msgspec.json.Decoder(Silence).decode
LOCK_SECONDS = 10.0
FROZEN_SECONDS = 30.0
"""Deciding with the transaction open takes seconds at most, in the worst storm."""
SENT_TWICE_RATHER = text("SET LOCAL synchronous_commit = off")
"""That something was sent need not be on disk before the next is sent: after a power cut it is sent again."""


@dataclass(frozen=True)
class Waiting:
    """A message of the outbox."""

    id: int
    notification: Notification
    tried_since: datetime
    attempts: int


class Outbox:
    def __init__(self, warehouse: Warehouse):
        self.warehouse = warehouse
        self.epoch = 0

    def take_over(self, now: datetime) -> tuple[Board, datetime]:
        """The board as it was left, and when the first dispatcher began. Another that still runs can write no more."""
        with self.warehouse.transaction() as connection:
            row = connection.execute(
                text(
                    "UPDATE dispatcher SET epoch = epoch + 1, began_at = coalesce(began_at, :now)"
                    " RETURNING epoch, began_at"
                ),
                {"now": now},
            ).one()
            board = read_board(connection)
        self.epoch = row.epoch
        return board, row.began_at

    def hold(self, connection: Connection) -> None:
        """To the end of the transaction, this process is the only dispatcher, unless it freezes: then the server ends
        the transaction, or nobody could take over. Raises Unavailable."""
        connection.execute(
            text(
                f"SET LOCAL lock_timeout = '{LOCK_SECONDS:g}s';"
                f" SET LOCAL idle_in_transaction_session_timeout = '{FROZEN_SECONDS:g}s'"
            )
        )
        found = connection.execute(text("SELECT epoch FROM dispatcher FOR UPDATE")).scalar_one()
        if found != self.epoch:
            raise Unavailable("another dispatcher has taken over; only one is to run")

    def write(self, connection: Connection, board: Board, changes: Changes, now: datetime) -> None:
        write_board(connection, board, changes)
        self.put(connection, changes.messages, now)
        note(connection, [held_row(held, now) for held in changes.held])

    def put(self, connection: Connection, messages: Sequence[Notification], now: datetime) -> None:
        for rows in slices(messages):
            connection.execute(
                text(
                    "INSERT INTO outbox (notification_id, receiver, kind, identities, notification, created_at,"  # noqa: S608
                    " tried_since, due_at) SELECT n->>'notification_id', n->>'receiver', n->>'kind',"
                    f" ARRAY(SELECT {IDENTITY} FROM jsonb_array_elements(n->'alerts') alert), n, :now, :now, :now"
                    " FROM jsonb_array_elements(CAST(:rows AS jsonb)) WITH ORDINALITY AS r(n, place) ORDER BY place"
                    " ON CONFLICT (notification_id) DO NOTHING"
                ),
                {"rows": rows, "now": now},
            )

    def devices_at(self, connection: Connection, type_name: str, site: str) -> int:
        found = connection.execute(
            text("SELECT count(*) FROM devices WHERE type = :type AND site = :site AND retired_at IS NULL"),
            {"type": type_name, "site": site},
        )
        return int(found.scalar_one())

    # Of one receiver, by its own thread.

    def due(self, receiver: str, now: datetime, limit: int) -> tuple[list[Waiting], datetime | None]:
        """Messages to be sent now, none before an earlier one about the same rule and device (a mail that some have
        keeps back only what is for nobody but those who do not have it); and when there are more, once all of them were
        sent and were fewer than `limit`: what is due and not among them waits for an earlier one. None where another
        dispatcher has taken over."""
        rows = self.warehouse.rows(
            "SELECT later.at, m.* FROM (SELECT min(due_at) AS at FROM outbox"
            " WHERE receiver = :receiver AND dead_at IS NULL AND due_at > :now) later LEFT JOIN LATERAL ("
            "SELECT id, notification::text AS notification, tried_since, attempts FROM outbox o"
            " WHERE :epoch = (SELECT epoch FROM dispatcher)"
            " AND receiver = :receiver AND dead_at IS NULL AND due_at <= :now AND NOT EXISTS (SELECT 1 FROM outbox e"
            " WHERE e.receiver = o.receiver AND e.dead_at IS NULL AND e.id < o.id AND e.due_at > :now"
            " AND e.identities && o.identities AND (coalesce(e.notification->'only_to', '{}') = '{}'"
            " OR (coalesce(o.notification->'only_to', '{}') <> '{}'"
            " AND e.notification->'only_to' ?& ARRAY(SELECT jsonb_object_keys(o.notification->'only_to')))))"
            " ORDER BY id LIMIT :limit) m ON true ORDER BY m.id",
            receiver=receiver, now=now, limit=limit, epoch=self.epoch,
        )  # fmt: skip
        messages = [
            Waiting(r["id"], decode_notification(r["notification"]), r["tried_since"], r["attempts"])
            for r in rows
            if r["id"] is not None
        ]
        return messages, rows[0]["at"]

    def behind(self, message: Waiting) -> dict[str, str]:
        """Addresses to which an earlier mail about the same rule and device is still to go, and why it has not yet."""
        rows = self.warehouse.rows(
            "SELECT DISTINCT ON (l.address) l.address, l.why FROM outbox o JOIN outbox e ON e.receiver = o.receiver"
            " AND e.dead_at IS NULL AND e.id < o.id AND e.identities && o.identities"
            " CROSS JOIN LATERAL jsonb_each_text(e.notification->'only_to') l(address, why)"
            " WHERE o.id = :id ORDER BY l.address, e.id",
            id=message.id,
        )  # fmt: skip
        return {row["address"]: row["why"] for row in rows}

    def sent(self, message: Waiting, said: str, now: datetime) -> None:
        with self.warehouse.transaction() as connection:
            connection.execute(SENT_TWICE_RATHER)
            deleted = connection.execute(
                text(
                    "DELETE FROM outbox WHERE id = :id RETURNING identities, EXISTS (SELECT 1 FROM outbox d"
                    " WHERE d.receiver = outbox.receiver AND d.dead_at IS NOT NULL) AS has_dead"
                ),
                {"id": message.id},
            ).one_or_none()
            if deleted is not None and deleted.has_dead:
                told = list(message.notification.only_to)
                outdate(connection, message.id, message.notification, deleted.identities, told)
            note(connection, [row_of(message.notification, "sent", said, message.attempts + 1, now)])
            connection.execute(
                text(
                    "UPDATE dispatch_receivers SET sent_at = :now, failing_since = NULL, problem = NULL"
                    " WHERE name = :name"
                ),
                {"now": now, "name": message.notification.receiver},
            )

    def partly(self, message: Waiting, outcome: Partly, why: str, due_at: datetime | None, now: datetime) -> None:
        """From now on the message is to those of its addresses that are left; without `due_at` it is dead for them."""
        with self.warehouse.transaction() as connection:
            identities = connection.execute(
                text(
                    "UPDATE outbox SET attempts = attempts + 1, problem = :why, due_at = coalesce(:due_at, due_at),"
                    " dead_at = :dead_at, notification = jsonb_set(notification, '{only_to}', CAST(:left AS jsonb))"
                    " WHERE id = :id RETURNING identities"
                ),
                {
                    "why": why, "due_at": due_at, "dead_at": None if due_at else now,
                    "left": _encode(outcome.left).decode(), "id": message.id,
                },
            ).scalar_one_or_none()  # fmt: skip
            rows = []
            if outcome.told:
                outdate(connection, message.id, message.notification, identities or (), outcome.told)
                said = f"but not to {outcome.why}"
                rows.append(row_of(message.notification, "sent", said, message.attempts + 1, now))
                connection.execute(
                    text("UPDATE dispatch_receivers SET sent_at = :now WHERE name = :name"),
                    {"now": now, "name": message.notification.receiver},
                )
            if due_at is None:
                rows.append(row_of(message.notification, "dead", why, message.attempts + 1, now))
            note(connection, rows)
            _failing(connection, message.notification.receiver, outcome.why, now)

    def later(self, message: Waiting, why: str, due_at: datetime, now: datetime) -> None:
        with self.warehouse.transaction() as connection:
            connection.execute(
                text("UPDATE outbox SET attempts = attempts + 1, problem = :why, due_at = :due_at WHERE id = :id"),
                {"why": why, "due_at": due_at, "id": message.id},
            )
            _failing(connection, message.notification.receiver, why, now)

    def dead(self, message: Waiting, why: str, now: datetime) -> None:
        with self.warehouse.transaction() as connection:
            connection.execute(
                text("UPDATE outbox SET attempts = attempts + 1, problem = :why, dead_at = :now WHERE id = :id"),
                {"why": why, "now": now, "id": message.id},
            )
            note(connection, [row_of(message.notification, "dead", why, message.attempts + 1, now)])

    def gone(self, receiver: str, why: str, now: datetime) -> None:
        """Switched off; what waits for it is dead."""
        with self.warehouse.transaction() as connection:
            connection.execute(
                text("UPDATE dispatch_receivers SET gone_at = :now, problem = :why WHERE name = :name"),
                {"name": receiver, "now": now, "why": why},
            )
            bury(connection, receiver, why, now)

    def bury_late(self, receiver: str, now: datetime) -> None:
        """What was decided before the decider knew that the receiver is switched off."""
        with self.warehouse.transaction() as connection:
            off = connection.execute(
                text("SELECT problem FROM dispatch_receivers WHERE name = :name AND gone_at IS NOT NULL FOR UPDATE"),
                {"name": receiver},
            ).one_or_none()
            if off is not None:
                bury(connection, receiver, off.problem or "switched off", now)

    def failing(self, receiver: str, why: str, now: datetime) -> None:
        with self.warehouse.transaction() as connection:
            _failing(connection, receiver, why, now)

    def beaten(self, receiver: str, now: datetime) -> None:
        """A heartbeat has reached it."""
        with self.warehouse.transaction() as connection:
            connection.execute(
                text(
                    "UPDATE dispatch_receivers SET heartbeat_at = :now, sent_at = :now, failing_since = NULL,"
                    " problem = NULL WHERE name = :name"
                ),
                {"now": now, "name": receiver},
            )

    def heartbeat_at(self, receiver: str) -> datetime | None:
        rows = self.warehouse.rows("SELECT heartbeat_at FROM dispatch_receivers WHERE name = :name", name=receiver)
        return rows[0]["heartbeat_at"] if rows else None

    def known_to(self, receiver: str) -> list[TellingAlert]:
        """Active alerts that the receiver has been told of, all that there was to tell; with the severity that it was
        told, as another may be held back."""
        rows = self.warehouse.rows(
            "SELECT alert::text AS alert, so_far->'standings'->:receiver->>'told' AS told"  # noqa: S608
            " FROM (SELECT so_far, so_far->'alert' AS alert FROM dispatch_alerts) a"
            " WHERE :epoch = (SELECT epoch FROM dispatcher)"
            " AND alert->>'resolved_at' IS NULL AND so_far->'standings'->:receiver->>'told' IS NOT NULL"
            " AND so_far->'standings'->:receiver->>'digest' IS NULL AND NOT EXISTS (SELECT 1 FROM outbox o"
            f" WHERE o.receiver = :receiver AND o.dead_at IS NULL AND o.identities @> ARRAY[{IDENTITY}])",
            receiver=receiver, epoch=self.epoch,
        )  # fmt: skip
        alerts = [(decode_telling_alert(r["alert"]), r["told"]) for r in rows]
        return [msgspec.structs.replace(alert, severity=told) for alert, told in alerts]

    # Receivers, silences and requests, by the service.

    def receivers(self, connection: Connection, kinds: dict[str, str], now: datetime) -> frozenset[str]:
        """Those of the file have a row each; what waits for others is dead. Returns those that are switched off."""
        for name, kind in kinds.items():
            connection.execute(
                text(
                    "INSERT INTO dispatch_receivers (name, kind) VALUES (:name, :kind)"
                    " ON CONFLICT (name) DO UPDATE SET kind = excluded.kind"
                ),
                {"name": name, "kind": kind},
            )
        others = connection.execute(
            text("SELECT DISTINCT receiver FROM outbox WHERE dead_at IS NULL AND receiver <> ALL(:names)"),
            {"names": list(kinds)},
        ).scalars()
        for name in list(others):
            bury(connection, name, "the file of receivers no longer has it", now)
        connection.execute(text("DELETE FROM dispatch_receivers WHERE name <> ALL(:names)"), {"names": list(kinds)})
        return self.switched_off(connection)

    def switched_off(self, connection: Connection) -> frozenset[str]:
        found = connection.execute(text("SELECT name FROM dispatch_receivers WHERE gone_at IS NOT NULL"))
        return frozenset(found.scalars())

    def silences(self) -> list[Silence]:
        rows = self.warehouse.rows("SELECT silence::text AS silence FROM dispatch_silences")
        return [_decode_silence(r["silence"]) for r in rows]

    def keep_silences(self, silences: Iterable[Silence]) -> None:
        with self.warehouse.transaction() as connection:
            connection.execute(text("DELETE FROM dispatch_silences"))
            for silence in silences:
                connection.execute(
                    text("INSERT INTO dispatch_silences VALUES (:id, CAST(:silence AS jsonb)) ON CONFLICT DO NOTHING"),
                    {"id": silence.silence_id, "silence": _encode(silence).decode()},
                )

    def requests(self, connection: Connection) -> list[Any]:
        return list(
            connection.execute(
                text("SELECT id, what, subject, by, comment FROM dispatch_requests WHERE done_at IS NULL ORDER BY id")
            )
        )

    def answer(self, connection: Connection, request_id: int, answer: str, now: datetime) -> None:
        connection.execute(
            text("UPDATE dispatch_requests SET done_at = :now, answer = :answer WHERE id = :id"),
            {"id": request_id, "answer": answer, "now": now},
        )

    def switch_on(self, connection: Connection, receiver: str, now: datetime) -> bool:
        """What waits for it is due, whatever it wished. Returns whether it is one of the file's."""
        connection.execute(
            text("UPDATE outbox SET due_at = :now WHERE receiver = :receiver AND dead_at IS NULL AND due_at > :now"),
            {"receiver": receiver, "now": now},
        )
        found = connection.execute(
            text("UPDATE dispatch_receivers SET gone_at = NULL, problem = NULL WHERE name = :name"), {"name": receiver}
        )
        return bool(found.rowcount)

    def figures(self) -> dict[str, int]:
        """A dead letter of which its receiver knows better is nothing to be done any more."""
        (row,) = self.warehouse.rows(
            "SELECT (SELECT count(*) FROM outbox WHERE dead_at IS NULL) AS waiting,"
            " (SELECT count(*) FROM outbox WHERE dead_at IS NOT NULL AND problem IS DISTINCT FROM :superseded)"
            " AS dead_letters,"
            " (SELECT count(*) FROM dispatch_receivers WHERE failing_since IS NOT NULL OR gone_at IS NOT NULL)"
            " AS failing_receivers",
            superseded=SUPERSEDED,
        )
        return row


def _failing(connection: Connection, receiver: str, why: str, now: datetime) -> None:
    connection.execute(
        text(
            "UPDATE dispatch_receivers SET failing_since = coalesce(failing_since, :now), problem = :why"
            " WHERE name = :name"
        ),
        {"now": now, "why": why, "name": receiver},
    )
