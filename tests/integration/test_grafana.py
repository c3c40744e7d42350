"""The stack runs a Grafana of the user's own. No registry has one: a stand-in takes the same words and the same
configuration, and answers where Grafana would, also to who writes annotations."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from connections import kafka
from fleet.channels import TRANSITIONS
from fleet.errors import ConfigurationError
from fleet.settings import CHECKOUT, read_env_file
from fleet.transition import encode_transition
from stack.ports import Ports
from stack.stack import Stack
from stack.status import rows
from tests.conftest import JVM, own_home
from tests.integration.processes import wait_for
from tests.unit.alert_log import transition

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

STAND_IN = f"""\
#!/usr/bin/env python3
import configparser, json, os, sys, threading

sys.path.insert(0, {str(CHECKOUT)!r})
from tests.integration.annotations_api import AnnotationsApi

assert sys.argv[1] == "server", sys.argv
words = dict(zip(sys.argv[2::2], sys.argv[3::2]))
assert set(words) == {{"--homepath", "--config"}}, words
settings = configparser.ConfigParser(interpolation=None)
settings.read(words["--config"])
with open(os.path.join(words["--homepath"], "told.json"), "w") as told:
    json.dump({{"words": words, "password": os.environ["WAREHOUSE_PASSWORD"], "home": os.environ["HOME"]}}, told)

server = settings["server"]
assert server["http_addr"] == "127.0.0.1"
with AnnotationsApi(port=int(server["http_port"]), password=settings["security"]["admin_password"]):
    threading.Event().wait()
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    server = tmp_path_factory.mktemp("unpacked") / "grafana" / "bin" / "grafana"
    server.parent.mkdir(parents=True)
    server.write_text(STAND_IN)
    server.chmod(0o755)
    return server.parent.parent


@pytest.fixture(scope="module")
def environ(unpacked: Path) -> dict[str, str]:
    return {"GRAFANA_HOME": str(unpacked), "PATH": "/usr/bin:/bin", **JVM}


@pytest.fixture(scope="module")
def beside(environ: dict[str, str]) -> Iterator[Stack]:
    """A stack with it and the dispatcher, and the file of receivers that comes with Weir."""
    with own_home() as home:
        stack = Stack(home, Ports.free(), ("grafana", "dispatcher"), environ=environ)
        stack.up()
        try:
            yield stack
        finally:
            stack.down()


def test_it_runs_beside_the_rest(beside: Stack, unpacked: Path) -> None:
    port_of = {row[0]: row[3] for row in rows(beside)}
    told = json.loads((unpacked / "told.json").read_text())
    assert port_of["grafana"] == str(beside.ports.grafana)
    assert "postgres" in port_of
    assert told["words"]["--homepath"] == str(unpacked)
    assert told["password"] == beside.secrets["DB_WEIR_READER"]
    assert told["home"] == str(beside.layout.user_home)


def test_an_alert_is_an_annotation_in_it(beside: Stack) -> None:
    """From its first transition to its end, though the other receivers of the file are not there."""
    settings = beside.settings("operator")

    def annotations() -> list[dict[str, Any]]:
        login = ("admin", settings.grafana_password.get_secret_value())
        found: list[dict[str, Any]] = requests.get(f"{settings.grafana_url}/api/annotations", auth=login).json()
        return found

    began = datetime.now(UTC)
    producer = kafka.producer(beside.settings("alerts"), "tests-transitions", linger_ms=0)
    try:
        for number, to in ((1, "firing"), (2, "resolved")):
            said = transition("a", number, to, at=datetime.now(UTC))
            said = msgspec.structs.replace(said, starts_at_us=round(began.timestamp() * 1_000_000))
            producer.send(TRANSITIONS, encode_transition(said), b"a").get(timeout=60)
            wait_for(
                lambda to=to: [one for one in annotations() if (one["timeEnd"] > one["time"]) == (to == "resolved")],  # type: ignore[misc]
                30, lambda: f"{annotations()}\n{beside.log_tail('dispatcher')}",
            )  # fmt: skip
    finally:
        producer.close(5)
    (one,) = annotations()
    assert "alert:a" in one["tags"]
    assert "over (recovered)" in one["text"]


def test_one_that_runs_goes_on_though_nothing_names_it(beside: Stack) -> None:
    Stack(beside.layout.home, beside.ports, ("dispatcher",), environ={"PATH": "/usr/bin:/bin"}).setup()
    known = read_env_file(beside.layout.env_file("dispatcher"))
    assert known["WEIR_GRAFANA_URL"] == f"http://127.0.0.1:{beside.ports.grafana}"


def test_a_folder_without_grafana_stops_the_start(tmp_path: Path) -> None:
    with own_home() as home:
        stack = Stack(home, Ports.free(), ("grafana",), environ={"GRAFANA_HOME": str(tmp_path)})
        with pytest.raises(ConfigurationError, match="there is no program bin/grafana"):
            stack.up()
        assert not stack.supervisor.running()
