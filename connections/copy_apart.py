"""COPY that goes on past what the server refuses."""

from collections.abc import Sequence
from typing import NamedTuple

import psycopg2
from sqlalchemy import Connection

from connections.warehouse import copy_rows

Row = Sequence[object]


class RefusedRows(NamedTuple):
    """Rows of one record, and the server's reason."""

    rows: list[Row]
    error: str


def copy_apart(
    connection: Connection, table: str, columns: Sequence[str], records: Sequence[Sequence[Row]]
) -> list[RefusedRows]:
    """COPY of records (the rows of one go in together or not at all), less those whose values the table refuses: they
    are found by halving, each try within a savepoint, in about 2·log₂(records) tries each. Other errors are raised."""
    if not records:
        return []
    try:
        with connection.begin_nested():
            copy_rows(connection, table, columns, [row for record in records for row in record])
        return []
    except (psycopg2.DataError, psycopg2.IntegrityError) as error:
        if len(records) == 1:
            return [RefusedRows(list(records[0]), str(error).strip().splitlines()[0])]
    middle = len(records) // 2
    halves = records[:middle], records[middle:]
    return [refused for half in halves for refused in copy_apart(connection, table, columns, half)]
