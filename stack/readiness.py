"""When a program counts as up: its server answers a real request with the right password."""

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from connections import probes
from fleet.errors import Refused, Unavailable
from stack.places import HERE, Places
from stack.ports import LOOPBACK, Ports

SPARK_POOL = {"name": "spark", "slots": 1, "description": "Spark jobs run one at a time", "include_deferred": False}


def check(name: str, ports: Ports, secrets: Mapping[str, str], places: Places = HERE) -> None:
    """Raises Unavailable (or Refused) until the program is ready."""
    match name:
        case "kafka":
            probes.listening(places.kafka, ports.kafka)
            probes.kafka(f"{places.kafka}:{ports.kafka}", "admin", secrets["KAFKA_ADMIN"])
        case "mosquitto":
            probes.mqtt(places.mqtt, ports.mqtt, "operator", secrets["MQTT_OPERATOR"])
        case "postgres":
            probes.postgres(
                f"postgresql://postgres:{secrets['DB_SUPERUSER']}@{places.postgres}:{ports.postgres}/postgres"
            )
        case "alertmanager":
            probes.alertmanager(f"http://{places.alertmanager}:{ports.alertmanager}", "weir", secrets["ALERTMANAGER"])
        case "inbox":
            probes.service(f"http://{places.inbox}:{ports.inbox}")
        case "spark":
            probes.listening(LOOPBACK, ports.spark)
            probes.spark(f"sc://localhost:{ports.spark}/;token={secrets['SPARK_TOKEN']}")
        case "airflow-api-server":
            probes.airflow(f"http://{places.airflow}:{ports.airflow}")
        case "airflow-scheduler" | "airflow-dag-processor":
            part = "scheduler" if name.endswith("scheduler") else "dag_processor"
            health = probes.airflow(f"http://{places.airflow}:{ports.airflow}")
            if health.get(part) != "healthy":
                raise Unavailable(f"Airflow's {part} is {health.get(part)}")
        case "grafana":
            probes.grafana(f"http://{places.grafana}:{ports.grafana}")
        case _:
            probes.service(f"http://{LOOPBACK}:{getattr(ports, f'{name}_metrics')}")


def finish_airflow(url: str, secrets: Mapping[str, str]) -> None:
    """The pool for Spark jobs, and a first call to the API that tasks use: it builds its app then, 4 s."""
    token = _json(f"{url}/auth/token", {"username": "admin", "password": secrets["AIRFLOW_ADMIN"]})["access_token"]
    try:
        _json(f"{url}/api/v2/pools", SPARK_POOL, token)
    except Refused as error:
        if "409" not in str(error):  # it is there already
            raise
    with contextlib.suppress(OSError):  # it spares the first task a wait; without it everything works as well
        urllib.request.urlopen(f"{url}/execution/health", timeout=30).close()  # noqa: S310


def _json(url: str, body: Mapping[str, Any], token: str = "") -> Any:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise Refused(f"{url}: {error.code} {error.read()[:300]!r}") from None
    except OSError as error:
        raise Unavailable(f"{url}: {error}") from None
