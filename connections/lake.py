"""The lake: Parquet files and the manifests that commit them, on a local disk, HDFS or S3.

Three promises, kept for each kind of store: a data file is durable and whole before its manifest is written; a
manifest appears whole or not at all; of two writers of the same manifest one wins and the other is told.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from io import BytesIO
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from connections.local_store import LocalStore
from connections.store import Store
from fleet.errors import ConfigurationError, DataError, Unavailable
from fleet.lake_layout import LANDED, MANIFEST_PATH, ColumnType, manifest_folder, manifest_path
from fleet.manifest import Manifest, decode_manifest, encode_manifest
from fleet.settings import WEBHDFS_PORT, Settings

ARROW_TYPES: dict[ColumnType, pa.DataType] = {
    "string": pa.string(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "timestamp_us": pa.timestamp("us", tz="UTC"),
    "timestamp_ms": pa.timestamp("ms", tz="UTC"),
    "strings": pa.list_(pa.string()),
    "binary": pa.binary(),
    "bool": pa.bool_(),
}
UNIT = b"unit"
"""In the metadata of a column: what the values are in."""


def arrow_schema(columns: Mapping[str, ColumnType], units: Mapping[str, str] | None = None) -> pa.Schema:
    """`units`: column → its unit, where it is to be written down."""
    known = units or {}
    return pa.schema(
        [
            pa.field(name, ARROW_TYPES[kind], metadata={UNIT: known[name].encode()} if name in known else None)
            for name, kind in columns.items()
        ]
    )


class Lake:
    """`uri` is `file:///…`, `hdfs://[user@]namenode[:port]/…` (the port is Spark's; we speak WebHDFS) or
    `s3://bucket/…`. All paths are relative to it."""

    def __init__(self, uri: str, webhdfs_port: int = WEBHDFS_PORT):
        self._opened = uri, webhdfs_port
        parts = urlsplit(uri.rstrip("/"))
        self.scheme = parts.scheme or "file"
        host = parts.netloc.rpartition("@")[2]
        self.uri = f"{self.scheme}://{host}{parts.path}"
        self.root = parts.path
        self._store: Store
        if self.scheme == "file":
            self._store = LocalStore(parts.path)
        elif self.scheme not in ("hdfs", "s3"):
            raise ConfigurationError(f"WEIR_LAKE_URI={uri}: a lake is file://, hdfs:// or s3://, not {parts.scheme}://")
        elif not host:
            kind = "NameNode" if self.scheme == "hdfs" else "bucket"
            raise ConfigurationError(f"WEIR_LAKE_URI={uri} names no {kind}: {self.scheme}://{kind.lower()}/folder")
        elif self.scheme == "hdfs":
            from connections.hdfs_store import HdfsStore  # for httpx, as for the AWS SDK below

            self._store = HdfsStore(str(parts.hostname), parts.path, parts.username, webhdfs_port)
        else:
            from connections.s3_store import S3Store  # the AWS SDK takes 0.3 s to import

            self._store = S3Store(host, parts.path)

    def __reduce__(self) -> tuple[type["Lake"], tuple[str, int]]:
        """For another process: its connections are its own."""
        return Lake, self._opened

    @classmethod
    def of(cls, settings: Settings) -> "Lake":
        return cls(settings.lake, settings.webhdfs_port)

    def path(self, relative: str) -> str:
        """The full path, without scheme; of a lake on this machine, where a file is."""
        return f"{self.root.rstrip('/')}/{relative}" if relative else self.root

    def url(self, relative: str) -> str:
        """The full address, as Spark wants it."""
        return f"{self.uri}/{relative}"

    # Writing

    def write_table(self, relative: str, table: pa.Table, group_rows: int | None = None) -> int:
        """A Parquet file, durable when this returns; replaces one of the same name. Returns its size in bytes.
        `group_rows`: of a row group, where a part of the file is to be read alone."""
        sink = BytesIO()
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True, row_group_size=group_rows)
        data = sink.getbuffer()
        self.write(relative, data)
        return len(data)

    def write(self, relative: str, data: bytes | memoryview) -> None:
        """Whole and durable when this returns. Raises Unavailable where the store does not take it: full, or away."""
        with self._there(relative):
            self._store.write(relative, data)

    def put_if_absent(self, relative: str, data: bytes) -> bool:
        """Writes the file whole and durable, unless there is one: then False, and nothing is changed."""
        with self._there(relative):
            return self._store.put_if_absent(relative, data)

    # Reading

    def read(self, relative: str) -> bytes:
        """Raises FileNotFoundError where there is no such file, Unavailable where the store does not answer."""
        with self._there(relative, FileNotFoundError):
            return self._store.read(relative)

    def signed_address(self, relative: str) -> str | None:
        """Where whoever has it can read the file by HTTP, for an hour; None where Spark can read it by itself."""
        with self._there(relative):
            return self._store.signed_address(relative)

    def names(self, folder: str) -> list[str]:
        """Names in a folder, sorted; none where there is no such folder."""
        try:
            with self._there(folder, FileNotFoundError):
                return sorted(self._store.names(folder))
        except FileNotFoundError:
            return []

    def files(self, folder: str) -> list[str]:
        """Every file below a folder, at any depth, as paths relative to the lake; sorted."""
        try:
            with self._there(folder, FileNotFoundError):
                return sorted(self._store.files(folder))
        except FileNotFoundError:
            return []

    def modified(self, relative: str) -> datetime:
        """When it was written; raises as read."""
        with self._there(relative, FileNotFoundError):
            return self._store.modified(relative)

    def manifest_names(self, topic: str, partition: int, after: int | None = None) -> list[str]:
        """Paths of the manifests of one Kafka partition, those only whose first offset is greater than `after`."""
        folder = manifest_folder(topic, partition)
        paths = (f"{folder}/{name}" for name in self.names(folder))
        least = "" if after is None else manifest_path(topic, partition, after)
        return [path for path in paths if MANIFEST_PATH.search(path) and path > least]

    def manifests(self, topic: str, partition: int, after: int | None = None) -> list[Manifest]:
        """In order of offset. Raises DataError where one does not add up or is no manifest."""
        return [self.manifest(path) for path in self.manifest_names(topic, partition, after)]

    def last_manifest(self, topic: str, partition: int) -> Manifest | None:
        names = self.manifest_names(topic, partition)
        return self.manifest(names[-1]) if names else None

    def landed_to(self, topic: str, partition: int) -> int:
        """The offset after the last that has landed; 0 where nothing has."""
        last = self.last_manifest(topic, partition)
        return 0 if last is None else last.last_offset + 1

    def manifest(self, relative: str) -> Manifest:
        try:
            manifest = decode_manifest(self.read(relative))
        except ValueError as error:
            raise DataError(f"{self.url(relative)} is no manifest: {error}") from error
        if manifest.imbalance():
            raise DataError(f"{self.url(relative)} does not add up: off by {manifest.imbalance()} records")
        return manifest

    def landed_partitions(self) -> list[tuple[str, int]]:
        """(topic, Kafka partition) of all that ever landed."""
        return [
            (topic, int(number)) for topic in self.names(LANDED) for number in self.names(f"{LANDED}/{topic}")
        ]  # fmt: skip

    def commit(self, manifest: Manifest) -> bool:
        """False where another writer committed from the same offset first. Raises DataError if it does not add up."""
        if manifest.imbalance():
            raise DataError(f"refusing to commit {manifest}: off by {manifest.imbalance()} records")
        path = manifest_path(manifest.topic, manifest.kafka_partition, manifest.first_offset)
        return self.put_if_absent(path, encode_manifest(manifest))

    def sweep(self, paths: Iterable[str]) -> int:
        """Removes files that no manifest names. Returns how many were there."""
        removed = 0
        for relative in paths:
            with suppress(FileNotFoundError), self._there(relative, FileNotFoundError):
                self._store.remove(relative)
                removed += 1
        return removed

    @contextmanager
    def _there(self, relative: str, *expected: type[OSError]) -> Iterator[None]:
        """What goes wrong with the store is Unavailable, but for what the caller expects."""
        try:
            yield
        except expected:
            raise
        except OSError as error:
            raise Unavailable(f"the lake does not take or give {self.url(relative)}: {error}") from error
