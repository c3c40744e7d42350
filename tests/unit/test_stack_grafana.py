"""The configuration and the program line of a Grafana of the user's own."""

from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

from fleet.errors import ConfigurationError
from fleet.settings import Settings
from stack import configuration, grafana, programs
from stack.credentials import ensure_secrets
from stack.layout import Layout
from stack.ports import Ports
from stack.stack import with_needs

PORTS = Ports.from_base(7000)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "home")
    layout.make()
    return layout


@pytest.fixture
def unpacked(tmp_path: Path) -> dict[str, str]:
    server = tmp_path / "grafana-9.4.7" / "bin" / "grafana"
    server.parent.mkdir(parents=True)
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    return {"GRAFANA_HOME": str(server.parent.parent)}


def written(layout: Layout, environ: dict[str, str], secrets: dict[str, str]) -> Path:
    configuration.write(layout, PORTS, secrets, [grafana.program(layout, environ, secrets)], Settings())
    return layout.config / "grafana"


def test_nobody_comes_in_but_by_the_generated_password(layout: Layout, unpacked: dict[str, str]) -> None:
    secrets = ensure_secrets(layout)
    folder = written(layout, unpacked, secrets)
    settings = ConfigParser(interpolation=None)
    settings.read(folder / "grafana.ini")
    assert settings["security"]["admin_password"] == secrets["GRAFANA_ADMIN"]
    assert settings["security"]["secret_key"] == secrets["GRAFANA_SECRET"]
    assert not settings["auth.anonymous"].getboolean("enabled")
    assert not settings["users"].getboolean("allow_sign_up")
    assert settings["server"]["http_addr"] == "127.0.0.1"
    assert settings["server"]["http_port"] == str(PORTS.grafana)
    assert Path(settings["dashboards"]["default_home_dashboard_path"]).is_file()
    assert Path(settings["paths"]["provisioning"]) == folder / "provisioning"
    assert Path(settings["paths"]["data"]).is_dir()
    for path in (p for p in folder.rglob("*") if p.is_file()):
        assert path.stat().st_mode & 0o077 == 0, path


def test_the_data_source_is_the_warehouse_by_the_login_that_reads(layout: Layout, unpacked: dict[str, str]) -> None:
    secrets = ensure_secrets(layout)
    folder = written(layout, unpacked, secrets)
    text = (folder / "provisioning" / "datasources" / "weir.yaml").read_text()
    (source,) = yaml.safe_load(text)["datasources"]
    assert (source["url"], source["user"], source["database"]) == (f"127.0.0.1:{PORTS.postgres}", "weir_reader", "weir")
    assert source["secureJsonData"] == {"password": "$WAREHOUSE_PASSWORD"}
    assert secrets["DB_WEIR_READER"] not in text
    program = grafana.program(layout, unpacked, secrets)
    assert program.environment["WAREHOUSE_PASSWORD"] == secrets["DB_WEIR_READER"]
    (provider,) = yaml.safe_load((folder / "provisioning" / "dashboards" / "weir.yaml").read_text())["providers"]
    assert list(Path(provider["options"]["path"]).glob("*.json"))


def test_a_warehouse_of_the_users_own(layout: Layout, unpacked: dict[str, str]) -> None:
    secrets = ensure_secrets(layout, "postgresql+psycopg2://me:pw@db.example/sensors?sslmode=require")
    text = (written(layout, unpacked, secrets) / "provisioning" / "datasources" / "weir.yaml").read_text()
    (source,) = yaml.safe_load(text)["datasources"]
    assert (source["url"], source["database"]) == ("db.example:5432", "sensors")
    assert source["jsonData"]["sslmode"] == "require"


def test_the_program_line(layout: Layout, unpacked: dict[str, str]) -> None:
    program = grafana.program(layout, unpacked, ensure_secrets(layout))
    home = Path(unpacked["GRAFANA_HOME"])
    config = layout.config / "grafana" / "grafana.ini"
    assert program.command == (home / "bin" / "grafana", "server", "--homepath", home, "--config", config)


@pytest.mark.parametrize("environ", [{}, {"GRAFANA_HOME": "/nowhere"}], ids=["not set", "not there"])
def test_where_there_is_none_the_error_says_what_to_do(layout: Layout, environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r"GRAFANA_HOME=.*unpack Grafana, 9\.4 or newer"):
        grafana.program(layout, environ, ensure_secrets(layout))


def test_it_is_started_where_it_is_named() -> None:
    assert programs.everything({}) == programs.ALL
    assert programs.everything({"GRAFANA_HOME": "/opt/grafana"}) == (*programs.ALL, "grafana")
    assert with_needs(["grafana"]) == ("postgres", "grafana")
