"""Expectations written by hand beside those that follow from a spec: `expectations/curated/<type>.json`.

    {"expectations": [{"type": "expect_column_mean_to_be_between", "severity": "warning",
                       "kwargs": {"column": "humidity", "min_value": 5, "max_value": 95}}]}

Any expectation of Great Expectations over the columns of the type's files. `critical` holds a partition back, `warning`
(where nothing is said) and `info` are reported. Those about a whole column speak of one partition.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from fleet.errors import ConfigurationError
from fleet.lake_layout import columns
from fleet.nearest import nearest
from fleet.settings import CHECKOUT
from fleet.spec import DeviceType

FOLDER = CHECKOUT / "expectations" / "curated"
COLUMN_ARGUMENTS = ("column", "column_A", "column_B", "column_list")


class Expectation(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    kwargs: dict[str, Any]
    severity: Literal["info", "warning", "critical"] = "warning"
    notes: str = ""


class Suite(msgspec.Struct, forbid_unknown_fields=True):
    expectations: list[Expectation]


def curated(spec: DeviceType, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """As a suite's `expectations` have them; none where there is no file. Raises ConfigurationError."""
    path = folder / f"{spec.type}.json"
    try:
        suite = msgspec.json.decode(path.read_bytes(), type=Suite)
    except FileNotFoundError:
        return []
    except msgspec.MsgspecError as error:
        raise ConfigurationError(f"{path}: {error}; etl/curated.py shows one that is right") from error
    for number, expectation in enumerate(suite.expectations, 1):
        for column in asked_columns(expectation.kwargs):
            if column not in columns(spec):
                raise ConfigurationError(
                    f"{path}: expectation {number}, {expectation.type}: {spec.type} has no column"
                    f" {column!r}{nearest(str(column), columns(spec))}"
                )
    return [msgspec.to_builtins(expectation) for expectation in suite.expectations]


ABOUT_VALUES = frozenset({
    "expect_column_value_lengths_to_be_between", "expect_column_values_to_be_between",
    "expect_column_values_to_be_in_set", "expect_column_values_to_be_null", "expect_column_values_to_match_regex",
    "expect_column_values_to_not_be_in_set", "expect_column_values_to_not_be_null",
    "expect_column_values_to_not_match_regex", "expect_column_pair_values_a_to_be_greater_than_b",
    "expect_column_pair_values_to_be_equal", "expect_column_pair_values_to_be_in_set",
})  # fmt: skip


def is_about_values(expectation: Mapping[str, Any]) -> bool:
    """About each value by itself: as true of several partitions together as of each."""
    return expectation["type"] in ABOUT_VALUES and "mostly" not in expectation["kwargs"]


def asked_columns(kwargs: Mapping[str, Any]) -> list[Any]:
    """The columns that an expectation with these arguments is about."""
    found = [kwargs[name] for name in COLUMN_ARGUMENTS if name in kwargs]
    return [column for given in found for column in (given if isinstance(given, list) else [given])]
