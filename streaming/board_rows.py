"""The tables dispatch_alerts and dispatch_groups: the board as it is between two transactions."""

import msgspec
from sqlalchemy import Connection, text

from fleet.board import Board, Changes
from fleet.standing import AlertSoFar
from fleet.storm import Group, GroupKey

_encode = msgspec.json.encode
_decode_alert = msgspec.json.Decoder(AlertSoFar).decode
_decode_group = msgspec.json.Decoder(Group).decode
GROUP = ("receiver", "kind", "system", "type", "rule", "site")


def read_board(connection: Connection) -> Board:
    alerts = connection.execute(text("SELECT so_far::text FROM dispatch_alerts")).scalars()
    groups = connection.execute(text(f"SELECT {', '.join(GROUP)}, so_far::text FROM dispatch_groups"))  # noqa: S608
    return Board(
        [_decode_alert(found) for found in alerts],
        {GroupKey(*g[:-1]): _decode_group(g[-1]) for g in groups},
    )


def write_board(connection: Connection, board: Board, changes: Changes) -> None:
    """Of its alerts and storms those that have changed."""
    alerts = [board.alerts[i] for i in changes.alerts if i in board.alerts]
    gone = [i for i in changes.alerts if i not in board.alerts]
    if alerts:
        connection.execute(
            text(
                "INSERT INTO dispatch_alerts SELECT row->'alert'->>'alert_id', row"
                " FROM jsonb_array_elements(CAST(:rows AS jsonb)) row"
                " ON CONFLICT (alert_id) DO UPDATE SET so_far = excluded.so_far"
            ),
            {"rows": _encode(alerts).decode()},
        )
    if gone:
        connection.execute(text("DELETE FROM dispatch_alerts WHERE alert_id = ANY(:gone)"), {"gone": gone})
    for key in changes.groups:
        _write_group(connection, key, board.groups.get(key))


def _write_group(connection: Connection, key: GroupKey, group: Group | None) -> None:
    where = key._asdict()
    if group is None:
        same = " AND ".join(f"{name} = :{name}" for name in GROUP)
        connection.execute(text(f"DELETE FROM dispatch_groups WHERE {same}"), where)  # noqa: S608
        return
    values = ", ".join(f":{name}" for name in GROUP)
    connection.execute(
        text(
            f"INSERT INTO dispatch_groups VALUES ({values}, CAST(:so_far AS jsonb))"  # noqa: S608
            f" ON CONFLICT ({', '.join(GROUP)}) DO UPDATE SET so_far = excluded.so_far"
        ),
        {**where, "so_far": _encode(group).decode()},
    )
