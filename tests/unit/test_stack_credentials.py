"""Secrets: made once, private, and each role's own."""

import stat
import uuid

import pytest

from fleet.settings import OPT_IN, Settings, read_env_file
from stack import kafka
from stack.credentials import (
    ROLES,
    SERVICES,
    admin_url,
    cluster_id,
    ensure_secrets,
    login_url,
    owner_url,
    write_env_files,
)  # fmt: skip
from stack.layout import Layout
from stack.ports import Ports
from stack.prefix import Prefix

PORTS = Ports.from_base(7000)


@pytest.fixture
def layout(tmp_path):
    layout = Layout(tmp_path / "home")
    layout.make()
    return layout


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_secrets_are_made_once_and_are_private(layout):
    first = ensure_secrets(layout)
    assert ensure_secrets(layout) == first
    assert mode(layout.env) == 0o700
    assert mode(layout.env_file("secrets")) == 0o600
    passwords = [value for key, value in first.items() if not key.endswith("CLUSTER_ID")]
    assert len(set(passwords)) == len(passwords)
    assert min(len(value) for value in passwords) >= 32
    assert len(first["AIRFLOW_JWT"]) >= 64


def test_a_secret_that_is_new_in_a_version_is_added(layout):
    first = ensure_secrets(layout)
    path = layout.env_file("secrets")
    path.write_text("".join(f"{k}={v}\n" for k, v in first.items() if k != "SPARK_TOKEN"))
    second = ensure_secrets(layout)
    assert {k: v for k, v in second.items() if k != "SPARK_TOKEN"} == {
        k: v for k, v in first.items() if k != "SPARK_TOKEN"
    }
    assert second["SPARK_TOKEN"]


def test_env_files_load_and_hold_only_the_own_role(layout):
    secrets = ensure_secrets(layout)
    write_env_files(layout, PORTS, secrets, {"WEIR_JAVA_HOME": "/j"}, {"WEIR_LAKE_URI": "file:///lake"})
    for role in ROLES:
        path = layout.env_file(role)
        assert mode(path) == 0o600
        settings = Settings.load({"WEIR_ENV_FILE": str(path)})
        assert settings.role == role
        assert settings.kafka_user == role
        assert settings.kafka_password.get_secret_value() == secrets[f"KAFKA_{role.upper()}"]
        assert settings.lake == "file:///lake"
        for service in (*SERVICES, *OPT_IN):
            own = getattr(PORTS, f"{service}_metrics") if role == service else 0
            assert getattr(settings, f"{service}_metrics_port") == own
        text = path.read_text()
        assert secrets["DB_WEIR"] not in text
        assert secrets["KAFKA_ADMIN"] not in text
        for other in ROLES:
            if other != role:
                assert secrets[f"KAFKA_{other.upper()}"] not in text
    assert "WEIR_MQTT_PASSWORD" not in read_env_file(layout.env_file("landing"))
    assert "WEIR_DB_URL" not in read_env_file(layout.env_file("landing"))
    assert "://weir_registry:" in read_env_file(layout.env_file("bridge"))["WEIR_DB_URL"]
    assert "WEIR_SPARK_REMOTE" not in read_env_file(layout.env_file("live"))
    stream = read_env_file(layout.env_file("stream"))
    assert "WEIR_SPARK_REMOTE" not in stream  # a driver of its own
    assert stream["WEIR_JAVA_HOME"] == "/j"
    assert "://weir_stream:" in stream["WEIR_DB_URL"]


def test_the_inbox_and_who_sends_to_it_know_the_same_and_no_more(layout):
    secrets = ensure_secrets(layout)
    write_env_files(layout, PORTS, secrets, {}, {})
    inbox, dispatcher = (read_env_file(layout.env_file(role)) for role in ("inbox", "dispatcher"))
    own = {key: value for key, value in inbox.items() if key.startswith("WEIR_INBOX_")}
    assert own.pop("WEIR_INBOX_KEY")
    assert own == {key: value for key, value in dispatcher.items() if key.startswith("WEIR_INBOX_")}
    assert set(inbox) - {"WEIR_HOME", "WEIR_ROLE", "WEIR_INBOX_KEY"} == set(own)
    assert mode(layout.env_file("inbox")) == 0o600
    for role in ROLES:
        asks = role in ("operator", "dispatcher")
        assert (secrets["ALERTMANAGER"] in layout.env_file(role).read_text()) is asks


@pytest.mark.parametrize("has_grafana", [False, True], ids=["without it", "with it"])
def test_the_dispatcher_knows_the_way_into_grafana_where_there_is_one(layout, has_grafana):
    secrets = ensure_secrets(layout)
    layout.env_file("dispatcher").write_text("OPS_SECRET=x\nWEIR_GRAFANA_URL=http://of.before\n")
    write_env_files(layout, PORTS, secrets, {}, {}, has_grafana)
    files = {role: read_env_file(layout.env_file(role)) for role in (*ROLES, "inbox")}
    assert {role for role, known in files.items() if secrets["GRAFANA_ADMIN"] in known.values()} == (
        {"operator", "dispatcher"} if has_grafana else {"operator"}
    )
    url = f"http://127.0.0.1:{PORTS.grafana}" if has_grafana else None
    assert (files["dispatcher"].get("WEIR_GRAFANA_URL"), files["dispatcher"]["OPS_SECRET"]) == (url, "x")


def test_a_cluster_id_is_no_option():
    made = iter([uuid.UUID(int=0xF8 << 120), uuid.UUID(int=0xFB << 120), uuid.UUID(int=1)])
    assert cluster_id(lambda: next(made)) == "AAAAAAAAAAAAAAAAAAAAAQ"


def test_ports_outlive_the_shell(layout):
    write_env_files(layout, PORTS, ensure_secrets(layout), {}, {})
    settings = Settings.load({"WEIR_HOME": str(layout.home)})
    assert Ports.from_settings(settings, {}) == PORTS


def test_a_database_of_the_users_own_is_remembered(layout):
    url = "postgresql+psycopg2://me:pw@db.example:5433/sensors?sslmode=require"
    secrets = ensure_secrets(layout, url)
    assert ensure_secrets(layout) == secrets
    assert owner_url(secrets, PORTS) == admin_url(secrets, PORTS) == url
    batch = login_url("weir_batch", secrets, PORTS)
    assert (
        batch == f"postgresql+psycopg2://weir_batch:{secrets['DB_WEIR_BATCH']}@db.example:5433/sensors?sslmode=require"
    )
    assert login_url("weir_airflow", secrets, PORTS, "weir_airflow").split("?")[0].endswith("/weir_airflow")


def test_kafka_is_formatted_with_nothing_secret_on_the_command_line(layout, tmp_path):
    """A stand-in for java keeps what it was told: on its command line, and in the file named there."""
    java = tmp_path / "prefix/java/bin/java"
    java.parent.mkdir(parents=True)
    java.write_text(f'#!/bin/sh\ncd {tmp_path}\necho "$@" >line\nstat -c %a "${{1#@}}" >mode\ncp "${{1#@}}" file\n')
    java.chmod(0o755)
    secrets = ensure_secrets(layout)
    kafka.initialise(layout, Prefix(tmp_path / "prefix", tmp_path / "prefix/java"), secrets)
    line, told = (tmp_path / "line").read_text(), (tmp_path / "file").read_text()
    assert line == f"@{layout.tmp}/kafka-format.args\n"
    assert not list(layout.tmp.iterdir())
    assert (tmp_path / "mode").read_text() == "600\n"
    assert '"SCRAM-SHA-512=[name=admin,iterations=4096,salt=' in told
    assert "saltedpassword=" in told
    assert (layout.data / kafka.FORMATTED_BY).read_text() == f"{kafka.version()}\n"
    assert f'"--cluster-id={secrets["KAFKA_CLUSTER_ID"]}"' in told


def test_an_argument_file_keeps_blanks_quotes_and_backslashes():
    assert kafka.argument_file(["a b", 'say "x"', "c\\d"]) == '"a b"\n"say \\"x\\""\n"c\\\\d"\n'
