"""Is a server up, and does it let us in? Each probe really asks, and raises Unavailable or Refused with the reason."""

import base64
import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request

from fleet.errors import Refused, Unavailable


def kafka(bootstrap: str, user: str, password: str, seconds: float = 5) -> None:
    """Cluster metadata as this user."""
    from connections.kafka_admin import KafkaAdmin

    with KafkaAdmin(bootstrap, user, password, seconds) as admin:
        admin.topics()


def mqtt(host: str, port: int, user: str, password: str, seconds: float = 3) -> None:
    """A CONNECT that the broker accepts. An empty user asks as nobody."""
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion
    from paho.mqtt.reasoncodes import ReasonCode

    answers: list[ReasonCode] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    if user:
        client.username_pw_set(user, password)
    client.on_connect = lambda _client, _data, _flags, reason, _properties: answers.append(reason)
    try:
        client.connect(host, port, keepalive=10)
        while not answers:
            if client.loop(timeout=seconds) != paho.MQTT_ERR_SUCCESS and not answers:
                raise Unavailable(f"the MQTT broker at {host}:{port} closed the connection")
    except OSError as error:
        raise Unavailable(f"no MQTT broker at {host}:{port}: {error}") from None
    finally:
        client.disconnect()
    if answers[0].is_failure:
        raise Refused(f"the MQTT broker at {host}:{port} refused user {user!r}: {answers[0]}")


def postgres(url: str, seconds: int = 3) -> None:
    """A query as this login. `url` is a SQLAlchemy or a libpq URL."""
    import psycopg2

    try:
        connection = psycopg2.connect(url.replace("+psycopg2", ""), connect_timeout=seconds)
    except psycopg2.OperationalError as error:
        text = str(error).strip()
        raise (Refused if "authentication failed" in text else Unavailable)(f"database: {text}") from None
    try:
        with connection.cursor() as cursor:
            cursor.execute("select 1")
    finally:
        connection.close()


def airflow(url: str, seconds: float = 5) -> dict[str, str]:
    """Airflow's own health: component → status. Raises Unavailable unless the metadata database is healthy."""
    try:
        with urllib.request.urlopen(f"{url}/api/v2/monitor/health", timeout=seconds) as answer:  # noqa: S310
            told = json.load(answer)
    except (OSError, ValueError) as error:
        raise Unavailable(f"Airflow at {url}: {error}") from None
    health = {name: str((part or {}).get("status")) for name, part in told.items()}
    if health.get("metadatabase") != "healthy":
        raise Unavailable(f"Airflow's metadata database is {health.get('metadatabase')}")
    return health


def grafana(url: str, seconds: float = 5) -> None:
    """Grafana's own health. Raises Unavailable unless its database is well."""
    try:
        with urllib.request.urlopen(f"{url}/api/health", timeout=seconds) as answer:  # noqa: S310
            database = json.load(answer).get("database")
    except (OSError, ValueError) as error:
        raise Unavailable(f"Grafana at {url}: {error}") from None
    if database != "ok":
        raise Unavailable(f"Grafana's database is {database}")


def alertmanager(url: str, user: str, password: str, seconds: float = 5) -> None:
    """Its own readiness, as this user."""
    basic = base64.b64encode(f"{user}:{password}".encode()).decode()
    request = urllib.request.Request(f"{url}/-/ready", headers={"Authorization": f"Basic {basic}"})  # noqa: S310
    try:
        urllib.request.urlopen(request, timeout=seconds).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        refused = error.code in (401, 403)
        raise (Refused if refused else Unavailable)(f"Alertmanager at {url} as {user!r}: {error.code}") from None
    except OSError as error:
        raise Unavailable(f"Alertmanager at {url}: {error}") from None


def service(url: str, seconds: float = 5) -> None:
    """One of Weir's own services says that it does its work. Raises Unavailable with what it says instead."""
    try:
        urllib.request.urlopen(f"{url}/ready", timeout=seconds).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        raise Unavailable(f"{url}/ready: {error.code} {error.read().decode(errors='replace').strip()}") from None
    except OSError as error:
        raise Unavailable(f"{url}/ready: {error}") from None


def listening(host: str, port: int, seconds: float = 1) -> None:
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except OSError as error:
        raise Unavailable(f"nothing listens at {host}:{port}: {error}") from None


SPARK_PROBE = """
import sys
from pyspark.sql import SparkSession
session = SparkSession.builder.remote(sys.stdin.read()).create()
assert session.range(10).count() == 10
session.stop()
"""


def spark(url: str, seconds: float = 120) -> None:
    """A session on Spark Connect and a first query, which also warms the server up.

    In a process of its own: the client takes 2 s and 150 MB to load. The URL, which holds the token, goes by pipe.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SPARK_PROBE],
            input=url,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"Spark Connect did not answer within {seconds:.0f} s") from None
    if done.returncode:
        words = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        refused = "UNAUTHENTICATED" in done.stderr
        raise (Refused if refused else Unavailable)(f"Spark Connect: {words[0][:300]}")
