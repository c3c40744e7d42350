"""The stack runs a Grafana of the user's own. No registry has one: a stand-in takes the same words and the same
configuration, and answers where Grafana would."""

import json
from pathlib import Path

import pytest

from fleet.errors import ConfigurationError
from stack.ports import Ports
from stack.stack import Stack
from stack.status import rows
from tests.conftest import own_home

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

STAND_IN = """\
#!/usr/bin/env python3
import configparser, http.server, json, os, sys

assert sys.argv[1] == "server", sys.argv
words = dict(zip(sys.argv[2::2], sys.argv[3::2]))
assert set(words) == {"--homepath", "--config"}, words
settings = configparser.ConfigParser(interpolation=None)
settings.read(words["--config"])
with open(os.path.join(words["--homepath"], "told.json"), "w") as told:
    json.dump({"words": words, "password": os.environ["WAREHOUSE_PASSWORD"], "home": os.environ["HOME"]}, told)

class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()
        self.wfile.write(b'{"database": "ok", "version": "9.4.7"}')

server = settings["server"]
http.server.HTTPServer((server["http_addr"], int(server["http_port"])), Health).serve_forever()
"""


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    server = tmp_path / "grafana" / "bin" / "grafana"
    server.parent.mkdir(parents=True)
    server.write_text(STAND_IN)
    server.chmod(0o755)
    return tmp_path / "grafana"


def test_it_runs_beside_the_rest(unpacked: Path) -> None:
    with own_home() as home:
        environ = {"GRAFANA_HOME": str(unpacked), "PATH": "/usr/bin:/bin"}
        stack = Stack(home, Ports.free(), ("grafana",), environ=environ)
        stack.up()
        try:
            port_of = {row[0]: row[3] for row in rows(stack)}
            told = json.loads((unpacked / "told.json").read_text())
        finally:
            stack.down()
    assert port_of["grafana"] == str(stack.ports.grafana)
    assert "postgres" in port_of
    assert told["words"]["--homepath"] == str(unpacked)
    assert told["password"] == stack.secrets["DB_WEIR_READER"]
    assert told["home"] == str(stack.layout.user_home)


def test_a_folder_without_grafana_stops_the_start(tmp_path: Path) -> None:
    with own_home() as home:
        stack = Stack(home, Ports.free(), ("grafana",), environ={"GRAFANA_HOME": str(tmp_path)})
        with pytest.raises(ConfigurationError, match="there is no program bin/grafana"):
            stack.up()
        assert not stack.supervisor.running()
