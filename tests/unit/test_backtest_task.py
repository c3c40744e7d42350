"""A Spark task of a backtest, without Spark: what it says where there is no Weir is what this process says."""

import os
import subprocess
import sys
import zlib
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from pyspark import cloudpickle

from connections.lake import Lake
from etl import backtest_task
from etl.backtest import ROW, _brought, _code
from etl.backtest_partition import History, Span, Work, history_of
from etl.window import micros
from tests.unit.test_backtest_as_live import HOURS, SPEC, T0, landed, log

BEGIN = micros(T0)
SPAN = Span(BEGIN, BEGIN + 600_000_000, micros(T0 + timedelta(hours=HOURS + 2)))
URI = "hdfs://somewhere/lake"

ALONE = """
import pickle, sys

class Absent:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(name)

absent = sys.argv[1].split(",")
sys.meta_path[:] = [Absent(), *(one for one in sys.meta_path if "editable" not in str(one))]
task, files = pickle.load(sys.stdin.buffer)
found = []
for batch in task(files):
    found += batch.to_pylist()
    assert absent[0] == "msgspec" or "weir.zip" in sys.modules["fleet.engine"].__file__
sys.stdout.buffer.write(pickle.dumps(found))
"""
LACKS = ("weir", "kafka", "sqlalchemy", "psycopg2", "httpx", "boto3", "pandas", "pydantic_settings")


def work_of(lake: Lake, number: int = 0) -> Work:
    return Work(number, (SPEC,), SPEC, (), tuple(lake.manifests("sensor", number)), SPAN, True)


def brought(lake: Lake, *work: Work) -> tuple[list[pa.RecordBatch], list[bytes]]:
    """As Spark brings them to one task."""
    wanted, work_of = _brought(lake, work)
    rows = [{**row, "content": lake.read(row["file"])} for row in wanted.to_pylist()]
    rows += [{"task": task, "file": "", "content": b""} for task in range(len(work))]
    return [pa.RecordBatch.from_pylist([row], ROW) for row in rows], work_of


def alone(
    files: list[pa.RecordBatch], work_of: list[bytes], folder: Path, absent: Iterable[str] = LACKS
) -> list[dict[str, Any]]:
    cloudpickle.register_pickle_by_value(backtest_task)
    sent = cloudpickle.dumps((partial(backtest_task.told, URI, _code(), work_of), files))
    assert os.environ["PATH"].encode() not in sent, "the environment, and what is secret in it, stays here"
    command = [sys.executable, "-c", ALONE, ",".join(absent)]
    environment = {"SPARK_LOCAL_DIRS": f"{folder},/nowhere"}
    done = subprocess.run(command, input=sent, stdout=subprocess.PIPE, check=True, cwd=folder, env=environment)
    assert [*folder.iterdir()] == [], "it cleans up"
    found: list[dict[str, Any]] = cloudpickle.loads(done.stdout)
    return found


def decoded(answer: bytes) -> History:
    return msgspec.msgpack.decode(zlib.decompress(answer), type=History)


def scratch(tmp_path: Path) -> Path:
    """In which a worker that was killed has left what it had."""
    made = tmp_path / "scratch"
    made.mkdir(parents=True)
    ended = subprocess.Popen(["true"])
    ended.wait()
    (made / f"{backtest_task.PREFIX}{ended.pid}-left" / "lake").mkdir(parents=True)
    return made


def test_a_worker_needs_no_weir(tmp_path: Path) -> None:
    lake = landed(log(5), tmp_path)
    work = work_of(lake)
    (row,) = alone(*brought(lake, work), scratch(tmp_path))
    expected = history_of(lake, work)
    assert len(expected.changes) > len(expected.episodes) > 0
    assert (row["kind"], row["task"]) == (backtest_task.HISTORY, 0)
    assert decoded(row["piece"]) == expected


def test_a_long_answer_comes_in_pieces(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(backtest_task, "PIECE_BYTES", 100)
    lake = landed(log(5), tmp_path)
    work = work_of(lake)
    rows = alone(*brought(lake, work), scratch(tmp_path))
    assert len(rows) > 10
    answer = b"".join(row["piece"] for row in rows)
    assert decoded(answer) == history_of(lake, work)


def test_damage_is_told_by_the_lakes_name(tmp_path: Path) -> None:
    lake = landed(log(5), tmp_path)
    work = work_of(lake)
    path = next(work.files).path
    files, bundles = brought(lake, work)
    damaged = {"task": 0, "file": path, "content": b"PAR1 no more"}
    files = [one for one in files if one["file"][0].as_py() != path] + [pa.RecordBatch.from_pylist([damaged], ROW)]
    (row,) = alone(files, bundles, scratch(tmp_path))
    assert row["kind"] == backtest_task.DAMAGED
    assert row["piece"].decode().startswith(f"{URI}/{path} is no Parquet file that can be read")


def test_what_a_worker_lacks_is_told(tmp_path: Path) -> None:
    lake = landed(log(5)[:700], tmp_path)
    (row,) = alone(*brought(lake, work_of(lake)), scratch(tmp_path), absent=["msgspec"])
    assert (row["kind"], row["piece"]) == (backtest_task.LACKING, b"msgspec")


def test_a_task_of_two_partitions_says_each(tmp_path: Path) -> None:
    """One of them has no files; and a task that has neither says nothing."""
    lake = landed(log(5), tmp_path)
    work = work_of(lake), replace(work_of(lake), kafka_partition=1, manifests=())
    files, bundles = brought(lake, *work)
    rows = alone(files, bundles, scratch(tmp_path))
    assert [(row["task"], row["kind"]) for row in rows] == [(0, "history"), (1, "history")]
    for row, one in zip(rows, work, strict=True):
        assert decoded(row["piece"]) == history_of(lake, one)
    assert alone([], bundles, scratch(tmp_path / "another")) == []


def test_no_file_is_written_outside_of_the_tasks_folder(tmp_path: Path) -> None:
    outside = {"task": 0, "file": "raw/system=a/type=b/../../../../pwned", "content": b""}
    with pytest.raises(ValueError, match="is no file of a lake"):
        list(backtest_task.told(URI, b"", [b""], [pa.RecordBatch.from_pylist([outside], ROW)]))
