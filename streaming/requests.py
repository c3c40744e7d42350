"""What operators ask of the dispatcher by rows of dispatch_requests, and its answers."""

from typing import Any

from sqlalchemy import Connection

from fleet.board import Board
from fleet.hindrance import Circumstances
from fleet.notification import Notification
from streaming.dead_letters import SUPERSEDED, of_dead, revive
from streaming.outbox import Outbox

DONE = "done"


def answered(request: Any, board: Board, given: Circumstances, outbox: Outbox, connection: Connection) -> str:
    """`done…`, or what is wrong with it."""
    match request.what:
        case "acknowledge":
            return board.acknowledge(request.subject, request.by, request.comment, given) or DONE
        case "resend":
            return _resend(request.subject, given, outbox, connection)
        case "test":
            if request.subject not in given.policy.receivers:
                return _no_receiver(request.subject, given)
            outbox.switch_on(connection, request.subject, given.now)
            outbox.put(connection, [_test(request, given)], given.now)
            return DONE
    return f"the dispatcher does not know {request.what!r}"


def receivers_of(request: Any) -> tuple[str, ...]:
    """Those to which it is about to be sent at a person's wish."""
    match request.what:
        case "test":
            return (request.subject,)
        case "resend":
            return (request.subject.removeprefix("receiver:").rpartition("@")[2],)
    return ()


def _resend(subject: str, given: Circumstances, outbox: Outbox, connection: Connection) -> str:
    """`receiver:NAME`: all that is dead of that receiver, which is switched on again if it was off."""
    kind, _, name = subject.partition(":")
    if kind != "receiver":
        return _resend_one(subject, given, outbox, connection)
    if not outbox.switch_on(connection, name, given.now):
        return _no_receiver(name, given)
    count, outdated = revive(connection, "receiver", name, given.now)
    stay = f"; {outdated} stay, {SUPERSEDED}" if outdated else ""
    return f"{DONE}: {count} messages are sent again{stay}"


def _resend_one(subject: str, given: Circumstances, outbox: Outbox, connection: Connection) -> str:
    receiver = of_dead(connection, subject)
    if receiver is None:
        return f"no dead letter {subject!r}; `weir alerts dead` lists them"
    if receiver not in given.policy.receivers:
        return _no_receiver(receiver, given)
    if receiver in outbox.switched_off(connection):
        return f"{receiver} is switched off; `weir alerts resend --receiver {receiver}` switches it on and sends all"
    _, outdated = revive(connection, "id", subject, given.now)
    return f"{subject!r} stays where it is, {SUPERSEDED}" if outdated else DONE


def _no_receiver(name: str, given: Circumstances) -> str:
    return f"no receiver {name!r}; there are: {', '.join(given.policy.receivers) or 'none'}"


def _test(request: Any, given: Circumstances) -> Notification:
    return Notification(
        notification_id=f"test-{request.id}@{request.subject}", receiver=request.subject, kind="test", alerts=(),
        summary=request.comment or f"A test from Weir, asked for by {request.by}", created_at=given.now,
    )  # fmt: skip
