"""One Spark task of a long backtest: the files of a Kafka partition in, as bytes; what the rules said of it out.

Runs inside Spark's Python workers, which need not have Weir. Its code comes along, as it cannot come by value: the
engine is some fifty modules. Each task imports it anew, as a worker outlives the code that it once got. Of what that
imports itself a worker must have REQUIRED.
"""

import pickle
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import environ
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

PACKAGES = ("fleet", "connections", "etl")
REQUIRED = ("msgspec", "numpy", "pyarrow", "pydantic", "yaml")
"""Modules of others that evaluation imports, all by the requirements' names but PyYAML."""
WORK = ""
"""Stands in place of a file's path where the content is the work that is to be done, pickled."""
TOLD = "kind string, kafka_partition int, piece binary"
"""What `told` gives, as Spark's DDL: HISTORY as msgspec's MessagePack, or why there is none, as text."""
HISTORY, DAMAGED, LACKING = "history", "damaged", "lacking"
PIECE_BYTES = 4 * 1024 * 1024
"""Of one answer, many of which make a message of Spark Connect, of 128 MiB at most."""


def told(uri: str, code: bytes, files: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """`files` have file, its path in the lake or WORK, and content; all that is worked on must be there. `uri`: how the
    lake is called where something is wrong with it; `code`: a zip of PACKAGES."""
    scratch = environ.get("SPARK_LOCAL_DIRS", "").partition(",")[0] or None  # Spark's own, which it removes
    with TemporaryDirectory(prefix="weir-backtest-", dir=scratch) as folder:
        lake, work = Path(folder, "lake"), []
        for batch in files:
            for file, content in zip(batch["file"].to_pylist(), batch["content"], strict=True):
                if file == WORK:
                    work.append(content.as_buffer().to_pybytes())
                    continue
                path = lake / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.as_buffer())
        with _imported(code, Path(folder)):
            for one in work:
                yield from _answer(lake, uri, one)


@contextmanager
def _imported(code: bytes, folder: Path) -> Iterator[None]:
    archive = folder / "weir.zip"
    archive.write_bytes(code)
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        del sys.modules[name]
    sys.path.insert(0, str(archive))
    try:
        yield
    finally:
        sys.path.remove(str(archive))


def _answer(lake: Path, uri: str, pickled: bytes) -> Iterator[pa.RecordBatch]:
    try:
        import msgspec

        from connections.lake import Lake
        from etl.backtest_partition import history_of
        from fleet.errors import DataError
    except ImportError as error:
        yield _row(LACKING, -1, str(error).encode())
        return

    class Brought(Lake):
        """The lake as it is here."""

        def url(self, relative: str) -> str:
            return f"{uri}/{relative}"

    work = pickle.loads(pickled)  # noqa: S301 - by the driver, as this function is
    try:
        answer = msgspec.msgpack.encode(history_of(Brought(f"file://{lake}"), work))
    except DataError as error:
        yield _row(DAMAGED, work.kafka_partition, str(error).encode())
        return
    for start in range(0, len(answer), PIECE_BYTES):
        yield _row(HISTORY, work.kafka_partition, answer[start : start + PIECE_BYTES])


def _row(kind: str, kafka_partition: int, piece: bytes) -> pa.RecordBatch:
    columns = [pa.array([kind]), pa.array([kafka_partition], pa.int32()), pa.array([piece], pa.binary())]
    return pa.RecordBatch.from_arrays(columns, [column.split()[0] for column in TOLD.split(", ")])
