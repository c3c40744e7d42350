"""docker/compose.yaml's own steps: what native set-up and start do, for servers that are containers.

Each service has a configuration volume of its own, which it finds at /etc/weir and in which nothing stands that is not
its own. `configure` fills them all, as the one service that mounts them all; from the native stack's tables and
templates, so that the two cannot drift.
"""

import os
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fleet.catalog import load_catalog
from fleet.dashboard import FOLDER as DASHBOARDS
from fleet.errors import Unavailable, WeirError
from fleet.settings import OPT_IN, SERVICES, Settings
from stack import configuration, grafana, kafka, programs, provision, readiness
from stack.cache import CHECKOUT
from stack.credentials import admin_url, ensure_secrets, env_file, environments, owner_url, write_private
from stack.layout import Layout
from stack.places import COMPOSE
from stack.ports import Ports
from stack.prefix import PREFIX, Prefix

CONFIG = Path("/etc/weir")
HOME = Path("/var/lib/weir")
"""The volume that Weir's own containers share: lake, validations, Airflow's logs."""
MQTT_LOGINS = "mqtt-logins"
"""The one volume of configuration that two services see: the gateway writes the devices' logins into it, Mosquitto
reads them. It lies at HOME / "mqtt"."""
WEIR_USER = 10001
WAIT_SECONDS = 480


@dataclass(frozen=True)
class Image:
    """What an official image is like: the user it runs as, and where it keeps its data."""

    user: int
    data: Path


OFFICIAL: Mapping[str, Image] = {
    "mosquitto": Image(1883, Path("/mosquitto/data")),
    "kafka": Image(1000, Path("/var/lib/kafka/data")),
    "postgres": Image(70, Path("/var/lib/postgresql/data")),
    "alertmanager": Image(65534, Path("/alertmanager")),
    "grafana": Image(472, Path("/var/lib/grafana")),
}
OPERATORS = ("operator", "registry", "simulator", "batch", "dispatcher")
"""Whose env files the service `weir` has, in which a person's commands run."""
OWNERS: Mapping[str, int] = {
    **{name: image.user for name, image in OFFICIAL.items()},
    **dict.fromkeys(("spark", "airflow", *SERVICES, *OPT_IN, "inbox", "weir"), WEIR_USER),
}
"""Configuration volume → the user who may read it."""


@dataclass(frozen=True)
class Inside(Layout):
    """The folders as a container sees them."""

    own_data: Path = HOME / "data"

    @property
    def env(self) -> Path:
        return CONFIG

    @property
    def config(self) -> Path:
        return CONFIG

    @property
    def data(self) -> Path:
        return self.own_data

    @property
    def tmp(self) -> Path:
        return Path("/tmp")  # noqa: S108  the container's own


class KafkaImage(Prefix):
    @property
    def kafka_jars(self) -> Path:
        return self.root / "libs"


KAFKA = KafkaImage(Path("/opt/kafka"), Path("/opt/java/openjdk"))
OURS = Prefix(PREFIX, PREFIX / "java")


def configure(
    made: Layout, volumes: Path, ports: Ports, environ: Mapping[str, str], chown: Callable[[Path, int], None]
) -> None:
    """Secrets into `made`, and each service's files into its folder of `volumes`, for its user alone."""
    made.make()
    secrets = ensure_secrets(made)
    certificate = configuration.inbox_certificate(made, [COMPOSE.inbox, "localhost"])
    for name, owner in OWNERS.items():
        folder = volumes / name
        for file, text in files(name, ports, secrets, environ, certificate).items():
            write_private(folder / file, text)
        if name == "grafana":
            for part in ("alerting", "plugins"):  # Grafana complains of folders that are not there
                (folder / "grafana" / "provisioning" / part).mkdir(exist_ok=True)
        hand_over(folder, owner, chown)
    logins = volumes / MQTT_LOGINS
    logins.mkdir(exist_ok=True)
    logins.chmod(0o755)
    chown(logins, WEIR_USER)
    hand_over(made.home, WEIR_USER, chown)


def hand_over(folder: Path, owner: int, chown: Callable[[Path, int], None]) -> None:
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o700)
        chown(path, owner)


def files(
    name: str, ports: Ports, secrets: Mapping[str, str], environ: Mapping[str, str], certificate: tuple[str, str]
) -> dict[str, str]:
    """What one service finds in /etc/weir: file name → text."""
    if name in OFFICIAL:
        return _official(name, ports, secrets)
    layout = Inside(HOME)
    env = {role: env_file(values) for role, values in _environments(layout, ports, secrets).items()}
    match name:
        case "weir":
            return {f"{role}.env": env[role] for role in OPERATORS} | {"inbox.pem": certificate[0]}
        case "spark":
            values = configuration.template_values(layout, ports, secrets, Settings.from_values({}), COMPOSE)
            program = programs.spark(layout, OURS, values["spark_master"])
            return configuration.files("spark", values) | {"spark.sh": script(program, environ)}
        case "airflow":
            environment = configuration.airflow_environment(layout, ports, secrets, {}, COMPOSE)
            table = [programs.airflow(name, layout, ports, environment, COMPOSE) for name in programs.AIRFLOW]
            starts = {f"{program.name}.sh": script(program, environ) for program in table}
            return configuration.files(programs.AIRFLOW[0], {"secrets": secrets}) | starts | {"batch.env": env["batch"]}
    public, private = certificate
    told = {"inbox": {"inbox.pem": public, "inbox.key": private}, "dispatcher": {"inbox.pem": public}}
    program = programs.stream(layout, {}) if name == "stream" else programs.service(name, layout, {})
    start = script(program, environ)
    return {f"{name}.env": env[name], f"{name}.sh": start, **told.get(name, {})}


def _environments(layout: Layout, ports: Ports, secrets: Mapping[str, str]) -> dict[str, dict[str, str]]:
    java = {"WEIR_JAVA_HOME": str(OURS.java_home), "WEIR_SPARK_JARS": ",".join(str(path) for path in OURS.spark_jars)}
    return environments(layout, ports, secrets, java, {}, COMPOSE, has_grafana=True)


def _official(name: str, ports: Ports, secrets: Mapping[str, str]) -> dict[str, str]:
    layout = Inside(HOME, OFFICIAL[name].data)
    values = configuration.template_values(layout, ports, secrets, Settings.from_values({}), COMPOSE) | {
        "user": "", "mosquitto_data": layout.data, "grafana_data": layout.data, "dashboards": CONFIG / "dashboards",
        "postgres_data": layout.data, "postgres_conf": CONFIG, "postgres_sockets": "/var/run/postgresql",
        "postgres_admins": "samenet", "postgres_clients": "samenet",
        "warehouse_password": f"$__file{{{CONFIG}/warehouse-password}}",
        "alertmanager_password": f"$__file{{{CONFIG}/alertmanager-password}}",
    }  # fmt: skip
    return configuration.files(name, values) | _beside(name, layout, ports, secrets)


def _beside(name: str, layout: Layout, ports: Ports, secrets: Mapping[str, str]) -> dict[str, str]:
    """How an image is started and asked for its health, with no password in compose.yaml."""
    match name:
        case "mosquitto":  # mosquitto_sub's own options, from XDG_CONFIG_HOME
            asks = f"-p {ports.mqtt}\n-u operator\n-P {secrets['MQTT_OPERATOR']}\n"
            return {"mosquitto_sub": asks}
        case "postgres":
            return {"superuser-password": secrets["DB_SUPERUSER"]}
        case "alertmanager":
            program = programs.alertmanager(layout, OURS, ports, COMPOSE)
            program = replace(program, command=("/bin/alertmanager", *program.command[1:]), directory=layout.data)
            return {"alertmanager.sh": script(program), "alertmanager-password": secrets["ALERTMANAGER"]}
        case "grafana":
            boards = {f"dashboards/{path.name}": path.read_text("utf-8") for path in (CHECKOUT / DASHBOARDS).iterdir()}
            return boards | {
                "warehouse-password": secrets[f"DB_{grafana.LOGIN.upper()}"],
                "alertmanager-password": secrets["ALERTMANAGER"],
            }
        case "kafka":
            program = replace(programs.kafka(layout, KAFKA), directory=layout.data)
            arguments = kafka.format_arguments(layout, KAFKA, secrets)
            return {"kafka.sh": script(program, before=_format(layout)), "kafka-format.args": arguments}
    return {}


def _format(layout: Layout) -> str:
    """As in stack/kafka.py: once, and anew where an attempt broke off."""
    data = layout.data / "kafka"
    return (
        f"if [ ! -f {data}/bootstrap.checkpoint ] && [ ! -f {data}/meta.properties ]; then\n"
        f"  rm -rf {data}\n"
        f"  {KAFKA.java} @{CONFIG}/kafka-format.args || {{ rm -rf {data}; exit 1; }}\n"
        "fi\n"
    )


def script(program: programs.Program, environ: Mapping[str, str] | None = None, before: str = "") -> str:
    """A program of the native stack's table as a shell script. With `environ`, one of ours."""
    environment = dict(program.environment)
    if environ is not None:
        environment = {**programs.base_environment(Inside(HOME), environ), **environment}
    exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in environment.items())
    folders = shlex.join(str(folder) for folder in {program.directory: 0, Inside(HOME).user_home: 0})
    make = f"mkdir -p {folders}\n" if environ is not None else ""
    words = shlex.join(str(word) for word in program.command)
    return f"#!/bin/sh\nset -e\n{exports}{make}cd {shlex.quote(str(program.directory))}\n{before}exec {words}\n"


def wait_for(name: str, ports: Ports, secrets: Mapping[str, str], seconds: float = WAIT_SECONDS) -> None:
    """Until the server answers with the right password. Raises Unavailable with its last words."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            readiness.check(name, ports, secrets, COMPOSE)
            return
        except WeirError as error:
            if time.monotonic() > deadline:
                raise Unavailable(f"{name} did not come up in {seconds:.0f} s: {error}") from None
        time.sleep(1)


def provision_servers(made: Layout, ports: Ports, environ: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Topics, users and rights; logins, databases and tables; Airflow's tables. Repeatable."""
    secrets = ensure_secrets(made)
    bootstrap = f"{COMPOSE.kafka}:{ports.kafka}"
    wait_for("kafka", ports, secrets)
    topics = provision.provision_kafka(bootstrap, secrets, load_catalog(Settings.load(environ).types_dir))
    for member in programs.GROUP_MEMBERS if topics else ():
        provision.forget_member(bootstrap, secrets, member, Settings.from_values({}))
    say(f"Kafka: {len(topics)} new topics")
    wait_for("postgres", ports, secrets)
    provision.provision_database(admin_url(secrets, ports, COMPOSE), secrets, own_server=True)
    provision.migrate(owner_url(secrets, ports, COMPOSE))
    say("the warehouse is up to date")
    layout = Inside(HOME)
    environment = configuration.airflow_environment(layout, ports, secrets, {}, COMPOSE)
    layout.airflow.mkdir(parents=True, exist_ok=True)
    program = programs.airflow(programs.AIRFLOW[0], layout, ports, environment, COMPOSE)
    configuration.migrate_airflow(
        layout, programs.with_environment(program, programs.base_environment(layout, environ))
    )
    say("Airflow is up to date")


def finish(made: Layout, ports: Ports) -> None:
    """What Airflow can be told only when it answers."""
    secrets = ensure_secrets(made)
    wait_for(programs.AIRFLOW[0], ports, secrets)
    readiness.finish_airflow(f"http://{COMPOSE.airflow}:{ports.airflow}", secrets)


def chown(path: Path, owner: int) -> None:
    os.chown(path, owner, -1)
