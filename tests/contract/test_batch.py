"""What the batch job derives from each spec holds with the libraries that are installed: every type, every metric."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from connections.lake import ARROW_TYPES, arrow_schema
from etl.suite import NEVER_NULL, suite
from fleet.catalog import load_catalog
from fleet.data_model import page
from fleet.lake_layout import REJECTED_COLUMNS, TRANSITION_COLUMNS, Partition, columns, partition_of
from fleet.reading import to_datetime
from fleet.settings import CHECKOUT
from fleet.spec import DeviceType
from fleet.units import UNITS
from weir.generate import derived, stale_files

CATALOG = load_catalog(CHECKOUT / "fleet" / "types")
every_type = pytest.mark.parametrize("spec", list(CATALOG), ids=lambda s: s.type)


def test_every_column_type_has_an_arrow_type() -> None:
    assert {*REJECTED_COLUMNS.values(), *TRANSITION_COLUMNS.values()} <= set(ARROW_TYPES)
    assert {kind for spec in CATALOG for kind in columns(spec).values()} <= set(ARROW_TYPES)


@every_type
def test_the_suite_is_one_that_great_expectations_knows(spec: DeviceType) -> None:
    import great_expectations as gx
    from great_expectations.expectations.registry import get_expectation_impl

    made = gx.ExpectationSuite(**json.loads(json.dumps(suite(spec))))
    assert len(made.expectations) == len(suite(spec)["expectations"])
    for expectation in suite(spec)["expectations"]:
        assert get_expectation_impl(expectation["type"])
        assert expectation["severity"] in ("info", "warning", "critical")


@every_type
def test_the_suite_covers_the_spec(spec: DeviceType) -> None:
    expectations = suite(spec)["expectations"]
    ranges = {
        e["kwargs"]["column"]: (e["kwargs"]["min_value"], e["kwargs"]["max_value"], e["severity"])
        for e in expectations
        if e["type"] == "expect_column_values_to_be_between"
    }
    severities = {"warn": "info", "quarantine": "warning", "fail": "critical"}
    assert ranges == {
        name: (m.range.low, m.range.high, severities[m.outside]) for name, m in spec.metrics.items() if m.range
    }
    never_null = {e["kwargs"]["column"] for e in expectations if e["type"] == "expect_column_values_to_not_be_null"}
    assert never_null == set(NEVER_NULL) <= set(columns(spec))


@every_type
def test_units_and_page(spec: DeviceType) -> None:
    text = page(CATALOG)
    for name, metric in spec.metrics.items():
        assert metric.unit in UNITS
        assert f"`{name}`" in text


@every_type
def test_partitions_have_keys_that_read_back(spec: DeviceType) -> None:
    partition = partition_of(spec, to_datetime(1_732_985_789_438_000))
    assert Partition.from_key(partition.key) == partition
    assert partition.start <= to_datetime(1_732_985_789_438_000) < partition.end


def test_generated_files_are_fresh() -> None:
    assert stale_files(CHECKOUT, derived(CATALOG)) == {}


def test_a_file_of_what_is_gone_is_stale(tmp_path: Path) -> None:
    for path in ("expectations/old_type.json", "docker/grafana/dashboards/old_system.json"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
        assert "gone" in stale_files(tmp_path, {})[path]


def test_arrow_types_survive_parquet() -> None:
    import pyarrow.parquet as pq

    for spec in CATALOG:
        schema = arrow_schema(columns(spec))
        sink = pa.BufferOutputStream()
        pq.write_table(schema.empty_table(), sink)
        assert pq.read_schema(pa.BufferReader(sink.getvalue())).equals(schema)
