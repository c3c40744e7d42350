"""The configuration files and environments of the servers, from the templates, the ports and the secrets."""

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

import bcrypt

from fleet.errors import ConfigurationError
from fleet.settings import SERVICES, Settings, read_env_file
from stack import grafana
from stack.cache import CHECKOUT
from stack.certificate import self_signed
from stack.credentials import MQTT_ROLES, login_url, mosquitto_hash, write_private
from stack.layout import Layout
from stack.ports import LOOPBACK, Ports
from stack.programs import Program, on_this_machine, open_files, own_name
from stack.render import write as render

KEPT = ("WEIR_LAKE_URI", "WEIR_TYPES_DIR", "WEIR_SPARK_MASTER")
"""Settings that every role needs alike: given at set-up, they are written into the env files, and stay there until
others (or empty ones) are given."""
_DECIDED_HERE = (
    "WEIR_ENV_FILE", "WEIR_HOME", "WEIR_ROLE", "WEIR_PORT_", "WEIR_DB_URL", "WEIR_KAFKA_", "WEIR_MQTT_",
    "WEIR_AIRFLOW_", "WEIR_GRAFANA_", "WEIR_ALERTMANAGER_", "WEIR_INBOX_", "WEIR_SPARK_REMOTE", "WEIR_SPARK_JARS",
    "WEIR_JAVA_HOME",
    *(f"WEIR_{service.upper()}_METRICS_PORT" for service in SERVICES),
)  # fmt: skip


def earlier_settings(layout: Layout) -> dict[str, str]:
    path = layout.env_file("operator")
    return read_env_file(path) if path.is_file() else {}


def kept_settings(layout: Layout, environ: Mapping[str, str]) -> dict[str, str]:
    """What the env files keep: as given now, else as given to an earlier set-up. A folder is made absolute."""
    earlier = earlier_settings(layout)
    kept = {name: environ.get(name, earlier.get(name, "")) for name in KEPT}
    if kept["WEIR_TYPES_DIR"]:
        kept["WEIR_TYPES_DIR"] = str(Path(kept["WEIR_TYPES_DIR"]).absolute())
    return {name: value for name, value in kept.items() if value}


def passed_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The user's own `WEIR_*` that services should see: all but what the stack itself decides."""
    return {k: v for k, v in environ.items() if k.startswith("WEIR_") and not k.startswith((*_DECIDED_HERE, *KEPT))}


def write(
    layout: Layout, ports: Ports, secrets: Mapping[str, str], programs: Iterable[Program], settings: Settings
) -> None:
    """`settings`: of the role `batch`; its `spark_master` is where the Connect server runs its jobs."""
    programs = list(programs)
    values = {
        "home": layout.home, "logs": layout.logs, "run": layout.run, "config": layout.config, "data": layout.data,
        "secrets": secrets, "programs": programs, "open_files": open_files(),
        "mqtt_bind": LOOPBACK, "mqtt_port": ports.mqtt, "user": own_name() if os.getuid() == 0 else "",
        "kafka_host": LOOPBACK, "kafka_bind": LOOPBACK, "kafka_port": ports.kafka,
        "kafka_controller_port": ports.kafka_controller, "kafka_retention_hours": 168,
        "postgres_bind": LOOPBACK, "postgres_port": ports.postgres, "postgres_clients": "127.0.0.1/32",
        "postgres_data": layout.postgres / "data", "postgres_conf": layout.postgres / "conf",
        "spark_port": ports.spark, "spark_bind": LOOPBACK, "tmp": layout.tmp, "spark_home": layout.home / "spark",
        "spark_master": settings.spark_master, "spark_on_this_machine": on_this_machine(settings.spark_master),
    }  # fmt: skip
    names = {program.name for program in programs}
    render("native/supervisord.conf.j2", layout.config / "supervisord.conf", values)
    if "mosquitto" in names:
        (layout.data / "mosquitto").mkdir(exist_ok=True)
        mosquitto_values = values | {"data": layout.data / "mosquitto"}
        render("mosquitto/mosquitto.conf.j2", layout.config / "mosquitto.conf", mosquitto_values)
        render("mosquitto/acl.j2", layout.config / "mosquitto.acl", values)
        lines = [f"{role}:{mosquitto_hash(secrets[f'MQTT_{role.upper()}'])}\n" for role in MQTT_ROLES]
        write_private(layout.config / "mosquitto.passwd", "".join(lines))
    if "alertmanager" in names:
        render("alertmanager/alertmanager.yml", layout.config / "alertmanager.yml", values)
        hashed = bcrypt.hashpw(secrets["ALERTMANAGER"].encode(), bcrypt.gensalt()).decode()
        render("alertmanager/web.yml.j2", layout.config / "alertmanager-web.yml", {"alertmanager_hash": hashed})
    if "inbox" in names and not (layout.config / "inbox.key").is_file():
        certificate, key = self_signed([LOOPBACK, "localhost"])
        write_private(layout.config / "inbox.pem", certificate)
        write_private(layout.config / "inbox.key", key)
    if "kafka" in names:
        render("kafka/server.properties.j2", layout.config / "server.properties", values)
    if "postgres" in names:
        render("postgres/postgresql.conf.j2", layout.postgres / "conf" / "postgresql.conf", values)
        render("postgres/pg_hba.conf.j2", layout.postgres / "conf" / "pg_hba.conf", values)
        write_private(layout.postgres / "conf" / "pg_ident.conf", "")
    if "spark" in names:
        render("spark/spark-defaults.conf.j2", layout.config / "spark" / "spark-defaults.conf", values)
        render("spark/log4j2.properties", layout.config / "spark" / "log4j2.properties", values)
    if "grafana" in names:
        grafana.write(layout, ports, secrets, values, has_alertmanager="alertmanager" in names)
    if "airflow-api-server" in names:
        passwords = {"admin": secrets["AIRFLOW_ADMIN"], "batch": secrets["AIRFLOW_BATCH"]}
        write_private(layout.config / "airflow-passwords.json", json.dumps(passwords) + "\n")


def airflow_environment(
    layout: Layout, ports: Ports, secrets: Mapping[str, str], environ: Mapping[str, str]
) -> dict[str, str]:
    """Read by all of Airflow's programs. What differs from its defaults has its reason beside it in the template."""
    from stack.render import rendered

    text = rendered("airflow/airflow.env.j2", {
        "dags": CHECKOUT / "dags", "plugins": CHECKOUT / "plugins", "config": layout.config, "secrets": secrets,
        "airflow_port": ports.airflow, "airflow_host": LOOPBACK, "logs": layout.airflow / "logs",
        "database": login_url("weir_airflow", secrets, ports, "weir_airflow"),
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
