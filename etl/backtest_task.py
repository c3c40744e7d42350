"""One Spark task of a long backtest: the files of a Kafka partition in, as bytes; what the rules said of it out.

Runs inside Spark's Python workers, which need not have Weir. Its code comes along, as it cannot come by value: the
engine is some fifty modules. Each task imports it anew, as a worker outlives the code that it once got. Of what that
imports itself a worker must have REQUIRED.
"""

import os  # os.environ, taken by name, would be pickled, with what the driver's has
import pickle
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import invalidate_caches
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory, gettempdir

import pyarrow as pa

PACKAGES = ("fleet", "connections", "etl")
REQUIRED = ("msgspec", "numpy", "pyarrow", "pydantic", "yaml")
"""Modules of others that evaluation imports; `yaml` is PyYAML's."""
TOLD = "task int, kind string, piece binary"
"""What `told` gives, as Spark's DDL: HISTORY as MessagePack, compressed, or why there is none, as text."""
HISTORY, DAMAGED, LACKING = "history", "damaged", "lacking"
PIECE_BYTES = 4 * 1024 * 1024
"""Of an answer: a message of Spark Connect has 128 MiB at most."""
PREFIX = "weir-backtest-"


def told(
    uri: str, code: bytes, work_of: Sequence[bytes], files: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:  # fmt: skip
    """`files` have task, file (its path in the lake; without one the row says no more than that there is the task) and
    content; those of a task must all be there. `uri`: how the lake is called where something is wrong with it; `code`:
    a zip of PACKAGES; `work_of`: by task, what it is to do, with the compaction records that it needs."""
    scratch = Path(os.environ.get("SPARK_LOCAL_DIRS", "").partition(",")[0] or gettempdir())  # Spark removes its own
    _sweep(scratch)
    with TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-", dir=scratch) as folder:
        lake, tasks = Path(folder, "lake"), set()
        for batch in files:
            columns = (batch["task"].to_pylist(), batch["file"].to_pylist(), batch["content"])
            for task, file, content in zip(*columns, strict=True):
                tasks.add(task)
                if file:
                    _write(lake, file, content.as_buffer())
        with _imported(code, Path(folder)):
            for task in sorted(tasks):
                yield from _answer(lake, uri, task, zlib.decompress(work_of[task]))


def _sweep(scratch: Path) -> None:
    """What a worker left that was killed, as Spark does when a query is broken off."""
    for left in scratch.glob(f"{PREFIX}*"):
        try:
            os.kill(int(left.name.removeprefix(PREFIX).partition("-")[0]), 0)
        except ProcessLookupError:
            rmtree(left, ignore_errors=True)
        except (ValueError, PermissionError):  # not ours
            continue


def _write(lake: Path, file: str, content: bytes | pa.Buffer) -> None:
    path = lake / file
    if ".." in path.parts:
        raise ValueError(f"{file} is no file of a lake")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@contextmanager
def _imported(code: bytes, folder: Path) -> Iterator[None]:
    archive = folder / "weir.zip"
    archive.write_bytes(code)
    _forget()
    sys.path.insert(0, str(archive))
    try:
        yield
    finally:
        sys.path.remove(str(archive))
        _forget()


def _forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        del sys.modules[name]
    invalidate_caches()


def _answer(lake: Path, uri: str, task: int, pickled: bytes) -> Iterator[pa.RecordBatch]:
    try:
        import msgspec

        from connections.lake import Lake
        from etl.backtest_partition import history_of
        from fleet.errors import DataError
    except ImportError as error:
        yield _row(task, LACKING, str(error).encode())
        return

    class Brought(Lake):
        """The lake as it is here."""

        def url(self, relative: str) -> str:
            return f"{uri}/{relative}"

    work, records = pickle.loads(pickled)  # noqa: S301 - by the driver, as this function is
    for path, record in records.items():
        _write(lake, path, record)
    try:
        answer = zlib.compress(msgspec.msgpack.encode(history_of(Brought(f"file://{lake}"), work)), level=1)
    except DataError as error:
        yield _row(task, DAMAGED, str(error).encode())
        return
    for start in range(0, len(answer), PIECE_BYTES):
        yield _row(task, HISTORY, answer[start : start + PIECE_BYTES])


def _row(task: int, kind: str, piece: bytes) -> pa.RecordBatch:
    columns = [pa.array([task], pa.int32()), pa.array([kind]), pa.array([piece], pa.binary())]
    return pa.RecordBatch.from_arrays(columns, [column.split()[0] for column in TOLD.split(", ")])
