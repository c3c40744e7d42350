"""The configuration files and environments of the servers, from the templates, the ports and the secrets."""

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from secrets import token_bytes
from typing import Any

import bcrypt

from fleet.credential import mosquitto_hash
from fleet.errors import ConfigurationError
from fleet.settings import OPT_IN, SERVICES, Settings, read_env_file
from stack import grafana
from stack.cache import CHECKOUT
from stack.certificate import self_signed
from stack.credentials import MQTT_ROLES, login_url, write_private
from stack.layout import Layout
from stack.places import HERE, Places
from stack.ports import LOOPBACK, Ports
from stack.programs import Program, on_this_machine, open_files, own_name
from stack.render import rendered

KEPT = ("WEIR_LAKE_URI", "WEIR_WEBHDFS_PORT", "WEIR_TYPES_DIR", "WEIR_SPARK_MASTER", "WEIR_INBOX")
"""Settings that every role needs alike: given at set-up, they are written into the env files, and stay there until
others (or empty ones) are given."""
_DECIDED_HERE = (
    "WEIR_ENV_FILE", "WEIR_HOME", "WEIR_ROLE", "WEIR_PORT_", "WEIR_DB_URL", "WEIR_KAFKA_", "WEIR_MQTT_",
    "WEIR_AIRFLOW_", "WEIR_GRAFANA_", "WEIR_ALERTMANAGER_", "WEIR_INBOX_", "WEIR_SPARK_REMOTE", "WEIR_SPARK_JARS",
    "WEIR_JAVA_HOME", "WEIR_CREDENTIALS_KEY", "WEIR_GATEWAY_HTTP_PORT", "WEIR_GATEWAY_COAP_PORT",
    *(f"WEIR_{service.upper()}_METRICS_PORT" for service in (*SERVICES, *OPT_IN)),
)  # fmt: skip


def earlier_settings(layout: Layout) -> dict[str, str]:
    path = layout.env_file("operator")
    return read_env_file(path) if path.is_file() else {}


def kept_settings(layout: Layout, environ: Mapping[str, str]) -> dict[str, str]:
    """What the env files keep: as given now, else as given to an earlier set-up. A folder is made absolute."""
    earlier = earlier_settings(layout)
    kept = {name: environ.get(name, earlier.get(name, "")) for name in KEPT}
    for name in ("WEIR_TYPES_DIR", "WEIR_INBOX"):
        if kept[name]:
            kept[name] = str(Path(kept[name]).absolute())
    return {name: value for name, value in kept.items() if value}


def passed_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The user's own `WEIR_*` that services should see: all but what the stack itself decides."""
    return {k: v for k, v in environ.items() if k.startswith("WEIR_") and not k.startswith((*_DECIDED_HERE, *KEPT))}


def template_values(
    layout: Layout, ports: Ports, secrets: Mapping[str, str], settings: Settings, places: Places = HERE
) -> dict[str, Any]:
    """What the templates are told. `settings`: of the role `batch`; its `spark_master` is where the Connect server runs
    its jobs."""
    return {
        "home": layout.home, "logs": layout.logs, "run": layout.run, "config": layout.config, "secrets": secrets,
        "mqtt_bind": places.bind, "mqtt_port": ports.mqtt, "mosquitto_data": layout.data / "mosquitto",
        "mqtt_devices": layout.home / "mqtt",
        "user": own_name() if os.getuid() == 0 else "",
        "kafka_host": places.kafka, "kafka_bind": places.bind, "kafka_port": ports.kafka,
        "kafka_controller_port": ports.kafka_controller, "kafka_data": layout.data / "kafka",
        "kafka_retention_hours": 168,
        "postgres_bind": places.bind, "postgres_port": ports.postgres,
        "postgres_admins": "127.0.0.1/32", "postgres_clients": "127.0.0.1/32",
        "postgres_data": layout.postgres / "data", "postgres_conf": layout.postgres / "conf", "postgres_sockets": "",
        "spark_port": ports.spark, "spark_bind": LOOPBACK, "tmp": layout.tmp, "spark_home": layout.home / "spark",
        "spark_master": settings.spark_master, "spark_on_this_machine": on_this_machine(settings.spark_master),
        **grafana.values(layout, ports, secrets, places),
    }  # fmt: skip


def files(name: str, values: Mapping[str, Any]) -> dict[str, str]:
    """The configuration of one program: file name → text."""
    secrets = values["secrets"]
    match name:
        case "mosquitto":
            passwords = {role: secrets[f"MQTT_{role.upper()}"] for role in MQTT_ROLES}
            lines = [f"{role}:{mosquitto_hash(password, token_bytes(12))}\n" for role, password in passwords.items()]
            return {
                "mosquitto.conf": rendered("mosquitto/mosquitto.conf.j2", values),
                "mosquitto.sh": rendered("mosquitto/mosquitto.sh.j2", values),
                "mosquitto.acl": rendered("mosquitto/acl.j2", values),
                "mosquitto.passwd": "".join(lines),
            }
        case "alertmanager":
            hashed = bcrypt.hashpw(secrets["ALERTMANAGER"].encode(), bcrypt.gensalt()).decode()
            return {
                "alertmanager.yml": rendered("alertmanager/alertmanager.yml", values),
                "alertmanager-web.yml": rendered("alertmanager/web.yml.j2", {"alertmanager_hash": hashed}),
            }
        case "kafka":
            return {
                "server.properties": rendered("kafka/server.properties.j2", values),
                "kafka-log4j2.properties": rendered("kafka/log4j2.properties", values),
            }
        case "postgres":
            return {
                "postgresql.conf": rendered("postgres/postgresql.conf.j2", values),
                "pg_hba.conf": rendered("postgres/pg_hba.conf.j2", values),
                "pg_ident.conf": "",
            }
        case "spark":
            return {
                "spark/spark-defaults.conf": rendered("spark/spark-defaults.conf.j2", values),
                "spark/log4j2.properties": rendered("spark/log4j2.properties", values),
            }
        case "grafana":
            return grafana.files(values)
        case "airflow-api-server":
            passwords = {"admin": secrets["AIRFLOW_ADMIN"], "batch": secrets["AIRFLOW_BATCH"]}
            return {"airflow-passwords.json": json.dumps(passwords) + "\n"}
    return {}


def write(
    layout: Layout, ports: Ports, secrets: Mapping[str, str], programs: Iterable[Program], settings: Settings
) -> None:
    """The native stack's configuration: that of each program, and supervisord's of all of them."""
    programs = list(programs)
    names = {program.name for program in programs}
    values = template_values(layout, ports, secrets, settings)
    if "alertmanager" not in names:
        values["alertmanager_port"] = None
    supervised = values | {"programs": programs, "open_files": open_files()}
    write_private(layout.config / "supervisord.conf", rendered("native/supervisord.conf.j2", supervised))
    for name in names:
        folder = layout.postgres / "conf" if name == "postgres" else layout.config
        for file, text in files(name, values).items():
            write_private(folder / file, text)
    if "mosquitto" in names:
        (layout.data / "mosquitto").mkdir(exist_ok=True)
    if "grafana" in names:
        grafana.make_folders(layout)
    inbox_certificate(layout, [LOOPBACK, "localhost"])  # the dispatcher trusts it, whether the inbox runs or not


def inbox_certificate(layout: Layout, hosts: Iterable[str]) -> tuple[str, str]:
    """PEM of the inbox's certificate and of its key, made once."""
    paths = (layout.config / "inbox.pem", layout.config / "inbox.key")
    if not paths[1].is_file():
        for path, text in zip(paths, self_signed(hosts), strict=True):
            write_private(path, text)
    return paths[0].read_text(encoding="utf-8"), paths[1].read_text(encoding="utf-8")


def airflow_environment(
    layout: Layout, ports: Ports, secrets: Mapping[str, str], environ: Mapping[str, str], places: Places = HERE
) -> dict[str, str]:
    """Read by all of Airflow's programs. What differs from its defaults has its reason beside it in the template."""
    text = rendered("airflow/airflow.env.j2", {
        "dags": CHECKOUT / "dags", "plugins": CHECKOUT / "plugins", "config": layout.config, "secrets": secrets,
        "airflow_port": ports.airflow, "airflow_host": places.airflow, "airflow_bind": places.bind,
        "airflow_page": places.page, "logs": layout.airflow / "logs",
        "database": login_url("weir_airflow", secrets, ports, "weir_airflow", places),
    })  # fmt: skip
    values = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {
        **passed_settings(environ),
        **values,
        "AIRFLOW_HOME": str(layout.airflow),
        "WEIR_HOME": str(layout.home),
        "WEIR_ENV_FILE": str(layout.env_file("batch")),
    }


def migrate_airflow(layout: Layout, program: Program) -> None:
    """Airflow's own tables, once for each of its versions (it takes 5 s)."""
    stamp = layout.airflow / "migrated"
    wanted = version("apache-airflow-core")
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    airflow = Path(program.command[0])
    done = subprocess.run(
        [airflow, "db", "migrate"], env=dict(program.environment), capture_output=True, text=True, cwd=layout.airflow
    )
    if done.returncode:
        raise ConfigurationError(f"`airflow db migrate` failed:\n{(done.stdout + done.stderr)[-2000:]}")
    stamp.write_text(wanted)
