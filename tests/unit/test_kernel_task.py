"""A Spark task's way from files to tables, without Spark: the same as the kernel over all rows at once."""

import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark import cloudpickle

from etl import kernel, kernel_task
from etl.derive import BY_VALUE, MAX_SHARES, Part, parts
from etl.lake_index import PartitionFiles
from fleet.energy import Meter
from fleet.lake_layout import Partition
from fleet.manifest import DataFile
from tests.unit.test_kernel import METRICS, SCHEMA, Row, reading

IN_FILES = SCHEMA.remove(SCHEMA.get_field_index("spec_version"))
READINGS = [reading(i, 61 * i, a=float(i), b=4.0 - i, device_id=f"d{i % 7}") for i in range(60)]
COUNTED = [*METRICS[:-1], replace(METRICS[-1], meter=Meter("c", 1.0, 900_000_000, 5_000_000))]
KEYS = {
    "rollups": ("metric", "grain", "bucket", "device_id"),
    "anomalies": ("kind", "metric", "kafka_offset"),
    "bad_values": ("metric", "kafka_offset"),
    "bad_readings": ("kafka_offset",),
    "counts": ("starts_at",),
}


def parquet(rows: list[Row], without: tuple[str, ...] = (), group_rows: int | None = None) -> bytes:
    sink = BytesIO()
    table = pa.Table.from_pylist(rows, IN_FILES).drop_columns(list(without))
    pq.write_table(table, sink, row_group_size=group_rows)
    return sink.getvalue()


def task(files: Iterable[bytes], share: int = 0, shares: int = 1, version: int = 1) -> Iterator[pa.RecordBatch]:
    rows = [{"content": file, "version": version, "share": share, "shares": shares} for file in files]
    batches = [pa.RecordBatch.from_pylist([row]) for row in rows]
    return kernel_task.pieces(METRICS, "day", IN_FILES, batches)


def read(pieces: Iterable[pa.RecordBatch]) -> dict[str, list[pa.Table]]:
    found: dict[str, list[pa.Table]] = {}
    for batch in pieces:
        for row in batch.to_pylist():
            found.setdefault(row["name"], []).append(pa.ipc.open_stream(row["piece"]).read_all())
    return found


def rows(pieces: Iterable[pa.RecordBatch]) -> dict[str, list[Any]]:
    """Of each table, in one order."""
    return {
        name: sorted(pa.concat_tables(parts).to_pylist(), key=lambda row: [str(row[key]) for key in KEYS[name]])
        for name, parts in read(pieces).items()
    }


def whole(readings: list[Row], version: int = 1) -> dict[str, list[Any]]:
    table = pa.Table.from_pylist([row | {"spec_version": version} for row in readings], SCHEMA)
    return {
        name: sorted(table.to_pylist(), key=lambda row: [str(row[key]) for key in KEYS[name]])
        for name, table in kernel.derive(table, METRICS, "day").items()
    }


def test_files_make_what_their_rows_make() -> None:
    types = {field.type for parts in read(task([parquet(READINGS)])).values() for field in parts[0].schema}
    assert not any(pa.types.is_dictionary(kind) for kind in types)
    assert rows(task([parquet(READINGS[:20]), parquet([]), parquet(READINGS[20:])])) == whole(READINGS)


@pytest.mark.parametrize("shares", [1, 3])
def test_a_file_of_many_row_groups(shares: int) -> None:
    """As compaction makes them."""
    file = parquet(READINGS, group_rows=7)
    found = [read(task([file], share, shares)) for share in range(shares)]
    rollups = pa.concat_tables(table for tables in found for table in tables["rollups"])
    key = KEYS["rollups"]
    assert sorted(rollups.to_pylist(), key=lambda row: [str(row[k]) for k in key]) == whole(READINGS)["rollups"]


def test_pieces_are_the_tables_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_task, "PIECE_ROWS", 3)
    assert rows(task([parquet(READINGS)])) == whole(READINGS)
    assert {part.num_rows for part in read(task([parquet(READINGS)]))["rollups"][:-1]} == {3}


def without_counts(tables: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: found for name, found in tables.items() if name != "counts"}


def counted(tables: Iterable[dict[str, list[Any]]]) -> dict[Any, int]:
    found: dict[Any, int] = {}
    for row in (row for table in tables for row in table.get("counts", [])):
        found[row["starts_at"]] = found.get(row["starts_at"], 0) + row["landed"]
    return found


def test_chunks_of_devices_make_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_task, "CHUNK_ROWS", 11)
    found = rows(task([parquet(READINGS[:20]), parquet(READINGS[20:])]))
    assert without_counts(found) == without_counts(whole(READINGS))
    assert counted([found]) == counted([whole(READINGS)])


def test_shares_of_devices_make_the_same_together() -> None:
    files = [parquet(READINGS[:20]), parquet(READINGS[20:])]
    found = [rows(task(files, share, 3)) for share in range(3)]
    assert sum(bool(tables) for tables in found) > 1
    together = {
        name: sorted(
            (row for tables in found for row in tables.get(name, [])), key=lambda row: [str(row[key]) for key in keys]
        )
        for name, keys in KEYS.items()
    }
    assert without_counts(together) == without_counts(whole(READINGS))
    assert counted(found) == counted([whole(READINGS)])


def test_a_file_of_another_version_lacks_a_metric_and_has_one_besides() -> None:
    readings = [reading(i, i, a=1.0) for i in range(3)]
    table = pa.Table.from_pylist(readings, IN_FILES).drop_columns(["b"]).append_column("gone", pa.array([1.0] * 3))
    sink = BytesIO()
    pq.write_table(table, sink)
    assert rows(task([sink.getvalue()], version=7)) == whole(readings, version=7)


def test_minutes_are_the_rollups_of_a_minute() -> None:
    files = pa.RecordBatch.from_pylist([{"content": parquet(READINGS), "version": 1, "share": 0, "shares": 1}])
    found = pa.Table.from_batches(kernel_task.minutes(METRICS, "day", IN_FILES, [files])).to_pylist()
    wanted = [row for row in whole(READINGS)["rollups"] if row["grain"] == "1m"]
    key = lambda row: (row["metric"], row["bucket"], row["device_id"])  # noqa: E731
    assert sorted(found, key=key) == [{name: row[name] for name in found[0]} for row in sorted(wanted, key=key)]
    assert [*found[0]] == [column.split()[0] for column in kernel_task.MINUTE.split(", ")]
    assert list(kernel_task.minutes(METRICS, "day", IN_FILES, [])) == []


def test_a_task_without_rows_gives_nothing() -> None:
    assert read(task([])) == {}
    assert read(task([parquet([])])) == {}


def test_a_worker_needs_no_weir() -> None:
    """What the task carries unpickles and runs where only numpy and pyarrow are."""
    for module in BY_VALUE:
        cloudpickle.register_pickle_by_value(module)
    files = pa.RecordBatch.from_pylist([{"content": parquet(READINGS), "version": 1, "share": 0, "shares": 1}])
    sent = cloudpickle.dumps((partial(kernel_task.pieces, COUNTED, "hour", IN_FILES), [files]))
    code = """
import pickle, sys

class Absent:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("etl", "fleet", "connections", "pandas"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
task, rows = pickle.load(sys.stdin.buffer)
print(sorted({name for batch in task(rows) for name in batch["name"].to_pylist()}))
"""
    done = subprocess.run([sys.executable, "-c", code], input=sent, stdout=subprocess.PIPE, check=True)
    assert done.stdout.decode().strip() == str(sorted([*KEYS, "energy", "unattributed", "ends"]))


def partition(hour: int, *file_rows: int) -> PartitionFiles:
    key = f"weather/weather_station/2026-11-22T{hour:02}"
    files = (DataFile(f"{hour}-{number}", key, 1, rows, rows) for number, rows in enumerate(file_rows))
    return PartitionFiles(Partition.from_key(key), tuple(files))


@pytest.mark.parametrize(
    ("partitions", "expected"),
    [
        pytest.param([partition(0, 2, 2), partition(1, 1)], [("0-0", 0, 0, 1), ("0-1", 0, 0, 1), ("1-0", 0, 0, 1)],
                     id="small-ones-share-a-task"),
        pytest.param([partition(0, 4), partition(1, 3), partition(2, 2), partition(3, 9)],
                     [("0-0", 0, 0, 1), ("1-0", 1, 0, 1), ("2-0", 1, 0, 1), ("3-0", 2, 0, 1)], id="a-task-is-full"),
        pytest.param([partition(0, 15, 10)],
                     [("0-0", 0, 0, 3), ("0-1", 0, 0, 3), ("0-0", 1, 1, 3), ("0-1", 1, 1, 3), ("0-0", 2, 2, 3),
                      ("0-1", 2, 2, 3)], id="a-large-one-is-divided"),
        pytest.param([partition(0, 1), partition(1, 11), partition(2, 1)],
                     [("0-0", 0, 0, 1), ("1-0", 1, 0, 2), ("1-0", 2, 1, 2), ("2-0", 3, 0, 1)],
                     id="a-large-one-shares-its-tasks-with-none"),
    ],
)  # fmt: skip
def test_who_reads_what(partitions: list[PartitionFiles], expected: list[tuple[str, int, int, int]]) -> None:
    wanted = [Part(file, 1, task, share, shares) for file, task, share, shares in expected]
    assert parts(partitions, most_rows=10) == wanted


def test_a_huge_partition_is_read_as_often_as_there_are_shares_at_most() -> None:
    assert {part.shares for part in parts([partition(0, 1000)], most_rows=10)} == {MAX_SHARES}


def test_names_that_files_number_differently() -> None:
    """Two copies among readings of one device and moment, in files each with names of its own."""
    files = [[reading(0, 0, a=1.0)], [reading(1, 0, b=1.0), reading(2, 0, b=1.0, a=1.0)], [reading(3, 0, a=1.0)]]
    found = rows(task([parquet(file) for file in files]))
    assert found == whole([row for file in files for row in file])
    assert found["counts"][0]["duplicate"] == 1
