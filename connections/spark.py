"""A Spark session: on a Spark Connect server, in this process or on a cluster, by setting; the same code runs on each.

Only DataFrame calls: neither RDDs nor `_jvm` exist on Spark Connect.
"""

import contextlib
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from uuid import UUID

from fleet.errors import ConfigurationError, Unavailable
from fleet.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SESSION = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    # 200 tasks of 20 ms each are Spark's default; adaptive execution joins these further where they are small.
    "spark.sql.shuffle.partitions": "4",
    # Beyond 32 files their sizes are looked up by a Spark job of its own; a landed hour has some hundreds.
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "10000",
    # A plan that a server remembers of an earlier client lists the files as they were then.
    "spark.connect.session.planCache.enabled": "false",
}
"""For each session, wherever it runs."""

ARROW_ROWS = "spark.sql.execution.arrow.maxRecordsPerBatch"

OWN_PROCESS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "1g",
    "spark.executor.heartbeatInterval": "60s",  # docker/spark/spark-defaults.conf.j2 says why
    "spark.sql.execution.arrow.pyspark.enabled": "true",
}
"""For a driver in this process. A cluster whose workers are elsewhere needs an address they can reach: set
`spark.driver.host` in spark-defaults.conf and name that folder in SPARK_CONF_DIR, which overrides these."""


@contextlib.contextmanager
def session(
    settings: Settings, application: str = "weir", driver: Mapping[str, str] = MappingProxyType({})
) -> Iterator["SparkSession"]:
    """A session to use in the block. `driver`: what one of our own is started with beside the
    rest. Raises Unavailable where no Spark answers, ConfigurationError without Java."""
    remote = settings.spark_remote.get_secret_value()
    spark = _connect(remote) if remote else _start(settings, application, driver)
    from pyspark.errors import PySparkException

    # These copy each failed query with the JVM's stack, 20 KB of JSON, to stderr; the exception has it all.
    for name in ("DataFrameQueryContextLogger", "SQLQueryContextLogger"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        for key, value in SESSION.items():
            spark.conf.set(key, value)
        yield spark
    except Exception as error:
        if _is_interrupted(error):
            raise KeyboardInterrupt from None
        if not isinstance(error, PySparkException) or not is_gone(error):
            raise
        raise Unavailable(f"Spark Connect at {address(settings)} went away: {first_line(error)}") from error
    finally:
        # A driver of our own takes 10 s to start and is kept for the next block; it ends with this process.
        if remote:
            spark.stop()


@contextlib.contextmanager
def few_rows_at_once(spark: "SparkSession") -> Iterator[None]:
    """In an Arrow batch, for rows of megabytes; Spark's 10,000 are meant for rows of some bytes."""
    spark.conf.set(ARROW_ROWS, "16")
    try:
        yield
    finally:
        spark.conf.unset(ARROW_ROWS)


def address(settings: Settings) -> str:
    """Where Spark runs, without the token."""
    remote = settings.spark_remote.get_secret_value()
    return remote.partition("/;")[0] if remote else settings.spark_master


def is_gone(error: Exception) -> bool:
    """Whether the server is: by gRPC status, or because a server that was started anew does not know our session."""
    status = getattr(error, "getGrpcStatusCode", lambda: None)()
    condition = getattr(error, "getCondition", lambda: None)() or ""
    return getattr(status, "name", "") == "UNAVAILABLE" or condition.startswith("INVALID_HANDLE")


def _is_interrupted(error: BaseException | None) -> bool:
    """A session of this process answers Ctrl-C by an error of the JVM, which was told to stop."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _connect(remote: str) -> "SparkSession":
    """The session that all who come with this address share. Each session's Python workers start anew, 1 s of CPU, and
    their parent, 50 MB, stays on the server when the session is gone. A server that ends idle sessions, as the stack's
    does not, never takes their id again: there each comer has one for itself."""
    from pyspark.errors import PySparkException

    shared = UUID(bytes=sha256(remote.encode()).digest()[:16], version=4)
    address = remote.rstrip("/;")
    try:
        try:
            spark = _reach(f"{address}{';' if '/;' in address else '/;'}session_id={shared}")
            spark.release_session_on_close = False
        except PySparkException as error:
            if error.getCondition() != "INVALID_HANDLE.SESSION_CLOSED":
                raise
            spark = _reach(remote)
    except PySparkException as error:
        place = remote.partition("/;")[0]
        raise Unavailable(
            f"no Spark Connect at {place} (is it up, and is WEIR_SPARK_REMOTE's token right?): {first_line(error)}"
        ) from error
    return spark


def _reach(remote: str) -> "SparkSession":
    from pyspark.sql import SparkSession

    spark = SparkSession.builder.remote(remote).create()
    _ = spark.version  # the first call that reaches the server
    return spark


def _start(settings: Settings, application: str, driver: Mapping[str, str]) -> "SparkSession":
    # The JVM and Spark's workers take these from the environment; without the second, workers run whatever python3
    # stands first in PATH, which has no pyarrow.
    java_home = str(_java_home(settings))
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if settings.spark_master.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(settings.spark_master).appName(application)
    for key, value in {**OWN_PROCESS, **driver}.items():
        if settings.spark_master.startswith("local") or not key.startswith(("spark.driver.host", "spark.driver.bind")):
            builder = builder.config(key, value)
    if settings.spark_master.startswith("local"):
        scratch = settings.home.resolve() / "tmp"
        scratch.mkdir(parents=True, exist_ok=True)
        java = f"-XX:-UsePerfData '-Djava.io.tmpdir={scratch}'"
        builder = builder.config("spark.local.dir", str(scratch)).config("spark.driver.extraJavaOptions", java)
    if settings.spark_jars:
        builder = builder.config("spark.jars", settings.spark_jars)
    try:
        with _quiet(), _java_home_of(java_home):
            spark = builder.getOrCreate()
    except PySparkException as error:
        raise Unavailable(f"Spark does not start on {settings.spark_master}: {error}") from error
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def _java_home(settings: Settings) -> Path:
    found = settings.java_home or os.environ.get("JAVA_HOME")
    if not found and (java := shutil.which("java")):
        found = Path(java).resolve().parent.parent
    if not found or not (Path(found) / "bin" / "java").exists():
        raise ConfigurationError(
            f"Spark needs Java 17 or 21, and WEIR_JAVA_HOME is {found or 'not set'}; run `make setup`"
        )
    return Path(found)


@contextlib.contextmanager
def _java_home_of(java_home: str) -> Iterator[None]:
    """For the launcher alone: `make setup` in the same process goes by the JAVA_HOME of the host."""
    before = os.environ.get("JAVA_HOME")
    os.environ["JAVA_HOME"] = java_home
    try:
        yield
    finally:
        if before is None:
            del os.environ["JAVA_HOME"]
        else:
            os.environ["JAVA_HOME"] = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The launcher and the JVM's first lines write to the file descriptor, past any logging set-up."""
    sys.stderr.flush()
    saved, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)
