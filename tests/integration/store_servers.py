"""HDFS and S3 for tests, no part of Weir's own stack: real servers, on ports of their own, fetched at first use.

`store.lock` pins the jars, `moto.txt` the packages of moto, which go into an environment of their own.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import boto3
import httpx
import pyspark

from connections.hdfs_store import HdfsStore
from connections.lake import Lake
from stack import jars, pins, prefix
from stack.cache import CHECKOUT
from stack.environment import pip_settings, uv_environment
from tests.conftest import TEST_HOMES
from tests.integration.processes import free_port, wait_for

HERE = Path(__file__).parent
LOCK = HERE / "store.lock"
BUCKET = "weir-lake"
KEY, SECRET = "weirs-key", "weirs-secret"
JVM = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")


@dataclass(frozen=True)
class Place:
    """Where a lake may lie, and what its users have in their environment."""

    uri: str
    environment: Mapping[str, str] = field(default_factory=dict)
    servers: Mapping[str, "Server"] = field(default_factory=dict)

    @property
    def webhdfs_port(self) -> int:
        return int(self.environment.get("WEIR_WEBHDFS_PORT", "9870"))

    @property
    def lake(self) -> Lake:
        return Lake(self.uri, self.webhdfs_port)

    def below(self, folder: str) -> "Place":
        return replace(self, uri=f"{self.uri}/{folder}")

    @contextmanager
    def used(self, **changes: str | None) -> Iterator[None]:
        """This process is one of its users, in the block; None: a variable that it lacks."""
        environment = {k: v for k, v in {**self.environment, **changes}.items() if not k.startswith("WEIR_")}
        with patch.dict(os.environ, {k: v for k, v in environment.items() if v is not None}):
            for name in (k for k, v in environment.items() if v is None):
                os.environ.pop(name, None)
            yield


class Server:
    """A process that can be killed and started again; it ends with the tests, at the latest."""

    def __init__(self, home: Path, name: str, command: list[str | Path], environment: Mapping[str, str] | None = None):
        self.name, self.log, self._command = name, home / f"{name}.log", command
        self._environment = {**os.environ, "STACK_OF_WEIR": str(home), **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Server":
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, cwd=self.log.parent,
                start_new_session=True,
            )  # fmt: skip
        return self

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def ready(self, answers: Any) -> None:
        def reached() -> bool:
            assert self._process is not None and self._process.poll() is None, self.log.read_text()[-3000:]
            return bool(answers())

        wait_for(reached, 60, lambda: self.log.read_text()[-3000:], every=0.2)


def java() -> Path:
    return prefix.ensure(lambda _: None).java


def store_jars(name: str) -> list[Path]:
    wanted = pins.read(LOCK).jars_in(name)
    found = jars.fetch(wanted, java().parents[1])
    return [found[jar] for jar in wanted]


# HDFS

OF_SPARK = ("hadoop-client-api", "hadoop-client-runtime", "slf4j-api", "log4j-api", "log4j-core", "log4j-slf4j2-impl",
            "log4j-1.2-api", "jcl-over-slf4j", "jakarta.activation-api", "javax.servlet-api")  # fmt: skip
"""Jars that pyspark has and HDFS needs."""


@contextmanager
def hdfs(home: Path, user: str = "weir") -> Iterator[Place]:
    """A NameNode and a DataNode; the folder /lake is that user's alone."""
    rpc, web, data = free_port(), free_port(), [free_port() for _ in range(3)]
    folder = home / "hdfs"
    folder.mkdir()
    site = {
        "fs.defaultFS": f"hdfs://127.0.0.1:{rpc}", "hadoop.tmp.dir": folder / "tmp",
        "dfs.namenode.rpc-address": f"127.0.0.1:{rpc}", "dfs.namenode.http-address": f"127.0.0.1:{web}",
        "dfs.namenode.name.dir": folder / "name", "dfs.datanode.data.dir": folder / "data", "dfs.replication": 1,
        "dfs.datanode.address": f"127.0.0.1:{data[0]}", "dfs.datanode.http.address": f"127.0.0.1:{data[1]}",
        "dfs.datanode.ipc.address": f"127.0.0.1:{data[2]}", "dfs.datanode.hostname": "127.0.0.1",
        "dfs.namenode.safemode.extension": 0,
    }  # fmt: skip
    for name in ("core-site.xml", "hdfs-site.xml"):
        properties = "".join(f"<property><name>{k}</name><value>{v}</value></property>" for k, v in site.items())
        (folder / name).write_text(f"<configuration>{properties}</configuration>")
    (folder / "log4j2.properties").write_text(
        "appender.c.type=Console\nappender.c.name=c\nrootLogger.level=warn\nrootLogger.appenderRef.c.ref=c\n"
    )
    spark = Path(pyspark.__file__).parent / "jars"
    parts = [folder, *store_jars("hdfs"), *(p for name in OF_SPARK for p in spark.glob(f"{name}-[0-9]*.jar"))]
    base: list[str | Path] = [java(), *JVM, f"-Djava.io.tmpdir={home}", "-cp", ":".join(map(str, parts))]
    node = "org.apache.hadoop.hdfs.server.{}".format
    told = subprocess.run(
        [*base, node("namenode.NameNode"), "-format", "-nonInteractive"], capture_output=True, text=True
    )  # fmt: skip
    assert told.returncode == 0, told.stderr[-3000:]
    servers = {
        "name": Server(home, "namenode", [*base, node("namenode.NameNode")]),
        "data": Server(home, "datanode", [*base, node("datanode.DataNode")]),
    }
    root = f"http://127.0.0.1:{web}/webhdfs/v1/lake"

    def writable() -> bool:
        try:
            HdfsStore("127.0.0.1", "/", port=web).write("probe", b"1")
        except OSError:
            return False
        return True

    try:
        for server in servers.values():
            server.start()
        servers["name"].ready(writable)
        for change in ({"op": "MKDIRS", "permission": "700"}, {"op": "SETOWNER", "owner": user}):
            httpx.put(root, params={**change, "user.name": HdfsStore("127.0.0.1", "/").user}).raise_for_status()
        environment = {"WEIR_WEBHDFS_PORT": str(web), "HADOOP_USER_NAME": user}
        yield Place(f"hdfs://127.0.0.1:{rpc}/lake", environment, servers)
    finally:
        for server in servers.values():
            server.kill()


# S3


@contextmanager
def s3proxy(home: Path) -> Iterator[Place]:
    """It takes no other keys than ours, and keeps its objects on disk."""
    port, folder = free_port(), home / "s3proxy"
    folder.mkdir()
    told = {
        "s3proxy.endpoint": f"http://127.0.0.1:{port}", "s3proxy.authorization": "aws-v2-or-v4",
        "s3proxy.identity": KEY, "s3proxy.credential": SECRET, "jclouds.provider": "filesystem-nio2",
        "jclouds.filesystem.basedir": folder, "jclouds.identity": "local", "jclouds.credential": "local",
    }  # fmt: skip
    config = home / "s3proxy.properties"
    config.write_text("".join(f"{key}={value}\n" for key, value in told.items()))
    command = [java(), *JVM, f"-Djava.io.tmpdir={home}", "-jar", *store_jars("s3"), "--properties", config]
    # It does not know the checksums that today's SDK sends by itself.
    quiet = {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required", "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required"}
    yield from _s3(Server(home, "s3proxy", command), port, quiet)


ONE_AT_A_TIME = """
import sys
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
run_simple("127.0.0.1", int(sys.argv[1]), DomainDispatcherApplication(create_backend_app), threaded=False)
"""
"""moto looks whether there is an object, then writes it: with threads, two could win."""


@contextmanager
def moto(home: Path) -> Iterator[Place]:
    """It takes any keys, and keeps its objects in memory."""
    port = free_port()
    yield from _s3(Server(home, "moto", [moto_python(), "-c", ONE_AT_A_TIME, str(port)]), port, {})


def _s3(server: Server, port: int, more: Mapping[str, str]) -> Iterator[Place]:
    environment = {
        "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}", **more,
    }  # fmt: skip

    def answers() -> bool:
        try:
            return httpx.get(environment["AWS_ENDPOINT_URL_S3"]).status_code > 0
        except httpx.HTTPError:
            return False

    try:
        server.start().ready(answers)
        boto3.session.Session(KEY, SECRET, region_name="us-east-1").client(
            "s3", endpoint_url=environment["AWS_ENDPOINT_URL_S3"]
        ).create_bucket(Bucket=BUCKET)
        yield Place(f"s3://{BUCKET}/lake", environment, {server.name: server})
    finally:
        server.kill()


def moto_python() -> Path:
    """Of an environment with moto in it, made at first use and again when what it needs changes."""
    wanted, folder = HERE / "moto.txt", TEST_HOMES / "moto"
    stamp = folder / "stamp"
    if not stamp.is_file() or stamp.read_text() != wanted.read_text():
        environment = uv_environment(os.environ, pip_settings())
        uv = Path(sys.prefix) / "bin" / "uv"
        for words in (
            ["venv", "-q", "--clear", "--python", sys.executable, folder],
            ["pip", "install", "-q", "--python", folder, "--require-hashes", "-r", wanted],
        ):
            subprocess.run([uv, *words], check=True, env=environment, cwd=CHECKOUT)
        stamp.write_text(wanted.read_text())
    return folder / "bin" / "python"


STORES = {"hdfs": hdfs, "moto": moto, "s3proxy": s3proxy}
