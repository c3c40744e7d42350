"""The lake: Parquet files and the manifests that commit them, on a local disk, HDFS or S3.

Three promises, kept for each kind of store: a data file is durable and whole before its manifest is written; a
manifest appears whole or not at all; of two writers of the same manifest one wins and the other is told.
"""

import os
import uuid
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from fleet.errors import ConfigurationError, DataError, Unavailable
from fleet.lake_layout import LANDED, MANIFEST_PATH, ColumnType, manifest_folder, manifest_path
from fleet.manifest import Manifest, decode_manifest, encode_manifest

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
TEMPORARY = ".tmp-"
"""First characters of a file that is being written; no reader takes it, the sweep removes it."""
WEBHDFS_PORT = 9870


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
    """`uri` is `file:///…`, `hdfs://namenode[:port]/…` (spoken over WebHDFS, port 9870) or `s3://bucket/…`.
    All paths are relative to it."""

    def __init__(self, uri: str, **options: Any):
        self.uri = uri.rstrip("/")
        parts = urlsplit(self.uri)
        self.scheme = parts.scheme or "file"
        if self.scheme == "file":
            self.fs, self.root = fsspec.filesystem("file"), parts.path
        elif self.scheme == "hdfs":
            options.setdefault("user", parts.username or os.environ.get("HADOOP_USER_NAME") or os.environ.get("USER"))
            options.setdefault("port", WEBHDFS_PORT)
            self.fs, self.root = fsspec.filesystem("webhdfs", host=parts.hostname, **options), parts.path or "/"
        elif self.scheme == "s3":
            try:
                self.fs = fsspec.filesystem("s3", use_listings_cache=False, **options)
            except ImportError as error:
                raise ConfigurationError(
                    f"WEIR_LAKE_URI={uri} needs the package s3fs; install it beside Weir"
                ) from error
            self.root = parts.netloc + parts.path
        else:
            raise ConfigurationError(f"WEIR_LAKE_URI={uri}: a lake is file://, hdfs:// or s3://, not {parts.scheme}://")

    def path(self, relative: str) -> str:
        """The full path, without scheme, as the file system of this lake wants it."""
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
        try:
            if self.scheme == "file":
                temporary = self._write_local(relative, data)
                temporary.replace(self.path(relative))
                _sync_folder(temporary.parent)
            elif self.scheme == "hdfs":
                temporary_path = self._write_hdfs(relative, data)
                self.fs.rm(self.path(relative)) if self.fs.exists(self.path(relative)) else None
                self._rename_hdfs(temporary_path, self.path(relative))
            else:
                self.fs.pipe_file(self.path(relative), bytes(data))
        except (OSError, RuntimeError) as error:
            raise self._unavailable(relative, error) from error

    def put_if_absent(self, relative: str, data: bytes) -> bool:
        """Writes the file whole and durable, unless there is one: then False, and nothing is changed."""
        try:
            if self.scheme == "file":
                return self._link_local(relative, data)
            if self.scheme == "hdfs":
                # CREATE with overwrite=false shows an empty file before its content; a rename to a name that is
                # taken fails as a whole.
                temporary = self._write_hdfs(relative, data)
                if self._rename_hdfs(temporary, self.path(relative)):
                    return True
                self.fs.rm(temporary)
                return False
            return self._put_s3(relative, data)
        except (OSError, RuntimeError) as error:
            raise self._unavailable(relative, error) from error

    def _write_local(self, relative: str, data: bytes | memoryview) -> Path:
        target = Path(self.path(relative))
        _make_folder(target.parent)
        temporary = target.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary

    def _link_local(self, relative: str, data: bytes) -> bool:
        temporary = self._write_local(relative, data)
        try:
            os.link(temporary, self.path(relative))
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        _sync_folder(temporary.parent)
        return True

    def _write_hdfs(self, relative: str, data: bytes | memoryview) -> str:
        target = self.path(relative)
        folder = target.rpartition("/")[0]
        self.fs.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/{TEMPORARY}{uuid.uuid4().hex}"
        with self.fs.open(temporary, "wb") as file:
            file.write(bytes(data))
        return temporary

    def _rename_hdfs(self, source: str, target: str) -> bool:
        return bool(self.fs._call("RENAME", method="put", path=source, destination=target).json()["boolean"])

    def _put_s3(self, relative: str, data: bytes) -> bool:
        try:
            self.fs.pipe_file(self.path(relative), data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if "PreconditionFailed" in str(error) or "pre-conditions" in str(error):
                return False
            raise
        return True

    # Reading

    def read(self, relative: str) -> bytes:
        """Raises FileNotFoundError where there is no such file, Unavailable where the store does not answer."""
        try:
            return bytes(self.fs.cat_file(self.path(relative)))
        except FileNotFoundError:
            raise
        except (OSError, RuntimeError) as error:
            raise self._unavailable(relative, error) from error

    def names(self, folder: str) -> list[str]:
        """Names in a folder, sorted; none where there is no such folder."""
        try:
            if self.scheme == "file":
                return sorted(os.listdir(self.path(folder)))  # noqa: PTH208 - a folder may hold 10^5 manifests
            listed = self.fs.ls(self.path(folder), detail=False)
        except FileNotFoundError:
            return []
        except (OSError, RuntimeError) as error:
            raise self._unavailable(folder, error) from error
        return sorted(path.rstrip("/").rpartition("/")[2] for path in listed)

    def files(self, folder: str) -> list[str]:
        """Every file below a folder, at any depth, as paths relative to the lake; sorted."""
        try:
            found = self.fs.find(self.path(folder))
        except FileNotFoundError:
            return []
        prefix = len(self.path("")) + (0 if self.path("").endswith("/") else 1)
        return sorted(path[prefix:] for path in found)

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
            try:
                self.fs.rm_file(self.path(relative))
                removed += 1
            except FileNotFoundError:
                continue
        return removed

    def _unavailable(self, relative: str, error: Exception) -> Unavailable:
        return Unavailable(f"the lake does not take or give {self.url(relative)}: {error}")


def _make_folder(folder: Path) -> None:
    """With all above it, each durable in the folder that holds it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
