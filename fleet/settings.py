"""Every setting of Weir, in one frozen object that an entry point reads once.

`Settings.load()` takes the environment file of a role (written by `make setup`, 0600) and lets `WEIR_*` variables
override it. A `WEIR_*` name that is not here is an error: a misspelt setting must not pass for the default.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from fleet.default_ports import DEFAULT_PORTS
from fleet.errors import ConfigurationError
from fleet.nearest import did_you_mean

CHECKOUT = Path(__file__).resolve().parent.parent
PREFIX = "WEIR_"
SERVICES = ("bridge", "gateway", "landing", "live", "alerts", "history", "dispatcher", "commander")
"""Weir's own long-running processes; each has a role, a port and settings of its name."""
OPT_IN = ("stream",)
"""As those, and started where they are asked for alone."""


WEBHDFS_PORT = 9870
"""Of a NameNode, unless its hdfs-site.xml (`dfs.namenode.http-address`) says another."""


class Settings(BaseModel):
    """Field `kafka_user` is the variable `WEIR_KAFKA_USER`. Durations are in seconds, sizes in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path = CHECKOUT / "var"
    """All that a running Weir writes: data, logs, secrets, the native parts."""
    env_file: Path | None = None
    """Where these settings came from; None when there was no file."""
    role: str = "operator"
    types_dir: Path = CHECKOUT / "fleet" / "types"
    receivers_file: Path = CHECKOUT / "fleet" / "receivers.yaml"
    """Who is told of alerts: see fleet/receivers.py."""
    tariffs_file: Path = CHECKOUT / "fleet" / "tariffs.yaml"
    """What energy costs: see fleet/tariff.py."""
    data_dir: Path = CHECKOUT.parent / "shared" / "data"
    """Real recordings, for the demo and the tests; both do without them."""
    log_level: str = "INFO"

    kafka_bootstrap: str = "127.0.0.1:29092"
    kafka_protocol: str = "SASL_PLAINTEXT"
    kafka_mechanism: str = "SCRAM-SHA-512"
    kafka_user: str = ""
    kafka_password: SecretStr = SecretStr("")
    kafka_ca: Path | None = None

    mqtt_host: str = "127.0.0.1"
    mqtt_port: int = 21883
    mqtt_user: str = ""
    mqtt_password: SecretStr = SecretStr("")
    mqtt_ca: Path | None = None

    db_url: SecretStr = SecretStr("")
    """SQLAlchemy URL of the warehouse, `postgresql+psycopg2://user:password@host:port/database`."""
    lake_uri: str = ""
    """`file:///…`, `hdfs://namenode:8020/…` or `s3://bucket/…`; empty means the folder `lake` in `home`."""
    webhdfs_port: int = WEBHDFS_PORT
    """Where the NameNode of an `hdfs://` lake speaks WebHDFS: all but Spark goes by that."""

    spark_remote: SecretStr = SecretStr("")
    """Spark Connect, `sc://localhost:PORT/;token=…`; empty means a session of our own on `spark_master`."""
    spark_master: str = "local[2]"
    spark_jars: str = ""
    """Comma-separated paths; what a session of our own adds to Spark (a Connect server has them already)."""
    java_home: Path | None = None

    etl_schedule: str = "*/15 * * * *"
    """When Airflow runs sensor_etl by itself: cron in UTC, or `none`."""
    airflow_url: str = "http://127.0.0.1:28080"
    airflow_user: str = "admin"
    airflow_password: SecretStr = SecretStr("")
    grafana_url: str = "http://127.0.0.1:23000"
    """Where the stack's Grafana answers, when GRAFANA_HOME names one."""
    grafana_password: SecretStr = SecretStr("")
    """Of its user admin."""

    operator_token: SecretStr = SecretStr("")
    """By which people command devices over HTTP."""

    alertmanager_url: str = "http://127.0.0.1:29094"
    alertmanager_user: str = "weir"
    alertmanager_password: SecretStr = SecretStr("")

    inbox: Path | None = None
    """Where people drop files of readings, in a folder for each device type; None: the folder `inbox` in `home`."""

    inbox_url: str = ""
    """The demo's own receivers, which stand for the people: where its webhook listens …"""
    inbox_webhook_secret: SecretStr = SecretStr("")
    """… with what secret it wants bodies signed (`whsec_…`), …"""
    inbox_port: int = 0
    inbox_smtp_host: str = ""
    inbox_smtp_port: int = 0
    """… and where its mail server does, for user `weir`."""
    inbox_smtp_password: SecretStr = SecretStr("")
    inbox_certificate: Path | None = None
    """The mail server's, which its clients are told to trust (`ca_file`)."""
    inbox_key: Path | None = None

    port_base: int | None = None
    """The stack's servers listen on this port and the ones after it; without it, on the ports below."""
    port_mqtt: int = DEFAULT_PORTS["mqtt"]
    port_kafka: int = DEFAULT_PORTS["kafka"]
    port_kafka_controller: int = DEFAULT_PORTS["kafka_controller"]
    port_postgres: int = DEFAULT_PORTS["postgres"]
    port_airflow: int = DEFAULT_PORTS["airflow"]
    port_spark: int = DEFAULT_PORTS["spark"]
    port_bridge_metrics: int = DEFAULT_PORTS["bridge_metrics"]
    port_landing_metrics: int = DEFAULT_PORTS["landing_metrics"]
    port_live_metrics: int = DEFAULT_PORTS["live_metrics"]
    port_alerts_metrics: int = DEFAULT_PORTS["alerts_metrics"]
    port_history_metrics: int = DEFAULT_PORTS["history_metrics"]
    port_dispatcher_metrics: int = DEFAULT_PORTS["dispatcher_metrics"]
    port_alertmanager: int = DEFAULT_PORTS["alertmanager"]
    port_inbox: int = DEFAULT_PORTS["inbox"]
    port_inbox_smtp: int = DEFAULT_PORTS["inbox_smtp"]
    port_grafana: int = DEFAULT_PORTS["grafana"]
    port_stream_metrics: int = DEFAULT_PORTS["stream_metrics"]
    port_gateway_metrics: int = DEFAULT_PORTS["gateway_metrics"]
    port_gateway_http: int = DEFAULT_PORTS["gateway_http"]
    port_gateway_coap: int = DEFAULT_PORTS["gateway_coap"]
    port_commander_metrics: int = DEFAULT_PORTS["commander_metrics"]

    bridge_max_in_flight: int = 2000
    """Readings between the MQTT broker and Kafka's confirmation, per topic worker."""
    bridge_heartbeat_seconds: float = 10.0
    gateway_http_port: int = 0
    gateway_coap_port: int = 0
    """Where the gateway listens: TCP and UDP."""
    gateway_readings_per_second: float = Field(default=100.0, gt=0)
    """What one device may send on average; at once, up to ten seconds' worth, and one full body."""
    gateway_body_seconds: float = Field(default=10.0, gt=0)
    """A request's head, and then its body, must be there within."""
    gateway_confirm_seconds: float = Field(default=10.0, ge=1)
    """So long a request waits for Kafka before it is answered with 503."""
    credentials_key: SecretStr = SecretStr("")
    """By which devices' tokens are hashed; without it none is known."""
    kafka_delivery_seconds: float = 60.0
    """After which a producer gives up on a record; its owner then starts again from what was not confirmed."""
    landing_max_rows: int = 100_000
    landing_max_seconds: float = 60.0
    live_max_seconds: float = 1.0
    alerts_snapshot_seconds: float = 30.0
    stream_systems: str = ""
    """Systems with rollups of the running minute, by a Spark job that costs memory: `weather,home`; empty: none."""
    stream_trigger_seconds: float = Field(default=10.0, gt=0)
    """How often it writes."""
    bind: str = "127.0.0.1"
    """The address on which a service and the inbox listen."""
    bridge_metrics_port: int = 0
    """Prometheus metrics (`/metrics`) and readiness (`/ready`) of each service; 0 = none."""
    landing_metrics_port: int = 0
    live_metrics_port: int = 0
    alerts_metrics_port: int = 0
    history_metrics_port: int = 0
    dispatcher_metrics_port: int = 0
    commander_metrics_port: int = 0
    stream_metrics_port: int = 0
    gateway_metrics_port: int = 0
    service_instance: str = "1"
    """Tells two workers of one service apart; each needs its own."""

    @property
    def lake(self) -> str:
        return self.lake_uri or f"file://{(self.home / 'lake').resolve()}"

    @property
    def inbox_folder(self) -> Path:
        return (self.inbox or self.home / "inbox").resolve()

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, role: str = "operator") -> "Settings":
        """Settings of this process, from the role's file unless WEIR_ENV_FILE names another. Raises
        ConfigurationError naming the variable at fault."""
        environ = os.environ if environ is None else environ
        named = environ.get("WEIR_ENV_FILE")
        home = Path(environ.get("WEIR_HOME") or CHECKOUT / "var")
        path = Path(named) if named else home / "env" / f"{role}.env"
        values: dict[str, str] = {}
        if path.is_file():
            # An env file may hold secrets of receivers too, by names of their own.
            values = {k: v for k, v in read_env_file(path).items() if k.startswith(PREFIX)}
        elif named:
            raise ConfigurationError(f"WEIR_ENV_FILE names {path}, which does not exist; run `make setup` to write it")
        values.update({k: v for k, v in environ.items() if k.startswith(PREFIX)})
        values["WEIR_ENV_FILE"] = str(path) if path.is_file() else ""
        return cls.from_values(values)

    @classmethod
    def from_values(cls, values: Mapping[str, str]) -> "Settings":
        """From `WEIR_*` names to an object; an empty value means the default."""
        fields = cls.model_fields
        for name in values:
            if name.removeprefix(PREFIX).lower() not in fields:
                hint = did_you_mean(name, [PREFIX + f.upper() for f in fields])
                raise ConfigurationError(f"{name} is not a setting of Weir{hint} (all are in fleet/settings.py)")
        try:
            return cls.model_validate({k.removeprefix(PREFIX).lower(): v for k, v in values.items() if v != ""})
        except ValidationError as error:
            first = error.errors()[0]
            name = PREFIX + str(first["loc"][0]).upper()
            raise ConfigurationError(f"{name}={values.get(name)!r}: {first['msg']}") from None


def read_env_file(path: Path) -> dict[str, str]:
    """KEY=value lines; blank lines and lines that start with # are skipped."""
    values = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        key, found, value = line.partition("=")
        if not found:
            raise ConfigurationError(f"{path}:{number}: expected KEY=value, found {line[:40]!r}")
        values[key.strip()] = value.strip()
    return values
