"""The streaming job as a program of the stack: asked for by its variable, kept alive by the supervisor."""

import os
import signal
from datetime import UTC, datetime, timedelta

import pytest

from connections import kafka
from connections.warehouse import Warehouse
from fleet.catalog import load_catalog
from fleet.errors import WeirError
from fleet.reading import Reading, encode_reading, to_epoch_us
from stack import readiness
from stack.ports import Ports
from stack.programs import everything
from stack.stack import Stack
from stack.supervisor import marked
from tests.conftest import JVM, own_home
from tests.integration.processes import wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
SYSTEM, TYPE = "weather", "weather_station"
ENVIRON = {**JVM, "WEIR_STREAM_SYSTEMS": SYSTEM, "WEIR_STREAM_TRIGGER_SECONDS": "0.5"}
WANTED = ("kafka", "postgres", "stream")


def write(stack: Stack, begin: datetime, seconds: range) -> None:
    """A reading a second, as warm as the second's number."""
    topic = load_catalog(stack.settings().types_dir).type(TYPE).topic
    producer = kafka.producer(stack.settings("simulator"), "tests-writer")
    for second in seconds:
        at = to_epoch_us(begin + timedelta(seconds=second))
        reading = Reading("s1", TYPE, "field", at, {"temperature": float(second)}, second, 1)
        producer.send(topic, encode_reading(reading), b"s1")
    kafka.close(producer, 20)


def test_it_is_started_killed_and_started_again_with_the_same_figures() -> None:
    with own_home() as home:
        services = tuple(name for name in everything(ENVIRON) if name in WANTED)
        assert services == WANTED
        stack = Stack(home, Ports.free(), services, ENVIRON)
        stack.up()
        warehouse = Warehouse.of(stack.settings())

        def figures() -> list[tuple[object, ...]]:
            rows = warehouse.rows("SELECT bucket, count, min, max, mean, last FROM rollups_live")
            return [tuple(row.values()) for row in rows]

        def log() -> str:
            return f"{figures()}\n{stack.log_tail('stream')}"

        def runs_anew() -> bool:
            if stack.supervisor.programs()["stream"]["pid"] in (0, pid):
                return False
            try:
                readiness.check("stream", stack.ports, stack.secrets)
            except WeirError:
                return False
            return True

        try:
            minute = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=2)
            write(stack, minute, range(20))
            wait_for(lambda: figures() == [(minute, 20, 0.0, 19.0, 9.5, 19.0)], 30, log, every=0.5)
            pid = stack.supervisor.programs()["stream"]["pid"]
            os.kill(pid, signal.SIGKILL)
            write(stack, minute, range(20, 40))
            wait_for(runs_anew, 60, log, every=0.5)
            write(stack, minute, range(40, 60))
            wait_for(lambda: figures() == [(minute, 60, 0.0, 59.0, 29.5, 59.0)], 30, log, every=0.5)
        finally:
            warehouse.close()
            stack.down()
        assert marked(home) == []
