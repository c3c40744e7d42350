"""Prerequisites, configuration and the order of starting."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.catalog import load_catalog
from fleet.errors import ConfigurationError
from fleet.settings import Settings
from stack import configuration, environment, prerequisites, programs, provision
from stack.credentials import ensure_secrets, write_env_files
from stack.layout import Layout
from stack.ports import Ports
from stack.prefix import Prefix
from stack.render import for_supervisor, rendered
from stack.stack import with_needs


def test_missing_programs_are_all_named(tmp_path):
    (problem,) = prerequisites.missing_programs({"PATH": str(tmp_path)})[:1]
    for name in ("apt-get", "dpkg-deb", "WEIR_DB_URL"):
        assert name in problem


def test_a_database_of_the_users_own_needs_no_apt_but_servers(tmp_path):
    environ = {"PATH": str(tmp_path), "WEIR_DB_URL": "postgresql://x"}
    named = "\n".join(prerequisites.missing_programs(environ))
    for name in ("mosquitto", "prometheus-alertmanager"):
        assert f"install {name}" in named
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert prerequisites.missing_programs(environ) == []


def test_too_little_disk_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(prerequisites, "NEEDED_BYTES", 10**18)
    problem = prerequisites.short_of_disk(tmp_path)
    assert problem is not None
    assert "GB free and Weir needs" in problem


def test_the_bootstrap_refuses_a_python_that_does_not_fit():
    done = subprocess.run(
        [sys.executable, "stack/bootstrap.py"], capture_output=True, text=True, cwd=prerequisites.CHECKOUT,
        env={"PYTHON": "/bin/false", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 1
    assert "PYTHON=/bin/false is not a complete Python" in done.stderr


@pytest.mark.parametrize("name", ["uv", "setuptools", "pyspark"])
def test_a_requirement_is_taken_from_the_lock_with_its_hashes(name):
    for lock in sorted((prerequisites.CHECKOUT / "requirements").glob("py3*.txt")):
        text = environment.requirement(lock.read_text(), name)
        assert text.startswith(f"{name}==")
        assert "--hash=sha256:" in text
        assert "\n    --hash" in text
        assert not any(line and not line.startswith((name, " ", "#")) for line in text.splitlines())


def test_uv_uses_what_pip_is_configured_to():
    pip = {"index-url": "https://mirror.example/simple", "cert": "/ca.pem", "find-links": "/a /b"}
    made = environment.uv_environment({"HOME": "/h", "VIRTUAL_ENV": "/other"}, pip)
    assert made["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    assert made["SSL_CERT_FILE"] == "/ca.pem"
    assert made["UV_FIND_LINKS"] == "/a,/b"
    assert "VIRTUAL_ENV" not in made
    assert environment.uv_environment({"HOME": "/h", "UV_DEFAULT_INDEX": "mine"}, pip)["UV_DEFAULT_INDEX"] == "mine"


def test_pip_writes_nothing_into_the_users_home(tmp_path):
    """pip runs `rustc --version`, and rustup's rustc writes settings into RUSTUP_HOME, or ~/.rustup without it."""
    home, rustup = tmp_path / "home", tmp_path / "rustc"
    home.mkdir()
    rustup.write_text('#!/bin/sh\nmkdir -p "${RUSTUP_HOME:-$HOME/.rustup}" && echo "$RUSTUP_HOME" > "$0.asked"\n')
    rustup.chmod(0o755)
    environ = environment.uv_environment({"HOME": str(home), "PATH": f"{tmp_path}:/usr/bin:/bin"}, {})
    nothing = [
        *environment.pip_command(),
        "download",
        "-q",
        "--no-index",
        "--no-cache-dir",
        "-d",
        home,
        "no-such-thing",
    ]
    assert subprocess.run(nothing, env=environ, capture_output=True).returncode == 1
    assert (tmp_path / "rustc.asked").read_text().startswith(str(environment.cache_folder()))
    assert list(home.iterdir()) == []


def test_supervisord_gets_words_quoted_and_percents_doubled():
    assert for_supervisor(("a b", "50%")) == "'a b' 50%%"
    assert for_supervisor('say "x" 5%') == 'say \\"x\\" 5%%'


def test_a_value_that_is_missing_is_an_error():
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError):
        rendered("mosquitto/mosquitto.conf.j2", {})


def test_every_configuration_is_private_and_without_anonymous_access(tmp_path):
    layout = Layout(tmp_path / "a deep 100% home")
    layout.make()
    secrets, ports = ensure_secrets(layout), Ports.from_base(7000)
    prefix = Prefix(tmp_path / "prefix", tmp_path / "java")
    base = programs.base_environment(layout, {"PATH": "/bin", "SECRET": "no"})
    table = [programs.with_environment(p, base) for p in (
        programs.kafka(layout, prefix), programs.mosquitto(layout, prefix), programs.postgres(layout, prefix, ()),
        programs.spark(layout, prefix, "local[2]"), programs.airflow("airflow-api-server", layout, ports, {"A": "b"}),
        programs.service("bridge", layout, {}), programs.alertmanager(layout, prefix, ports),
        programs.service("inbox", layout, {}),
    )]  # fmt: skip
    configuration.write(layout, ports, secrets, table, Settings())
    for path in (p for folder in (layout.config, layout.postgres / "conf") for p in folder.rglob("*") if p.is_file()):
        assert path.stat().st_mode & 0o077 == 0, path
    assert "allow_anonymous false" in (layout.config / "mosquitto.conf").read_text()
    kafka = (layout.config / "server.properties").read_text()
    assert "PLAINTEXT:PLAINTEXT" not in kafka
    assert "allow.everyone.if.no.acl.found=false" in kafka
    assert "trust" not in (layout.postgres / "conf" / "pg_hba.conf").read_text()
    parsed = configparser.RawConfigParser()
    parsed.read(layout.config / "supervisord.conf")
    assert {s.removeprefix("program:") for s in parsed.sections() if s.startswith("program:")} == {
        p.name for p in table
    }
    assert "SECRET" not in (layout.config / "supervisord.conf").read_text()
    passwords = (layout.config / "mosquitto.passwd").read_text()
    assert secrets["MQTT_BRIDGE"] not in passwords
    assert secrets["ALERTMANAGER"] not in (layout.config / "alertmanager-web.yml").read_text()


def test_airflow_gets_the_batch_role_and_no_other(tmp_path):
    layout = Layout(tmp_path)
    layout.make()
    secrets = ensure_secrets(layout)
    made = configuration.airflow_environment(layout, Ports.from_base(7000), secrets, {"WEIR_LOG_LEVEL": "DEBUG"})
    assert made["WEIR_ENV_FILE"] == str(layout.env_file("batch"))
    assert made["WEIR_LOG_LEVEL"] == "DEBUG"
    assert made["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].endswith(":7003/weir_airflow")
    assert secrets["DB_WEIR"] not in str(made)


@pytest.mark.parametrize(
    ("master", "here"), [("local[3]", True), ("local", True), ("local-cluster[2,1,512]", False), ("spark://a:7", False)]
)
def test_spark_runs_where_the_setting_says(tmp_path, master, here):
    layout = Layout(tmp_path)
    layout.make()
    program = programs.spark(layout, Prefix(tmp_path / "prefix", tmp_path / "java"), master)
    settings = Settings(spark_master=master)
    configuration.write(layout, Ports.from_base(7000), ensure_secrets(layout), [program], settings)
    text = (layout.config / "spark" / "spark-defaults.conf").read_text()
    assert f"spark.master {master}\n" in text
    assert ("spark.driver.host 127.0.0.1\n" in text) == here == ("SPARK_LOCAL_IP" in program.environment)
    assert "spark.connect.grpc.binding.address 127.0.0.1\n" in text


def test_what_all_roles_share_stays_until_it_is_given_anew(tmp_path):
    layout = Layout(tmp_path)
    layout.make()
    first = configuration.kept_settings(layout, {"WEIR_TYPES_DIR": "types", "WEIR_LAKE_URI": "s3://b"})
    assert first == {"WEIR_TYPES_DIR": str(Path("types").absolute()), "WEIR_LAKE_URI": "s3://b"}
    write_env_files(layout, Ports.from_base(7000), ensure_secrets(layout), {}, first)
    assert configuration.kept_settings(layout, {}) == first
    assert configuration.kept_settings(layout, {"WEIR_LAKE_URI": ""}) == {"WEIR_TYPES_DIR": first["WEIR_TYPES_DIR"]}


def test_what_the_stack_decides_is_not_passed_on():
    given = {
        "WEIR_LANDING_MAX_ROWS": "5",
        "WEIR_DB_URL": "x",
        "WEIR_KAFKA_PASSWORD": "y",
        "WEIR_PORT_BASE": "1",
        "WEIR_LIVE_METRICS_PORT": "7",
        "PATH": "z",
    }
    assert configuration.passed_settings(given) == {"WEIR_LANDING_MAX_ROWS": "5"}


def test_needs_come_along_in_order():
    assert with_needs(["live"]) == ("kafka", "postgres", "live")
    assert with_needs(programs.ALL) == programs.ALL
    with pytest.raises(ConfigurationError, match="no such service: brdige"):
        with_needs(["brdige"])


def test_who_may_write_readings():
    """Bridge and gateway; the registry control records; the batch what comes back from quarantine; each service its
    own."""
    catalog = load_catalog(Settings().types_dir)
    rights = provision.kafka_rights(catalog)
    writers = {s: {r.user for r in rights if (r.operation, r.name) == ("write", catalog.system(s).topic)}
               for s in catalog.systems}  # fmt: skip
    own = writers.pop("weir")
    assert all(users == {"bridge", "gateway", "registry", "simulator", "batch"} for users in writers.values())
    reporting = {"landing", "live", "alerts", "history", "dispatcher", "commander"}
    assert own == {"bridge", "gateway", "registry", "batch"} | reporting
    assert {r.user for r in rights if r.resource == "topic" and r.name == "*"} == {"batch", "operator"}
    assert not any(right.operation in ("all", "alter", "delete", "create") for right in rights)


def test_the_home_is_short_enough_for_the_sockets_whatever_its_path():
    text = (Path(configuration.CHECKOUT) / "docker/native/supervisord.conf.j2").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("file="))
    assert len(line.removeprefix("file=")) + len(".99999999") < 107
