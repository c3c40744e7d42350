"""Expectations written by hand: read, and refused with a word on where and why."""

from pathlib import Path

import pytest

from etl.curated import FOLDER, curated, is_about_values
from fleet.catalog import load_catalog
from fleet.errors import ConfigurationError
from fleet.settings import CHECKOUT

CATALOG = load_catalog(CHECKOUT / "fleet" / "types")
SPEC = CATALOG.type("weather_station")
MEAN = '{"type": "expect_column_mean_to_be_between", "kwargs": {"column": "%s", "min_value": 5}}'


def test_those_of_the_project_are_right() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} <= set(CATALOG.types)
    assert all(curated(spec) for spec in CATALOG if (FOLDER / f"{spec.type}.json").exists())


def test_a_type_without_a_file_has_none(tmp_path: Path) -> None:
    assert curated(SPEC, tmp_path) == []


def test_severity_is_a_warning_where_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "weather_station.json").write_text(f'{{"expectations": [{MEAN % "humidity"}]}}')
    (found,) = curated(SPEC, tmp_path)
    assert (found["type"], found["severity"]) == ("expect_column_mean_to_be_between", "warning")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("{", "malformed|truncated|ended", id="no-json"),
        pytest.param('{"expectations": [{"type": 3, "kwargs": {}}]}', r"\$.expectations\[0\].type", id="no-text"),
        pytest.param('{"expectation": []}', "expectation", id="unknown-field"),
        pytest.param('{"expectations": [{"type": "a", "kwargs": {}, "severity": "bad"}]}', "bad", id="no-severity"),
        pytest.param(f'{{"expectations": [{MEAN % "humdity"}]}}', "'humdity'.*humidity", id="no-such-column"),
        pytest.param(
            '{"expectations": [{"type": "a", "kwargs": {"column_list": ["site", "sight"]}}]}', "'sight'", id="in-a-list"
        ),
    ],
)
def test_what_is_wrong_is_told_with_the_file(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "weather_station.json").write_text(text)
    with pytest.raises(ConfigurationError, match=said) as error:
        curated(SPEC, tmp_path)
    assert "weather_station.json" in str(error.value)


@pytest.mark.parametrize(
    ("kind", "kwargs", "expected"),
    [
        ("expect_column_values_to_be_in_set", {}, True),
        ("expect_column_pair_values_a_to_be_greater_than_b", {}, True),
        ("expect_column_values_to_be_in_set", {"mostly": 0.9}, False),
        ("expect_column_values_to_be_unique", {}, False),
        ("expect_column_distinct_values_to_contain_set", {}, False),
        ("expect_column_mean_to_be_between", {}, False),
        ("expect_table_row_count_to_be_between", {}, False),
    ],
)
def test_which_are_about_values(kind: str, kwargs: dict[str, object], expected: bool) -> None:
    assert is_about_values({"type": kind, "kwargs": kwargs}) is expected
