"""The dispatcher's tables, by themselves: what is due, what is known, what is sent again."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from connections.warehouse import Warehouse
from fleet.board import Board, Changes
from fleet.settings import Settings
from fleet.standing import AlertSoFar, Standing
from streaming.outbox import Outbox
from tests.alerts_told import alert, notification, resolved

pytestmark = pytest.mark.stack


class Tables:
    """The outbox, taken over, with `ops` as its one receiver."""

    def __init__(self, settings: Settings):
        self.warehouse = Warehouse.of(settings)
        self.outbox = Outbox(self.warehouse)
        self.outbox.take_over(now())
        with self.warehouse.transaction() as connection:
            self.outbox.receivers(connection, {"ops": "webhook"}, now())

    def put(self, *messages: Any) -> None:
        with self.warehouse.transaction() as connection:
            self.outbox.put(connection, messages, now())

    def due(self) -> list[Any]:
        return self.outbox.due("ops", now(), 50)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        return self.warehouse.rows(sql)

    def close(self) -> None:
        with self.warehouse.transaction() as connection:
            for table in ("outbox", "dispatch_alerts", "dispatch_groups", "dispatch_receivers"):
                connection.execute(text(f"DELETE FROM {table}"))
        self.warehouse.close()


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def tables(settings_for: Callable[[str], Settings]) -> Iterator[Tables]:
    tables = Tables(settings_for("dispatcher"))
    yield tables
    tables.close()


KNOWN = [
    ("as it was told", {"told": "warning"}, ["warning"]),
    ("what is held back of it is not told", {"told": "warning", "held": "maintenance"}, ["warning"]),
    ("never told", {"held": "silenced"}, []),
    ("told in a digest to come", {"told": "warning", "digest": "firing"}, []),
    ("told how it is now", {"told": "critical"}, ["critical"]),
]


@pytest.mark.parametrize(("standing", "severities"), [k[1:] for k in KNOWN], ids=[k[0] for k in KNOWN])
def test_what_is_kept_alive_is_what_was_told(tables: Tables, standing: Any, severities: list[str]) -> None:
    risen = alert(2, severity="critical", severities=("warning", "critical"))
    board = Board([AlertSoFar(alert=risen, standings={"ops": Standing(**standing)})])
    with tables.warehouse.transaction() as connection:
        tables.outbox.write(connection, board, Changes(alerts={risen.alert_id}), now())
    assert [each.severity for each in tables.outbox.known_to("ops")] == severities
