"""The table of commands by itself: who may write what of it, each state noted once, and what is forgotten."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from connections.warehouse import Warehouse
from etl.retention import expire
from fleet.catalog import load_catalog
from fleet.command_state import Move, Request
from fleet.errors import CommandError, Refused
from fleet.settings import Settings
from streaming.command_table import ask, begun, found, full_id, moved, under_way

pytestmark = pytest.mark.stack

SettingsFor = Callable[[str], Settings]
NOW = datetime.now(UTC)


@pytest.fixture
def operator(settings_for: SettingsFor) -> Iterator[Warehouse]:
    warehouse = Warehouse.of(settings_for("operator"))
    yield warehouse
    warehouse.close()


@pytest.fixture
def commander(settings_for: SettingsFor) -> Iterator[Warehouse]:
    warehouse = Warehouse.of(settings_for("commander"))
    yield warehouse
    with warehouse.transaction() as connection:
        connection.exec_driver_sql("UPDATE commands SET state = 'expired' WHERE command_id LIKE 'table-%%'")
    warehouse.close()


def asked(operator: Warehouse, command_id: str, name: str = "on") -> bool:
    request = Request(
        command_id=command_id, system="home", type="lamp", device_id="table-lamp", site="home-1", command=name,
        args={"level": 40.0}, via="cli", by="ada", expires_at=NOW + timedelta(60),
    )  # fmt: skip
    with operator.transaction() as connection:
        return ask(connection, request)


def test_each_state_is_noted_once_by_whoever_moves_it(operator: Warehouse, commander: Warehouse) -> None:
    assert asked(operator, "table-1")
    assert not asked(operator, "table-1")
    with pytest.raises(CommandError, match="'table-1' is another one already: on to lamp table-lamp"):
        asked(operator, "table-1", "off")
    (command,) = (c for c in under_way(commander, ["requested"]) if c.command_id == "table-1")
    command.sets = {"on": 1.0}
    with commander.transaction() as connection:
        first = begun(connection, command, NOW)
        assert begun(connection, command, NOW + timedelta(seconds=9)) == first
    (again,) = (c for c in under_way(commander, ["requested"]) if c.command_id == "table-1")
    assert (again.sets, again.sent_at) == ({"on": 1.0}, first)
    with commander.transaction() as connection:
        assert moved(connection, command, Move("sent", "to nobody"), NOW)
        assert not moved(connection, command, Move("refused"), NOW)
    shown = found(operator, "table-1")
    assert [(h["state"], h["reason"]) for h in shown["history"]] == [("requested", ""), ("sent", "to nobody")]
    assert (shown["sets"], shown["sent_at"], shown["args"]) == ({"on": 1}, first, {"level": 40})


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE commands SET state = 'obeyed'",
        "DELETE FROM commands",
        "INSERT INTO command_history VALUES ('x', 'obeyed', now(), '')",
        "INSERT INTO commands (command_id, system, type, device_id, site, command, via, by, expires_at, state)"
        " VALUES ('x', 'h', 'l', 'd', 's', 'on', 'cli', 'eve', now(), 'obeyed')",
    ],
)
def test_an_operator_asks_and_does_no_more(operator: Warehouse, statement: str) -> None:
    with pytest.raises(Refused, match="permission denied"), operator.transaction() as connection:
        connection.exec_driver_sql(statement)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("nothing-like-it", "no command 'nothing-like-it'"),
        ("", "no command ''"),
        ("table-many-", "more than one command"),
        ("table-many-0\0", "no command 'table-many-0\\\\x00'"),
        ("\ud800", "no command"),
    ],
)
def test_an_id_that_is_none(operator: Warehouse, commander: Warehouse, given: str, says: str) -> None:
    for number in range(2):
        asked(operator, f"table-many-{number}")
    with pytest.raises(CommandError, match=says):
        full_id(operator, given)
    with pytest.raises(CommandError, match="no command"):
        found(operator, given)


def test_the_beginning_of_an_id_is_for_people_at_a_terminal(operator: Warehouse, commander: Warehouse) -> None:
    for name in ("table-first", "table-first-2", "table-second"):
        asked(operator, name)
    assert full_id(operator, "table-s") == "table-second"
    assert full_id(operator, "table-first") == "table-first"
    assert found(operator, "table-second")["command_id"] == "table-second"
    with pytest.raises(CommandError, match="no command 'table-s'"):
        found(operator, "table-s")


def test_what_has_ended_long_ago_is_forgotten(
    operator: Warehouse, commander: Warehouse, settings_for: SettingsFor
) -> None:
    for name in ("table-old", "table-open", "table-new"):
        asked(operator, name)
    with commander.transaction() as connection:
        connection.exec_driver_sql(
            "UPDATE commands SET state = 'obeyed' WHERE command_id IN ('table-old', 'table-new')"
        )
        connection.exec_driver_sql(
            "UPDATE commands SET requested_at = now() - INTERVAL '50 years'"
            " WHERE command_id IN ('table-old', 'table-open')"
        )
    batch = Warehouse.of(settings_for("batch"))
    try:
        deleted = expire(batch, load_catalog(settings_for("batch").types_dir), datetime.now(UTC))
    finally:
        batch.close()
    assert deleted["all types"]["commands"] == 1
    for table in ("commands", "command_history"):
        left = {row["command_id"] for row in operator.rows(f"SELECT command_id FROM {table}")}
        assert left >= {"table-open", "table-new"} and "table-old" not in left
