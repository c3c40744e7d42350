"""What runs under supervisord: each server and service once, with what it needs to be up before it."""

import os
import pwd
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fleet.settings import OPT_IN, SERVICES
from stack.layout import Layout
from stack.places import HERE, Places
from stack.ports import LOOPBACK, Ports
from stack.prefix import Prefix

BIN = Path(sys.prefix) / "bin"
MAIN_CLASS_KAFKA = "kafka.Kafka"
SPARK_SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"

SERVERS = ("mosquitto", "kafka", "postgres", "alertmanager")
AIRFLOW = ("airflow-api-server", "airflow-scheduler", "airflow-dag-processor")
ALL = (*SERVERS, "spark", *AIRFLOW, *SERVICES, "inbox")
OPTIONAL: Mapping[str, str] = {"grafana": "GRAFANA_HOME", "stream": "WEIR_STREAM_SYSTEMS"}
"""What is started where it is asked for: program → the variable that says where it is unpacked, or what it is to do."""
KNOWN = (*ALL, *OPTIONAL)
READ_TYPES = ("airflow-scheduler", "airflow-dag-processor", *SERVICES, *OPT_IN)
"""What reads the device types once, when it starts."""

GROUP_MEMBERS = ("landing", "live", "alerts")
"""Services that are members of the Kafka consumer group of the same name."""

NEEDS: Mapping[str, tuple[str, ...]] = {
    "airflow-api-server": ("postgres",),
    "airflow-scheduler": ("postgres",),
    "airflow-dag-processor": ("postgres",),
    "bridge": ("mosquitto", "kafka", "postgres"),
    "gateway": ("kafka", "postgres"),
    "landing": ("kafka",),
    "live": ("kafka", "postgres"),
    "alerts": ("kafka",),
    "history": ("kafka", "postgres"),
    "grafana": ("postgres",),
    "dispatcher": ("kafka", "postgres"),
    "commander": ("mosquitto", "kafka", "postgres"),
    "stream": ("kafka", "postgres"),
}
"""Program → servers that have to be up and provisioned (topics, users, migrations) before it starts."""

AFTER: Mapping[str, tuple[str, ...]] = {"spark": ("kafka",)}
"""Not needed, but waited for where both are started: five JVMs and Pythons at once on two cores help nobody."""

PORT_OF: Mapping[str, tuple[str, ...]] = {
    "mosquitto": ("mqtt",),
    "kafka": ("kafka", "kafka_controller"),
    "postgres": ("postgres",),
    "airflow-api-server": ("airflow",),
    "spark": ("spark",),
    "alertmanager": ("alertmanager",),
    "inbox": ("inbox", "inbox_smtp"),
    **{service: (f"{service}_metrics",) for service in (*SERVICES, *OPT_IN)},
    "grafana": ("grafana",),
    "gateway": ("gateway_metrics", "gateway_http", "gateway_coap"),
}


def everything(environ: Mapping[str, str]) -> tuple[str, ...]:
    """What is started where nothing is named: all of ours, and of the optional what there is."""
    return (*ALL, *(name for name, variable in OPTIONAL.items() if environ.get(variable)))


# A desktop's and a container's environment hold much that a server must not depend on.
PASSED_ON = ("PATH", "LANG", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "http_proxy", "https_proxy",
             "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "JDK_JAVA_OPTIONS")  # fmt: skip
PASSED_ON_PREFIXES = ("SPARK_MASTER", "AIRFLOW__")
LAKE_PREFIXES: Mapping[str, tuple[str, ...]] = {
    "landing": ("AWS_", "HADOOP_"),
    "airflow-scheduler": ("AWS_", "HADOOP_"),
    "spark": ("HADOOP_",),
}
"""Program → what it is told besides, as it writes or reads the lake; the scheduler runs the batch's tasks."""
AWS_FILES = {"AWS_SHARED_CREDENTIALS_FILE": "credentials", "AWS_CONFIG_FILE": "config"}
"""Variable → the file in the user's ~/.aws, which programs with a HOME of their own do not find."""


@dataclass(frozen=True)
class Program:
    name: str
    command: tuple[str | Path, ...]
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    restart: bool = True
    stop_signal: str = "TERM"
    stop_seconds: int = 20
    stop_group: bool = True


def base_environment(layout: Layout, environ: Mapping[str, str]) -> dict[str, str]:
    """For every program: a HOME and a TMPDIR inside the stack's home, and a mark by which leftovers are found."""
    kept = {k: v for k, v in environ.items() if k in PASSED_ON or k.startswith(PASSED_ON_PREFIXES)}
    return kept | {
        "HOME": str(layout.user_home),
        "TMPDIR": str(layout.tmp),
        "PATH": f"{BIN}:{environ.get('PATH') or '/usr/bin:/bin'}",
        "STACK_OF_WEIR": str(layout.home),
        # Airflow's processes rename themselves, and would write the new name over the mark.
        "SPT_NOENV": "1",
        "PYTHONUNBUFFERED": "1",
    }


def lake_environment(name: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The user's keys and settings of S3 and HDFS, for the programs that open the lake."""
    prefixes = LAKE_PREFIXES.get(name, ())
    told = {k: v for k, v in environ.items() if k.startswith(prefixes)} if prefixes else {}
    if "AWS_" in prefixes:
        folder = Path(environ.get("HOME") or "~").expanduser() / ".aws"
        told |= {k: str(folder / file) for k, file in AWS_FILES.items() if k not in told and (folder / file).is_file()}
    return told


def jvm(prefix: Prefix, layout: Layout, heap: str, archive: str | None = None) -> list[str | Path]:
    """A small JVM that leaves nothing in /tmp. `archive`: class data kept from the last run, for a faster start."""
    options = [f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:-UsePerfData", f"-Djava.io.tmpdir={layout.tmp}"]
    return [prefix.java, *options, *(class_archive(prefix, archive) if archive else [])]


def class_archive(prefix: Prefix, name: str) -> list[str]:
    """Loaded classes are kept when a JVM first stops, for all later starts: Kafka then needs a third less.

    Only the packaged runtime is known to be new enough (19) to do that by itself.
    """
    if prefix.java_home != prefix.root / "java":
        return []
    (prefix.root / "cds").mkdir(exist_ok=True)
    return ["-XX:+AutoCreateSharedArchive", f"-XX:SharedArchiveFile={prefix.root}/cds/{name}.jsa", "-Xlog:disable"]


def kafka(layout: Layout, prefix: Prefix) -> Program:
    logging = f"-Dlog4j2.configurationFile={layout.config}/kafka-log4j2.properties"
    command: list[str | Path] = [
        *jvm(prefix, layout, "384m", "kafka"), logging, "-cp", f"{prefix.kafka_jars}/*", MAIN_CLASS_KAFKA,
        layout.config / "server.properties",
    ]  # fmt: skip
    return Program("kafka", tuple(command), layout.home, stop_seconds=30)


def mosquitto(layout: Layout, prefix: Prefix) -> Program:
    broker = (prefix.mosquitto, "-c", layout.config / "mosquitto.conf")
    return Program("mosquitto", ("/bin/sh", layout.config / "mosquitto.sh", *broker), layout.home)


def postgres(layout: Layout, prefix: Prefix, drop: tuple[str, ...]) -> Program:
    """`drop`: the words before a command that take it off uid 0, which PostgreSQL refuses to run as."""
    config = layout.postgres / "conf" / "postgresql.conf"
    command: tuple[str | Path, ...] = (*drop, prefix.postgres_bin / "postgres", "-c", f"config_file={config}")
    # INT: disconnect clients and stop. Its children are its own affair.
    return Program("postgres", command, layout.postgres, stop_signal="INT", stop_seconds=30, stop_group=False)


def alertmanager(layout: Layout, prefix: Prefix, ports: Ports, places: Places = HERE) -> Program:
    command = (
        prefix.alertmanager,
        f"--config.file={layout.config}/alertmanager.yml",
        f"--web.config.file={layout.config}/alertmanager-web.yml",
        f"--web.listen-address={places.bind}:{ports.alertmanager}",
        f"--web.external-url=http://{places.page}:{ports.alertmanager}",
        f"--storage.path={layout.data}/alertmanager",
        # Silences are saved that often, and when it stops: a killed one forgets no more than these.
        "--data.maintenance-interval=10s",
        "--cluster.listen-address=",
    )
    folder = prefix.alertmanager_folder if prefix.alertmanager_folder.is_dir() else layout.home
    return Program("alertmanager", command, folder)


def service(name: str, layout: Layout, passed: Mapping[str, str]) -> Program:
    environment = {**passed, "WEIR_ENV_FILE": str(layout.env_file(name)), "WEIR_HOME": str(layout.home)}
    return Program(name, (BIN / "weir", "service", name), layout.home, environment)


def stream(layout: Layout, passed: Mapping[str, str]) -> Program:
    """Its JVM goes when it does: told to stop as well, it would go in the middle of what is still to be written."""
    command = (BIN / "weir", "etl", "stream")
    return replace(service("stream", layout, passed), command=command, stop_group=False, stop_seconds=30)


def on_this_machine(spark_master: str) -> bool:
    """`local[2]` and its like, as opposed to a cluster (`spark://…`, `yarn`, `k8s://…`)."""
    return spark_master.partition("[")[0] == "local"


def spark(layout: Layout, prefix: Prefix, spark_master: str) -> Program:
    import pyspark

    spark_home = Path(pyspark.__file__).parent
    environment = {
        "JAVA_HOME": str(prefix.java_home),
        "SPARK_HOME": str(spark_home),
        "SPARK_CONF_DIR": str(prefix.root / "no-spark-conf"),  # all is said by options: nothing else is picked up
        "SPARK_LOCAL_DIRS": str(layout.tmp),
        "SPARK_NO_DAEMONIZE": "1",
        "PYSPARK_PYTHON": str(BIN / "python"),
    }
    if on_this_machine(spark_master):
        environment["SPARK_LOCAL_IP"] = LOOPBACK
    jars = ",".join(str(path) for path in prefix.spark_jars)
    folder = layout.config / "spark"
    logging = folder / "log4j2.properties"
    command = (
        spark_home / "bin" / "spark-submit", "--properties-file", folder / "spark-defaults.conf",
        "--driver-java-options",
        f"-XX:+UseSerialGC -XX:-UsePerfData '-Djava.io.tmpdir={layout.tmp}' '-Dlog4j2.configurationFile={logging}'",
        "--jars", jars, "--class", SPARK_SERVER, "spark-internal",
    )  # fmt: skip
    return Program("spark", command, layout.tmp, environment, stop_seconds=30)


def airflow(name: str, layout: Layout, ports: Ports, environment: Mapping[str, str], places: Places = HERE) -> Program:
    words = {
        "airflow-api-server": ("api-server", "--host", places.bind, "--port", str(ports.airflow)),
        "airflow-scheduler": ("scheduler", "-s"),
        "airflow-dag-processor": ("dag-processor",),
    }[name]
    return Program(name, (BIN / "airflow", *words), layout.airflow, environment, stop_seconds=30)


def with_environment(program: Program, base: Mapping[str, str]) -> Program:
    """The same program with `base` under its own environment."""
    return replace(program, environment={**base, **program.environment})


def open_files() -> int:
    """As many open files as supervisord may ask for here."""
    return min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def own_name() -> str | None:
    """The name of this user, for servers that want one; None for a uid that the password database does not know."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return None
