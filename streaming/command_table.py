"""The table of commands: what was asked for, and how each stands.

A request is one row, which is there or not; moves are guarded by the state that they leave, so that each is made once,
whoever tries.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, text

from connections.warehouse import Warehouse
from fleet.action_decision import WITHIN, Order, Past
from fleet.command_state import UNDER_WAY, Command, Kept, Move, Request, Standing, State
from fleet.errors import CommandConflict, CommandError
from fleet.transition import Transition

_json = msgspec.json.encode
COLUMNS = ", ".join(Kept.__struct_fields__)


def ask(connection: Connection, request: Request) -> bool:
    """Whether it is new. Raises CommandConflict where another command has its id."""
    if _insert(connection, msgspec.structs.asdict(request)):
        return True
    there = connection.execute(
        text("SELECT type, device_id, command, args FROM commands WHERE command_id = :id"),
        {"id": request.command_id},
    ).one()
    same = (there.type, there.device_id, there.command) == (request.type, request.device_id, request.command)
    if not same or there.args != request.args:
        raise CommandConflict(
            f"command {request.command_id!r} is another one already: {there.command} to {there.type}"
            f" {there.device_id}; give this one an id of its own"
        )
    return False


def order(connection: Connection, t: Transition, orders: Sequence[Order], system: str, now: datetime) -> None:
    """The commands of a transition, those that are held too; what is there already stays."""
    for one in orders:
        held = one.held or Move("requested")
        asked = Request(
            command_id=one.command_id, system=system, type=one.type, device_id=one.device_id, site=t.site,
            command=one.command, args=dict(one.args), via="rule", by=t.rule, why=f"{t.title}: {t.device} {t.to}",
            expires_at=one.expires_at,
        )  # fmt: skip
        of_rule = {
            "alert_id": t.alert_id, "transition_id": t.transition_id, "rule_type": t.type, "requested_at": now,
            "state": held.state, "reason": held.reason, "changed_at": now,
        }  # fmt: skip
        _insert(connection, msgspec.structs.asdict(asked) | of_rule)


def _insert(connection: Connection, row: Mapping[str, object]) -> bool:
    """Whether it is new. Columns that it does not name are as the table makes them."""
    values = ", ".join("CAST(:args AS jsonb)" if name == "args" else f":{name}" for name in row)
    made = connection.execute(
        text(
            f"INSERT INTO commands ({', '.join(row)}) VALUES ({values}) ON CONFLICT (command_id) DO NOTHING"  # noqa: S608
        ),
        {**row, "args": _json(row["args"]).decode()},
    )
    return bool(made.rowcount == 1)


def past_of(connection: Connection, t: Transition, order: Order, now: datetime) -> Past:
    """What the transition's rule has sent the order's device, and what its alert has."""
    row = connection.execute(
        text(
            "SELECT count(*) FILTER (WHERE requested_at > :since AND is_on_its_way) AS recent,"
            " bool_or(is_on_its_way) FILTER (WHERE alert_id = :alert AND transition_id <> :transition) AS began"
            " FROM (SELECT requested_at, alert_id, transition_id, (sent_at IS NOT NULL OR state = 'requested')"
            " AS is_on_its_way FROM commands WHERE type = :type AND device_id = :device AND rule_type = :rule_type"
            " AND by = :rule AND via = 'rule' AND (requested_at > :since OR alert_id = :alert)) past"
        ),
        {
            "since": now - WITHIN, "alert": t.alert_id, "transition": t.transition_id, "type": order.type,
            "device": order.device_id, "rule_type": t.type, "rule": t.rule,
        },
    ).one()  # fmt: skip
    return Past(row.recent, row.began)


def devices_at(connection: Connection, type_name: str, site: str) -> list[str]:
    found = connection.execute(
        text(
            "SELECT device_id FROM devices WHERE type = :type AND site = :site AND retired_at IS NULL"
            " ORDER BY device_id"
        ),
        {"type": type_name, "site": site},
    )
    return list(found.scalars())


def standing(warehouse: Warehouse, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Standing]:
    """The devices that the registry has, retired or not, of those named by (type, id)."""
    rows = warehouse.rows(
        "SELECT type, device_id, site, retired_at FROM devices"
        " JOIN unnest(CAST(:types AS text[]), CAST(:ids AS text[])) k(t, d) ON type = t AND device_id = d",
        types=[t for t, _ in keys], ids=[d for _, d in keys],
    )  # fmt: skip
    return {(r["type"], r["device_id"]): Standing(r["site"], r["retired_at"]) for r in rows}


def under_way(warehouse: Warehouse, states: Iterable[State] = UNDER_WAY) -> list[Command]:
    """In the order in which they were asked for."""
    rows = warehouse.rows(
        f"SELECT {COLUMNS} FROM commands WHERE state = ANY(:states) ORDER BY requested_at, command_id",  # noqa: S608
        states=list(states),
    )
    return [Command(**row) for row in rows]


def begun(connection: Connection, command: Command, now: datetime) -> datetime:
    """From when on readings may show that it was obeyed: before it is sent for the first time. What is to be seen, and
    where, is written with it: who is killed while sending may come back when it is too late to send again."""
    first = connection.execute(
        text(
            "UPDATE commands SET sent_at = coalesce(sent_at, :now), site = :site, sets = CAST(:sets AS jsonb)"
            " WHERE command_id = :id RETURNING sent_at"
        ),
        {
            "now": now, "site": command.site, "sets": _json(command.sets).decode(), "id": command.command_id,
        },
    )  # fmt: skip
    found: datetime = first.scalar_one()
    return found


def moved(connection: Connection, command: Command, move: Move, now: datetime) -> bool:
    """Whether the command was in the state that it was thought to be in."""
    done = connection.execute(
        text(
            "UPDATE commands SET state = :to, reason = :reason, changed_at = :now,"
            " site = :site, sets = CAST(:sets AS jsonb)"
            " WHERE command_id = :id AND state = :from"
        ),
        {
            "to": move.state, "reason": move.reason, "now": now, "site": command.site,
            "sets": _json(command.sets).decode(), "id": command.command_id, "from": command.state,
        },
    )  # fmt: skip
    return bool(done.rowcount == 1)


def full_id(warehouse: Warehouse, beginning: str) -> str:
    """Of the one command whose id begins so, or is so. Raises CommandError. It goes through the whole table."""
    rows = _by_id(
        warehouse, "starts_with(command_id, :id) ORDER BY command_id <> :id, requested_at DESC LIMIT 2", beginning
    )
    if len(rows) > 1 and rows[0]["command_id"] != beginning:
        raise CommandError(f"more than one command begins with {beginning[:80]!r}; give more of its id")
    return str(rows[0]["command_id"])


def found(warehouse: Warehouse, command_id: str) -> dict[str, Any]:
    """A command and its `history`, for people. Raises CommandError."""
    (row,) = _by_id(warehouse, "command_id = :id", command_id)
    history = warehouse.rows(
        # By state: they only go forward, and the database's clock, of the first, is not the commander's.
        "SELECT state, at, reason FROM command_history WHERE command_id = :id ORDER BY"
        " array_position(ARRAY['requested', 'sent', 'delivered', 'obeyed', 'refused', 'expired'], state), at",
        id=command_id,
    )
    return {**row, "history": history}


def _by_id(warehouse: Warehouse, where: str, given: str) -> list[dict[str, Any]]:
    """Raises CommandError where there is none. What cannot be printed is no id, and some of it no text for a table."""
    rows = []
    if given and given.isprintable():
        rows = warehouse.rows(f"SELECT * FROM commands WHERE {where}", id=given)  # noqa: S608
    if not rows:
        raise CommandError(f"no command {given[:80]!r}; `weir commands list` shows those there are")
    return rows
