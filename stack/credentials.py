"""Passwords, made once at set-up, and the env file of each role: no role can read another's."""

import base64
import hashlib
import os
import secrets
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from fleet.settings import OPT_IN, PREFIX, SERVICES, read_env_file
from stack.layout import Layout
from stack.places import HERE, Places
from stack.ports import LOOPBACK, Ports

ROLES = (
    "operator", "registry", "bridge", "gateway", "landing", "live", "alerts", "history", "dispatcher", "commander",
    "batch", "stream", "simulator",
)  # fmt: skip
MQTT_ROLES = ("operator", "bridge", "simulator", "dispatcher", "commander")
ASK_ALERTMANAGER = ("operator", "dispatcher")
KNOW_CREDENTIALS = ("registry", "gateway")
"""Who makes devices' tokens, and who checks them."""
TAKE_COMMANDS = ("operator", "gateway")
"""Who knows the token by which people command devices over HTTP: they themselves, and who lets them in."""
DB_ROLE = {
    "operator": "weir_operator", "registry": "weir_registry", "bridge": "weir_registry", "gateway": "weir_registry",
    "live": "weir_live", "history": "weir_history", "dispatcher": "weir_dispatcher", "commander": "weir_commander",
    "batch": "weir_batch",
    "stream": "weir_stream",
}  # fmt: skip
"""Role → its login in the warehouse. The owner, `weir`, is for migrations alone."""
DB_LOGINS = (
    "weir", "weir_live", "weir_history", "weir_dispatcher", "weir_commander", "weir_batch", "weir_stream",
    "weir_registry", "weir_operator", "weir_reader", "weir_airflow",
)  # fmt: skip
SERVER_KEYS = (
    "KAFKA_BROKER", "KAFKA_ADMIN", "KAFKA_CONTROLLER", "DB_SUPERUSER", "AIRFLOW_ADMIN", "AIRFLOW_BATCH",
    "AIRFLOW_API_SECRET", "SPARK_TOKEN", "GRAFANA_ADMIN", "GRAFANA_SECRET", "ALERTMANAGER", "INBOX_SMTP",
    "CREDENTIALS",
    "OPERATOR_TOKEN",
)  # fmt: skip


def write_private(path: Path, text: str) -> None:
    """Replace a file that only its owner may read; it is never readable by others, not even for a moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)
    scratch.replace(path)


def ensure_secrets(layout: Layout, external_db_url: str = "") -> dict[str, str]:
    """The stack's secrets. Those that are missing are made; those that exist are never changed.

    `external_db_url` is remembered among them, so that later commands find it without being told.
    """
    path = layout.env_file("secrets")
    known = read_env_file(path) if path.is_file() else {}
    wanted = [
        *SERVER_KEYS,
        *(f"KAFKA_{role.upper()}" for role in ROLES),
        *(f"MQTT_{role.upper()}" for role in MQTT_ROLES),
        *(f"DB_{login.upper()}" for login in DB_LOGINS),
    ]
    made = {key: secrets.token_urlsafe(24) for key in wanted if key not in known}
    if "AIRFLOW_JWT" not in known:
        made["AIRFLOW_JWT"] = secrets.token_urlsafe(64)  # SHA-512 wants 64 bytes or more
    if "AIRFLOW_FERNET" not in known:
        made["AIRFLOW_FERNET"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    if "INBOX_WEBHOOK" not in known:
        made["INBOX_WEBHOOK"] = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
    if "KAFKA_CLUSTER_ID" not in known:
        made["KAFKA_CLUSTER_ID"] = cluster_id()
    if external_db_url and known.get("EXTERNAL_DB_URL") != external_db_url:
        made["EXTERNAL_DB_URL"] = external_db_url
    if made:
        known |= made
        write_private(path, "".join(f"{key}={value}\n" for key, value in sorted(known.items())))
    return known


def cluster_id(make: Callable[[], uuid.UUID] = uuid.uuid4) -> str:
    """A UUID as Kafka writes it. One in 64 begins with a dash, which its format tool takes for an option."""
    while (made := base64.urlsafe_b64encode(make().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return made


def scram_argument(user: str, password: str, salt: bytes | None = None, iterations: int = 4096) -> str:
    """A user for Kafka's format tool. The salted password is as good as the password: keep it off command lines."""
    salt = salt or secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations)
    fields = f"name={user},iterations={iterations},salt={base64.b64encode(salt).decode()}"
    return f"SCRAM-SHA-512=[{fields},saltedpassword={base64.b64encode(salted).decode()}]"


def login_url(login: str, known: Mapping[str, str], ports: Ports, database: str = "weir", places: Places = HERE) -> str:
    """SQLAlchemy URL of a login of the warehouse: on our server, or on the one that WEIR_DB_URL named at set-up."""
    password = known[f"DB_{login.upper()}"]
    external = known.get("EXTERNAL_DB_URL")
    if not external:
        return f"postgresql+psycopg2://{login}:{password}@{places.postgres}:{ports.postgres}/{database}"
    parts = urlsplit(external)
    place = parts.netloc.rpartition("@")[2]
    path = parts.path if database == "weir" else f"/{database}"
    return urlunsplit(("postgresql+psycopg2", f"{login}:{password}@{place}", path, parts.query, ""))


def owner_url(known: Mapping[str, str], ports: Ports, places: Places = HERE) -> str:
    """Who owns the tables: `weir` on our server, else the user's own login."""
    return known.get("EXTERNAL_DB_URL") or login_url("weir", known, ports, places=places)


def admin_url(known: Mapping[str, str], ports: Ports, places: Places = HERE) -> str:
    """Who may make logins and databases: our server's superuser, else the user's own login."""
    return known.get("EXTERNAL_DB_URL") or (
        f"postgresql+psycopg2://postgres:{known['DB_SUPERUSER']}@{places.postgres}:{ports.postgres}/postgres"
    )


def role_settings(
    role: str, layout: Layout, ports: Ports, known: Mapping[str, str], java: Mapping[str, str], kept: Mapping[str, str],
    places: Places = HERE, has_grafana: bool = False,
) -> dict[str, str]:  # fmt: skip
    """What one role's env file says. `java`: its home and jars; `kept`: what else all roles share; `has_grafana`:
    whether the dispatcher has one to write annotations into, as its admin: a new Grafana has no other user."""
    values = {"WEIR_HOME": str(layout.home), "WEIR_ROLE": role, **kept}
    values |= {
        "WEIR_KAFKA_BOOTSTRAP": f"{places.kafka}:{ports.kafka}",
        "WEIR_KAFKA_USER": role,
        "WEIR_KAFKA_PASSWORD": known[f"KAFKA_{role.upper()}"],
    }
    if role in MQTT_ROLES:
        values |= {
            "WEIR_MQTT_HOST": places.mqtt,
            "WEIR_MQTT_PORT": str(ports.mqtt),
            "WEIR_MQTT_USER": role,
            "WEIR_MQTT_PASSWORD": known[f"MQTT_{role.upper()}"],
        }
    if role in DB_ROLE:
        login = DB_ROLE[role]
        values["WEIR_DB_URL"] = login_url(login, known, ports, places=places)
    if role in (*SERVICES, *OPT_IN):
        values[f"WEIR_{role.upper()}_METRICS_PORT"] = str(getattr(ports, f"{role}_metrics"))
    if places.bind != LOOPBACK:
        values["WEIR_BIND"] = places.bind
    if role in ASK_ALERTMANAGER:
        values |= {
            "WEIR_ALERTMANAGER_URL": f"http://{places.alertmanager}:{ports.alertmanager}",
            "WEIR_ALERTMANAGER_USER": "weir",
            "WEIR_ALERTMANAGER_PASSWORD": known["ALERTMANAGER"],
        }
    if role in KNOW_CREDENTIALS:
        values["WEIR_CREDENTIALS_KEY"] = known["CREDENTIALS"]
    if role == "gateway":
        values |= {
            "WEIR_GATEWAY_HTTP_PORT": str(ports.gateway_http), "WEIR_GATEWAY_COAP_PORT": str(ports.gateway_coap)
        }  # fmt: skip
    if role in TAKE_COMMANDS:
        values["WEIR_OPERATOR_TOKEN"] = known["OPERATOR_TOKEN"]
    if role == "dispatcher":
        values |= inbox_settings(layout, ports, known, places)
    if role == "batch":
        values["WEIR_SPARK_REMOTE"] = f"sc://localhost:{ports.spark}/;token={known['SPARK_TOKEN']}"
    if role in ("batch", "stream"):
        values |= java
    if role == "operator" or (role == "dispatcher" and has_grafana):
        values |= {
            "WEIR_GRAFANA_URL": f"http://{places.grafana}:{ports.grafana}",
            "WEIR_GRAFANA_PASSWORD": known["GRAFANA_ADMIN"],
        }
    if role == "operator":
        values |= {
            "WEIR_AIRFLOW_URL": f"http://{places.airflow}:{ports.airflow}",
            "WEIR_AIRFLOW_USER": "admin",
            "WEIR_AIRFLOW_PASSWORD": known["AIRFLOW_ADMIN"],
        }
        values |= {f"WEIR_PORT_{name.upper()}": str(getattr(ports, name)) for name in ports.__dataclass_fields__}
    return values


def inbox_settings(layout: Layout, ports: Ports, known: Mapping[str, str], places: Places = HERE) -> dict[str, str]:
    """What the demo's inbox and who sends to it know alike."""
    return {
        "WEIR_INBOX_URL": f"http://{places.inbox}:{ports.inbox}/hook",
        "WEIR_INBOX_WEBHOOK_SECRET": known["INBOX_WEBHOOK"],
        "WEIR_INBOX_PORT": str(ports.inbox),
        "WEIR_INBOX_SMTP_HOST": places.inbox,
        "WEIR_INBOX_SMTP_PORT": str(ports.inbox_smtp),
        "WEIR_INBOX_SMTP_PASSWORD": known["INBOX_SMTP"],
        "WEIR_INBOX_CERTIFICATE": str(layout.config / "inbox.pem"),
    }


def environments(
    layout: Layout, ports: Ports, known: Mapping[str, str], java: Mapping[str, str], kept: Mapping[str, str],
    places: Places = HERE, has_grafana: bool = False,
) -> dict[str, dict[str, str]]:  # fmt: skip
    """Role → what its env file says; the inbox has one without being a role."""
    of_role = {role: role_settings(role, layout, ports, known, java, kept, places, has_grafana) for role in ROLES}
    of_role["inbox"] = {
        "WEIR_HOME": str(layout.home), "WEIR_ROLE": "inbox", **inbox_settings(layout, ports, known, places),
        "WEIR_INBOX_KEY": str(layout.config / "inbox.key"),
    }  # fmt: skip
    if places.bind != LOOPBACK:
        of_role["inbox"]["WEIR_BIND"] = places.bind
    return of_role


def env_file(values: Mapping[str, str]) -> str:
    return "".join(f"{key}={value}\n" for key, value in values.items())


def write_env_files(
    layout: Layout, ports: Ports, known: Mapping[str, str], java: Mapping[str, str], kept: Mapping[str, str],
    has_grafana: bool = False,
) -> None:  # fmt: skip
    for role, values in environments(layout, ports, known, java, kept, has_grafana=has_grafana).items():
        path = layout.env_file(role)
        if role == "dispatcher" and path.is_file():  # secrets of receivers, which a person wrote into it
            values |= {key: value for key, value in read_env_file(path).items() if not key.startswith(PREFIX)}
        write_private(path, env_file(values))
