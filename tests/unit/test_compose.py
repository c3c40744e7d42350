"""docker/compose.yaml, its image, and what its first step writes: as the native stack's tables say."""

import configparser
import json
import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from fleet.default_ports import DEFAULT_PORTS
from fleet.receivers_file import load_receivers
from fleet.settings import SERVICES, Settings, read_env_file
from stack import compose, java, pins, postgres, prefix, programs
from stack.cache import CHECKOUT
from stack.layout import Layout
from stack.places import COMPOSE
from stack.ports import Ports
from stack.prefix import Prefix
from tests import compose_file
from weir.main import build

FILE = compose_file.resolved(compose_file.read())
SERVICES_THERE = FILE["services"]
ONE_SHOT = {"setup", "provision", "finish"}
DOCKERFILE = (CHECKOUT / "docker" / "Dockerfile").read_text()
LASTING = sorted(set(SERVICES_THERE) - ONE_SHOT)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What `setup` writes into its volumes, and to whom it hands each file over."""
    root = tmp_path_factory.mktemp("volumes")
    owners: dict[Path, int] = {}
    compose.configure(
        Layout(root / "secrets"), root / "config", Ports(**DEFAULT_PORTS), {"PATH": "/bin"}, owners.__setitem__
    )
    return root, owners


@pytest.fixture(scope="module")
def secrets(made):
    return read_env_file(made[0] / "secrets" / "env" / "secrets.env")


def text_of(folder):
    return "\n".join(path.read_text() for path in sorted(folder.rglob("*")) if path.is_file())


def test_it_is_what_the_specification_allows():
    schema = json.loads((CHECKOUT / "tests/schemas/compose-spec.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(compose_file.read())


def test_every_program_of_the_native_stack_is_a_service():
    assert set(SERVICES_THERE) == set(programs.KNOWN) | ONE_SHOT | {"weir"}


def version(name):
    """A pinned Debian package's version of its own makers."""
    found = {deb.version for deb in pins.read().debs if deb.name == name}
    return re.sub(r"^\d+:|[-+].*$", "", found.pop())


def test_images_are_of_the_native_stacks_versions():
    (kafka,) = {jar.version for jar in pins.read().jars_in("kafka") if jar.artifact == "kafka_2.13"}
    major = version("postgresql-17").partition(".")[0]
    weirs = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    wanted = {
        "mosquitto": f"eclipse-mosquitto:{version('mosquitto')}",
        "kafka": f"apache/kafka:{kafka}",
        "postgres": f"timescale/timescaledb:{version('postgresql-17-timescaledb')}-pg{major}",
        "alertmanager": f"prom/alertmanager:v{version('prometheus-alertmanager')}",
    }
    images = {name: service["image"] for name, service in SERVICES_THERE.items()}
    assert re.fullmatch(r"grafana/grafana:\d+\.\d+\.\d+", images.pop("grafana"))  # the native stack brings none
    assert images == {name: wanted.get(name, f"weir:{weirs}") for name in images}


def test_one_service_builds_the_image_and_nobody_pulls_it():
    assert [name for name, service in SERVICES_THERE.items() if "build" in service] == ["setup"]
    build = SERVICES_THERE["setup"]["build"]
    context = compose_file.folder(build["context"])
    assert context == CHECKOUT
    assert (context / build["dockerfile"]).is_file()
    for name, service in SERVICES_THERE.items():
        ours = "build" if name == "setup" else "never"
        assert service.get("pull_policy", "") == (ours if service["image"].startswith("weir:") else "")


@pytest.mark.parametrize("name", sorted(SERVICES_THERE))
def test_nothing_is_published_beyond_this_machine(name):
    raw = compose_file.read()["services"][name].get("ports", [])
    variables = re.findall(r"\$\{WEIR_PORT_(\w+):-(\d+)\}", "".join(raw))
    assert all(re.fullmatch(r"127\.0\.0\.1:(\$\{\w+:-\d+\}):\1(/udp)?", port) for port in raw)
    native = {port: DEFAULT_PORTS[port] for port in programs.PORT_OF.get(name, ())}
    unpublished = {"kafka", "kafka_controller", "spark", "inbox_smtp"}
    assert {key.lower(): int(port) for key, port in variables} == {
        k: v for k, v in native.items() if k not in unpublished
    }
    for key, _ in variables:  # a moved port is moved in the configuration, too
        assert f"WEIR_PORT_{key}" in SERVICES_THERE["setup"]["environment"]


def test_ports_are_the_native_stacks_wherever_they_stand():
    for key, default in re.findall(r"\$\{WEIR_PORT_(\w+):-(\d+)\}", compose_file.PATH.read_text()):
        assert DEFAULT_PORTS[key.lower()] == int(default)
    assert f"tcp://127.0.0.1:{DEFAULT_PORTS['spark']}" in SERVICES_THERE["spark"]["healthcheck"]["test"]
    assert str(DEFAULT_PORTS["kafka"]) in SERVICES_THERE["kafka"]["healthcheck"]["test"]


def test_hosts_are_services():
    hosts = {
        getattr(COMPOSE, field)
        for field in ("mqtt", "kafka", "postgres", "airflow", "alertmanager", "inbox", "grafana")
    }
    assert hosts <= set(SERVICES_THERE)
    assert not any("network_mode" in SERVICES_THERE[host] or "networks" in SERVICES_THERE[host] for host in hosts)
    assert "networks" not in FILE


def test_sparks_clients_are_on_its_own_loopback(made):
    sharing = {name for name, service in SERVICES_THERE.items() if service.get("network_mode") == "service:weir"}
    assert sharing == {"spark", "airflow-scheduler"}
    for name in ("weir", "airflow"):
        remote = read_env_file(made[0] / "config" / name / "batch.env")["WEIR_SPARK_REMOTE"]
        assert remote.startswith(f"sc://localhost:{DEFAULT_PORTS['spark']}/;token=")
    defaults = (made[0] / "config/spark/spark/spark-defaults.conf").read_text()
    assert "spark.connect.grpc.binding.address 127.0.0.1\n" in defaults


@pytest.mark.parametrize("name", sorted(SERVICES_THERE))
def test_nobody_has_more_rights_than_it_needs(name):
    service = SERVICES_THERE[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    user = service.get("user", f"{compose.WEIR_USER}:").partition(":")[0]
    if name == "setup":
        assert (user, set(service["cap_add"])) == ("0", {"CHOWN", "DAC_OVERRIDE", "FOWNER"})
    else:
        assert "cap_add" not in service
        assert int(user) == compose.OWNERS.get(compose_file.configuration_of(service), compose.WEIR_USER)


@pytest.mark.parametrize("name", sorted(SERVICES_THERE))
def test_a_service_sees_no_configuration_but_its_own(name):
    service = SERVICES_THERE[name]
    rows = compose_file.mounts(service)
    configurations = {source for source, _, _ in rows if source.endswith("-config")}
    if name == "setup":
        shared = {("secrets", "/secrets"), (compose.MQTT_LOGINS, f"/config/{compose.MQTT_LOGINS}")}
        assert {(f"{owner}-config", f"/config/{owner}") for owner in compose.OWNERS} | shared == {
            (source, target) for source, target, _ in rows
        }
        return
    own = "airflow" if name in programs.AIRFLOW else name
    assert configurations == (set() if name in ONE_SHOT else {f"{own}-config"})
    assert ("secrets" in {source for source, _, _ in rows}) is (name in ONE_SHOT)
    if own != "airflow":
        assert not any(writable for source, _, writable in rows if source.endswith("-config"))


def test_who_sees_the_logins_of_devices():
    sees = {
        name: row[2]
        for name, service in SERVICES_THERE.items()
        for row in compose_file.mounts(service)
        if row[:2] == (compose.MQTT_LOGINS, f"{compose.HOME}/mqtt")
    }
    assert sees == {"gateway": True, "mosquitto": False}


def test_volumes_and_folders_are_there():
    used = {source for service in SERVICES_THERE.values() for source, _, _ in compose_file.mounts(service)}
    named = {source for source in used if not source.startswith(".")}
    assert named == set(FILE["volumes"])
    for source in used - named:
        assert compose_file.folder(source).exists(), source
    for service in SERVICES_THERE.values():
        for source, target, writable in compose_file.mounts(service):
            if source.startswith("."):
                assert not writable
                assert target == f"/opt/weir/{compose_file.folder(source).relative_to(CHECKOUT)}"


@pytest.mark.parametrize("name", sorted(compose.OFFICIAL))
def test_data_is_where_the_image_keeps_it(name):
    rows = compose_file.mounts(SERVICES_THERE[name])
    assert (f"{name}-data", str(compose.OFFICIAL[name].data), True) in rows


@pytest.mark.parametrize("name", LASTING)
def test_every_file_that_a_service_names_is_written_by_setup(made, name):
    service = SERVICES_THERE[name]
    folder = made[0] / "config" / compose_file.configuration_of(service)
    told = [*compose_file.words(service.get("entrypoint")), *compose_file.words(service.get("command"))]
    told += [*service["healthcheck"]["test"], *service.get("environment", {}).values()]
    named = {match for word in told for match in re.findall(r"/etc/weir/([\w./-]+)", word)}
    starts = [folder / file for file in named if file.endswith(".sh")]
    for path in starts:
        named |= set(re.findall(r"/etc/weir/([\w./-]+)", path.read_text()))
    assert named or name == "weir"
    for file in named:
        assert (folder / file).exists(), file


def test_files_are_their_users_alone(made):
    root, owners = made
    for name, owner in {
        **{f"config/{name}": owner for name, owner in compose.OWNERS.items()},
        "secrets": 10001,
    }.items():
        for path in (root / name, *(root / name).rglob("*")):
            assert owners[path] == owner
            assert path.stat().st_mode & 0o077 == 0 or path.name == ".weir" or path.is_dir(), path
        assert (root / name).stat().st_mode & 0o777 == 0o700


OWN_SECRETS = {
    "mosquitto": {"MQTT_OPERATOR"},
    "kafka": {"KAFKA_BROKER", "KAFKA_CONTROLLER", "KAFKA_CLUSTER_ID"},
    "postgres": {"DB_SUPERUSER"},
    "alertmanager": {"ALERTMANAGER"},
    "grafana": {"GRAFANA_ADMIN", "GRAFANA_SECRET", "DB_WEIR_READER", "ALERTMANAGER"},
    "spark": {"SPARK_TOKEN"},
    "inbox": {"INBOX_WEBHOOK", "INBOX_SMTP"},
    "landing": {"KAFKA_LANDING"},
    "alerts": {"KAFKA_ALERTS"},
    "live": {"KAFKA_LIVE", "DB_WEIR_LIVE"},
    "history": {"KAFKA_HISTORY", "DB_WEIR_HISTORY"},
    "stream": {"KAFKA_STREAM", "DB_WEIR_STREAM"},
    "bridge": {"KAFKA_BRIDGE", "MQTT_BRIDGE", "DB_WEIR_REGISTRY"},
    "gateway": {"KAFKA_GATEWAY", "DB_WEIR_REGISTRY", "CREDENTIALS", "OPERATOR_TOKEN"},
    "dispatcher": {
        "KAFKA_DISPATCHER", "MQTT_DISPATCHER", "DB_WEIR_DISPATCHER", "ALERTMANAGER", "INBOX_WEBHOOK", "INBOX_SMTP",
        "GRAFANA_ADMIN",
    },
    "commander": {"KAFKA_COMMANDER", "MQTT_COMMANDER", "DB_WEIR_COMMANDER"},
}  # fmt: skip


def test_of_every_service_but_those_of_people_and_airflow_it_is_said_what_it_knows():
    assert set(compose.OWNERS) - set(OWN_SECRETS) == {"weir", "airflow"}


@pytest.mark.parametrize("name", OWN_SECRETS)
def test_a_service_knows_its_own_secrets_alone(made, secrets, name):
    text = text_of(made[0] / "config" / name)
    assert {key for key, value in secrets.items() if value in text} == OWN_SECRETS[name]


def test_an_operator_cannot_administer(made, secrets):
    text = text_of(made[0] / "config" / "weir") + text_of(made[0] / "config" / "airflow")
    known = {key for key, value in secrets.items() if value in text}
    assert not known & {"DB_SUPERUSER", "DB_WEIR", "KAFKA_ADMIN", "KAFKA_BROKER", "KAFKA_CONTROLLER"}


def test_a_second_setup_changes_no_secret(made, secrets):
    root = made[0]
    before = {path: path.read_text() for path in (root / "config").rglob("*.env")}
    pem = (root / "config/inbox/inbox.pem").read_text()
    compose.configure(
        Layout(root / "secrets"), root / "config", Ports(**DEFAULT_PORTS), {"PATH": "/bin"}, lambda *_: None
    )
    assert read_env_file(root / "secrets/env/secrets.env") == secrets
    assert {path: path.read_text() for path in (root / "config").rglob("*.env")} == before
    assert (root / "config/dispatcher/inbox.pem").read_text() == pem


def test_no_secret_stands_in_the_file():
    for name, service in SERVICES_THERE.items():
        for key in service.get("environment", {}):
            assert not re.search("PASSWORD|SECRET|TOKEN|KEY", key) or key.endswith("_FILE"), (name, key)


def test_the_rendered_files_name_the_services(made):
    root = made[0] / "config"
    assert "listener 21883 0.0.0.0\n" in (root / "mosquitto/mosquitto.conf").read_text()
    kafka = (root / "kafka/server.properties").read_text()
    assert "advertised.listeners=CLIENT://kafka:29092,CONTROLLER://kafka:29093\n" in kafka
    assert "log.dirs=/var/lib/kafka/data/kafka\n" in kafka
    server = (root / "postgres/postgresql.conf").read_text()
    assert f"data_directory = '{SERVICES_THERE['postgres']['environment']['PGDATA']}'\n" in server
    assert f"port = {SERVICES_THERE['postgres']['environment']['PGPORT']}\n" in server
    rules = [line for line in (root / "postgres/pg_hba.conf").read_text().splitlines() if not line.startswith("#")]
    assert all(line.endswith(("scram-sha-256", "reject")) for line in rules)
    grafana = configparser.ConfigParser(interpolation=None)
    grafana.read(root / "grafana/grafana/grafana.ini")
    assert grafana["paths"]["provisioning"] == SERVICES_THERE["grafana"]["environment"]["GF_PATHS_PROVISIONING"]
    assert grafana["paths"]["data"] == str(compose.OFFICIAL["grafana"].data)
    sources = yaml.safe_load((root / "grafana/grafana/provisioning/datasources/weir.yaml").read_text())["datasources"]
    assert [source["url"] for source in sources] == ["postgres:25432", "http://alertmanager:29094"]
    assert sources[0]["secureJsonData"] == {"password": "$__file{/etc/weir/warehouse-password}"}
    for service in SERVICES:
        settings = Settings.load({"WEIR_ENV_FILE": str(root / service / f"{service}.env")})
        assert (settings.kafka_bootstrap, settings.bind) == ("kafka:29092", "0.0.0.0")
    airflow = (root / "airflow/airflow-scheduler.sh").read_text()
    assert "EXECUTION_API_SERVER_URL=http://airflow-api-server:28080/execution/" in airflow
    assert "export AIRFLOW__API__BASE_URL=http://127.0.0.1:28080\n" in airflow


def test_whom_the_dispatcher_tells_is_where_its_service_is(made):
    known = read_env_file(made[0] / "config/dispatcher/dispatcher.env")
    told = load_receivers((CHECKOUT / "fleet/receivers.yaml").read_text(), "receivers.yaml", known).receivers
    hosts = {name: urlsplit(told[name].url).hostname for name in ("webhook", "alertmanager", "grafana")}
    assert hosts == {"webhook": COMPOSE.inbox, "alertmanager": COMPOSE.alertmanager, "grafana": COMPOSE.grafana}
    assert told["mail"].host == COMPOSE.inbox


def test_postgres_is_made_as_natively():
    arguments = SERVICES_THERE["postgres"]["environment"]["POSTGRES_INITDB_ARGS"].split()
    assert tuple(arguments) == postgres.INITDB


def dependencies(name):
    service = SERVICES_THERE[name]
    shared = service.get("network_mode", "").removeprefix("service:")
    return {*service.get("depends_on", {}), *({shared} if shared else ())}


def test_nothing_waits_for_itself():
    order: list[str] = []
    while ready := [name for name in SERVICES_THERE if name not in order and dependencies(name) <= set(order)]:
        order += ready
    assert set(order) == set(SERVICES_THERE)


def before(name):
    found = dependencies(name)
    return found.union(*(before(other) for other in found)) if found else found


@pytest.mark.parametrize("name", LASTING)
def test_what_a_program_needs_is_up_before_it(name):
    needed = {*programs.NEEDS.get(name, ()), *programs.AFTER.get(name, ())}
    assert needed | {"setup"} <= before(name)
    for other, told in SERVICES_THERE[name]["depends_on"].items():
        wanted = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
        assert told["condition"] == wanted
        shared = SERVICES_THERE[name].get("network_mode") == f"service:{other}"
        assert told.get("restart", False) is shared  # a new network is of no use to who has the old one
    if {"kafka", "postgres"} & set(programs.NEEDS.get(name, ())):
        assert "provision" in before(name)


def table():
    layout, ports, prefix = Layout(Path("/home")), Ports(**DEFAULT_PORTS), Prefix(Path("/prefix"), Path("/java"))
    made = [programs.kafka(layout, prefix), programs.mosquitto(layout, prefix), programs.postgres(layout, prefix, ())]
    made += [programs.alertmanager(layout, prefix, ports), programs.spark(layout, prefix, "local[2]")]
    made += [programs.airflow(name, layout, ports, {}) for name in programs.AIRFLOW]
    made.append(programs.stream(layout, {}))
    return [*made, *(programs.service(name, layout, {}) for name in (*SERVICES, "inbox"))]


@pytest.mark.parametrize("program", table(), ids=lambda program: program.name)
def test_a_program_stops_and_is_started_again_as_natively(program):
    service = SERVICES_THERE[program.name]
    assert service["stop_grace_period"] == f"{program.stop_seconds}s"
    assert service.get("stop_signal", "SIGTERM") == f"SIG{program.stop_signal}"
    assert service["restart"] == ("unless-stopped" if program.restart else "no")


@pytest.mark.parametrize("name", sorted(SERVICES_THERE))
def test_every_service_is_asked_for_its_health_or_ends(name):
    assert ("healthcheck" in SERVICES_THERE[name]) is (name not in ONE_SHOT)
    assert (SERVICES_THERE[name]["restart"] == "no") is (name in ONE_SHOT)


def test_workers_keep_the_name_by_which_kafka_and_the_registry_know_them():
    assert {SERVICES_THERE[name].get("hostname") for name in (*SERVICES, *ONE_SHOT)} == {"weir"}


@pytest.mark.parametrize("name", (*SERVICES, "inbox"))
def test_a_service_is_asked_what_the_native_stack_asks(name):
    port = DEFAULT_PORTS[programs.PORT_OF[name][0]]
    assert SERVICES_THERE[name]["healthcheck"]["test"][-1] == f"http://127.0.0.1:{port}/ready"


def ignored(path):
    """As docker reads .dockerignore: the last line that fits decides."""
    verdict = False
    for line in (CHECKOUT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!")
            parts = [path, *(str(parent) for parent in Path(path).parents if str(parent) != ".")]
            if any(fnmatch(part, pattern) or fnmatch(f"/{part}", pattern.replace("**", "*")) for part in parts):
                verdict = not line.startswith("!")
    return verdict


@pytest.mark.parametrize(
    "path",
    [
        ".git/config", ".venv/bin/python", "var/env/secrets.env", ".ci-home/.cache", "docker/receivers.env", "tests/x",
        "fleet/__pycache__/x.pyc",
    ],
)  # fmt: skip
def test_nothing_private_gets_into_the_image(path):
    assert ignored(path)


def test_all_that_runs_gets_into_the_image():
    packages = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    for path in (*packages, "pyproject.toml", "requirements/py311.txt", "sql", "expectations", "docker/healthy.py"):
        assert (CHECKOUT / path).exists()
        assert not ignored(path), path
    compiled = re.search(r"compileall -q ([\w ]+)", DOCKERFILE)
    assert set(compiled[1].split()) == set(packages)


def test_what_is_compiled_into_the_image_can_be(tmp_path):
    (step,) = re.findall(r"\.venv/bin/python (-m compileall .*\w)", DOCKERFILE)
    environ = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    subprocess.run([sys.executable, *step.split()], cwd=CHECKOUT, env=environ, check=True)
    assert len(list(tmp_path.rglob("*.pyc"))) > 200


def test_the_image_gets_java_and_sparks_jars_and_no_servers(tmp_path, monkeypatch):
    """By the command that its build runs; the jars are in the cache of downloads."""
    assert "&& .venv/bin/weir compose image" in DOCKERFILE
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(prefix, "PREFIX", tmp_path)
    result = CliRunner().invoke(build(), ["compose", "image"])
    assert result.exit_code == 0, result.output
    made = Prefix(tmp_path, tmp_path / "java")
    assert java.major_version(made.java_home) in java.FIT
    assert {path.name for path in made.spark_jars} == {jar.file_name for jar in pins.read().jars_in("spark")}
    assert {path.name for path in tmp_path.iterdir()} == {"java", "jars"} and not made.kafka_jars.exists()


def test_the_image_is_nobodys_root_and_from_no_host():
    (base,) = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base)
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE) == ["weir"]
    assert f"useradd --uid {compose.WEIR_USER}" in DOCKERFILE
    assert f"WEIR_HOME={compose.HOME}" in DOCKERFILE
    assert "//" not in DOCKERFILE
