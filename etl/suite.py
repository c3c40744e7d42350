"""A device type's Great Expectations suite, derived from its spec: what `expectations/<type>.json` holds. Pure. What
was written by hand beside it is in etl.curated.

Severity says what an unmet expectation does: `critical` fails the partition, nothing of it is loaded; `warning` is
reported (the bad values are quarantined or flagged further on, one by one).
"""

from typing import Any

from fleet.channels import LEVEL
from fleet.lake_layout import IDENTITY_COLUMNS, SOURCE_COLUMNS, columns
from fleet.spec import DeviceType

NEVER_NULL = ("device_id", "site", "event_time", *SOURCE_COLUMNS)
SEVERITY = {"warn": "info", "quarantine": "warning", "fail": "critical"}
"""What lies outside its range → severity."""
CRITICAL = "critical"


def suite(spec: DeviceType) -> dict[str, Any]:
    """As `great_expectations.ExpectationSuite(**…)` takes it; the order is the spec's."""
    return {
        "name": spec.type,
        "meta": {"spec_version": spec.version, "system": spec.system},
        "expectations": [*_structure(spec), *_ranges(spec)],
    }


def _structure(spec: DeviceType) -> list[dict[str, Any]]:
    found = [
        _expectation("expect_table_columns_to_match_set", CRITICAL, column_set=list(columns(spec)), exact_match=True),
        _expectation("expect_table_row_count_to_be_between", CRITICAL, min_value=1),
    ]
    found += [_expectation("expect_column_values_to_not_be_null", CRITICAL, column=name) for name in NEVER_NULL]
    pattern = f"^(?:{LEVEL.pattern})$"
    found += [
        _expectation("expect_column_values_to_match_regex", CRITICAL, column=name, regex=pattern)
        for name in IDENTITY_COLUMNS
        if name in ("device_id", "site")
    ]
    found += [
        _expectation("expect_column_values_to_be_of_type", CRITICAL, column=name, type_="float64")
        for name in spec.metrics
    ]
    found.append(
        _expectation(
            "expect_compound_columns_to_be_unique",
            CRITICAL,
            column_list=["kafka_topic", "kafka_partition", "kafka_offset"],
        )
    )
    return found


def _ranges(spec: DeviceType) -> list[dict[str, Any]]:
    return [
        _expectation(
            "expect_column_values_to_be_between",
            SEVERITY[metric.outside],
            column=name,
            min_value=metric.range.low,
            max_value=metric.range.high,
        )
        for name, metric in spec.metrics.items()
        if metric.range is not None
    ]


def _expectation(kind: str, severity: str, **arguments: Any) -> dict[str, Any]:
    return {"type": kind, "severity": severity, "kwargs": arguments}
