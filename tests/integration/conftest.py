"""The three servers, on ports of their own, for all integration tests; down before the end-to-end tests begin."""

from collections.abc import Callable, Iterator

import pytest

from fleet.settings import Settings
from stack.ports import Ports
from stack.stack import Stack
from stack.supervisor import marked
from tests.conftest import own_home


@pytest.fixture(scope="package")
def stack() -> Iterator[Stack]:
    """Mosquitto, Kafka and TimescaleDB, fresh, with Weir's topics, users and tables; down at the end."""
    with own_home() as home:
        running = Stack(home, Ports.free(), ("mosquitto", "kafka", "postgres"), environ={})
        running.up()
        try:
            yield running
        finally:
            running.down()
        assert marked(home) == []


@pytest.fixture(scope="package")
def settings_for(stack: Stack) -> Callable[[str], Settings]:
    """The settings of a role (operator, bridge, landing, live, batch, simulator) on the tests' stack."""
    return stack.settings
