"""What is asked of the table of commands; by itself it is in tests/integration/test_command_table.py."""

from typing import Any

import pytest

from fleet.errors import CommandError
from streaming.command_table import found, full_id


class Rows:
    """A warehouse that has one command, whatever is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def rows(self, statement: str, **_: Any) -> list[dict[str, Any]]:
        self.asked.append(statement)
        return [{"command_id": "c1"}]


def test_one_command_is_found_by_the_index_of_its_id() -> None:
    warehouse: Any = Rows()
    found(warehouse, "c1")
    assert [statement.partition(" WHERE ")[2].split(" ORDER")[0] for statement in warehouse.asked] == [
        "command_id = :id"
    ] * 2


@pytest.mark.parametrize("given", ["", "\0", "c1\0", "\ud800"])
def test_what_no_table_can_hold_is_not_asked_for(given: str) -> None:
    warehouse: Any = Rows()
    for ask in (found, full_id):
        with pytest.raises(CommandError, match="no command"):
            ask(warehouse, given)
    assert warehouse.asked == []
