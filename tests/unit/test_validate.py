"""A type's suite on files of the lake: what is wrong is found, with its number of values. Texts are categories here."""

import gc
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from connections.lake import Lake, arrow_schema
from etl import validate as module
from etl.lake_index import PartitionFiles
from etl.validate import validate
from fleet.catalog import load_catalog
from fleet.lake_layout import columns, partition_of, units
from fleet.manifest import DataFile
from fleet.settings import CHECKOUT

SPEC = load_catalog(CHECKOUT / "fleet" / "types").type("weather_station")
T0 = datetime(2026, 11, 22, 3, tzinfo=UTC)
REGEX, NOT_NULL = "expect_column_values_to_match_regex", "expect_column_values_to_not_be_null"
UNIQUE, BETWEEN = "expect_compound_columns_to_be_unique", "expect_column_values_to_be_between"


def land(lake: Lake, changes: Mapping[int, Mapping[str, Any]]) -> PartitionFiles:
    """Two files of 50 readings, with other values in some."""
    rows: list[dict[str, Any]] = [
        {"device_id": f"d{i % 7}", "site": "roof", "event_time": T0 + timedelta(seconds=i), "carried": ["humidity"],
         "humidity": 40.0 + i % 9, "kafka_topic": "sensor", "kafka_partition": 0, "kafka_offset": i,
         "kafka_timestamp": T0, **changes.get(i, {})} for i in range(100)
    ]  # fmt: skip
    schema, partition = arrow_schema(columns(SPEC), units(SPEC)), partition_of(SPEC, T0)
    files = []
    for path, some in (("raw/a.parquet", rows[:50]), ("raw/b.parquet", rows[50:])):
        size = lake.write_table(path, pa.Table.from_pylist(some, schema))
        files.append(DataFile(path, partition.key, SPEC.version, 50, size))
    return PartitionFiles(partition, tuple(files))


@pytest.mark.parametrize(
    ("changes", "unmet"),
    [
        pytest.param({}, set(), id="nothing"),
        pytest.param(
            {3: {"device_id": "a/b"}, 60: {"device_id": "a/b"}}, {(REGEX, "device_id", "critical", 2)}, id="id"
        ),
        pytest.param({99: {"site": "the roof\n"}}, {(REGEX, "site", "critical", 1)}, id="site"),
        pytest.param(
            {0: {"device_id": None}, 1: {"device_id": "+"}},
            {(NOT_NULL, "device_id", "critical", 1), (REGEX, "device_id", "critical", 1)},
            id="null-and-bad-id",
        ),
        pytest.param({70: {"kafka_topic": None}}, {(NOT_NULL, "kafka_topic", "critical", 1)}, id="null-topic"),
        pytest.param(
            {70: {"kafka_offset": 3}},
            {(UNIQUE, "kafka_topic, kafka_partition, kafka_offset", "critical", 2)},
            id="offset-of-another-file",
        ),
        pytest.param(
            {n: {"humidity": 900.0} for n in (5, 55, 56)}, {(BETWEEN, "humidity", "warning", 3)}, id="out-of-range"
        ),
    ],
)
def test_what_is_wrong_is_counted(tmp_path: Path, changes: dict[int, dict[str, Any]], unmet: set[tuple[Any]]) -> None:
    lake = Lake(f"file://{tmp_path}/lake")
    outcome = validate(lake, SPEC, [land(lake, changes)], "run", tmp_path)
    (found,) = outcome.validations
    assert found.verdict.rows == 100
    assert {(u.expectation, u.column, u.severity, u.unexpected) for u in found.verdict.unmet} == unmet
    assert bool(outcome.failed) is any(one[2] == "critical" for one in unmet)


def test_texts_are_texts_for_who_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Categories cannot be compared with others."""
    pair = {"column_A": "device_id", "column_B": "site"}
    asked = {"type": "expect_column_pair_values_to_be_equal", "severity": "warning", "kwargs": pair}
    monkeypatch.setattr(module, "curated", lambda spec: [asked])
    lake = Lake(f"file://{tmp_path}/lake")
    outcome = validate(lake, SPEC, [land(lake, {7: {"device_id": "roof"}})], "run", tmp_path)
    ((unmet,),) = (one.verdict.unmet for one in outcome.validations)
    assert (unmet.severity, unmet.unexpected, outcome.failed) == ("warning", 99, {})


def test_what_readings_carried_is_there_for_who_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"type": REGEX, "severity": "warning", "kwargs": {"column": "carried", "regex": "^humidity$"}}
    monkeypatch.setattr(module, "curated", lambda spec: [asked])
    lake = Lake(f"file://{tmp_path}/lake")
    outcome = validate(lake, SPEC, [land(lake, {7: {"carried": ["humidity", "noise"]}})], "run", tmp_path)
    ((unmet,),) = (one.verdict.unmet for one in outcome.validations)
    assert (unmet.column, unmet.unexpected, unmet.observed) == ("carried", 1, "['humidity,noise']")


def test_the_memory_of_earlier_pieces_is_given_back(tmp_path: Path) -> None:
    """Though nothing else makes Python look for what refers to itself."""
    lake, frames = Lake(f"file://{tmp_path}/lake"), []
    gc.disable()
    try:
        for number in range(3):
            validate(lake, SPEC, [land(lake, {})], f"run-{number}", tmp_path)
            frames.append(sum(isinstance(one, pd.DataFrame) for one in gc.get_objects()))
    finally:
        gc.enable()
    assert frames[2] == frames[1]
