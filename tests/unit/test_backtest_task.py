"""A Spark task of a backtest, without Spark: what it says where there is no Weir is what this process says."""

import subprocess
import sys
from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from pyspark import cloudpickle

from connections.lake import Lake
from etl import backtest_task
from etl.backtest import _brought, _code
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
found = [row for batch in task(files) for row in batch.to_pylist()]
assert absent[0] == "msgspec" or "weir.zip" in sys.modules["fleet.engine"].__file__
sys.stdout.buffer.write(pickle.dumps(found))
"""
LACKS = ("weir", "kafka", "sqlalchemy", "psycopg2", "httpx", "boto3", "pandas", "pydantic_settings")


def work_of(lake: Lake, number: int = 0) -> Work:
    return Work(number, (SPEC,), SPEC, (), tuple(lake.manifests("sensor", number)), SPAN, True)


def files_of(lake: Lake, *work: Work) -> list[pa.RecordBatch]:
    """As Spark brings them to one task."""
    wanted, rest = _brought(lake, work)
    rows = [{"file": file, "content": lake.read(file)} for file in dict.fromkeys(wanted["file"].to_pylist())]
    rows += rest.select(["file", "content"]).to_pylist()
    return [pa.RecordBatch.from_pylist([row]) for row in rows]


def alone(files: list[pa.RecordBatch], folder: Path, absent: Iterable[str] = LACKS) -> list[dict[str, Any]]:
    cloudpickle.register_pickle_by_value(backtest_task)
    sent = cloudpickle.dumps((partial(backtest_task.told, URI, _code()), files))
    command = [sys.executable, "-c", ALONE, ",".join(absent)]
    environment = {"SPARK_LOCAL_DIRS": f"{folder},/nowhere"}
    done = subprocess.run(command, input=sent, stdout=subprocess.PIPE, check=True, cwd=folder, env=environment)
    assert [*folder.iterdir()] == [], "it cleans up"
    found: list[dict[str, Any]] = cloudpickle.loads(done.stdout)
    return found


def scratch(tmp_path: Path) -> Path:
    made = tmp_path / "scratch"
    made.mkdir()
    return made


def test_a_worker_needs_no_weir(tmp_path: Path) -> None:
    lake = landed(log(5), tmp_path)
    work = work_of(lake)
    (row,) = alone(files_of(lake, work), scratch(tmp_path))
    expected = history_of(lake, work)
    assert len(expected.changes) > len(expected.episodes) > 0
    assert (row["kind"], row["kafka_partition"]) == (backtest_task.HISTORY, 0)
    assert msgspec.msgpack.decode(row["piece"], type=History) == expected


def test_a_long_answer_comes_in_pieces(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(backtest_task, "PIECE_BYTES", 100)
    lake = landed(log(5), tmp_path)
    work = work_of(lake)
    rows = alone(files_of(lake, work), scratch(tmp_path))
    assert len(rows) > 10
    answer = b"".join(row["piece"] for row in rows)
    assert msgspec.msgpack.decode(answer, type=History) == history_of(lake, work)


def test_damage_is_told_by_the_lakes_name(tmp_path: Path) -> None:
    lake = landed(log(5), tmp_path)
    work = work_of(lake)
    path = next(work.files).path
    files = [
        pa.RecordBatch.from_pylist([{"file": path, "content": b"PAR1 no more"}]) if batch["file"][0].as_py() == path
        else batch
        for batch in files_of(lake, work)
    ]  # fmt: skip
    (row,) = alone(files, scratch(tmp_path))
    assert row["kind"] == backtest_task.DAMAGED
    assert row["piece"].decode().startswith(f"{URI}/{path} is no Parquet file that can be read")


def test_what_a_worker_lacks_is_told(tmp_path: Path) -> None:
    lake = landed(log(5)[:700], tmp_path)
    (row,) = alone(files_of(lake, work_of(lake)), scratch(tmp_path), absent=["msgspec"])
    assert (row["kind"], row["piece"]) == (backtest_task.LACKING, b"msgspec")
