"""Folders, names and keys; and that a manifest counts every offset once."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.catalog import load_catalog
from fleet.lake_layout import (
    MANIFEST_PATH,
    Partition,
    columns,
    floor,
    manifest_path,
    partition_of,
    rejected_partition_of,
)
from fleet.manifest import DataFile, Manifest, decode_manifest, encode_manifest
from fleet.settings import CHECKOUT

WHEN = datetime(2026, 11, 22, 3, 24, 43, 123456, tzinfo=UTC)
CATALOG = load_catalog(CHECKOUT / "fleet" / "types")

FOLDERS = [
    ("hour", "weather/w/2026-11-22T03", "raw/system=weather/type=w/v=2/date=2026-11-22/hour=03", timedelta(hours=1)),
    ("day", "weather/w/2026-11-22", "raw/system=weather/type=w/v=2/date=2026-11-22", timedelta(days=1)),
    ("month", "weather/w/2026-11", "raw/system=weather/type=w/v=2/date=2026-11-01", timedelta(days=30)),
]


@pytest.mark.parametrize(("grain", "key", "folder", "length"), FOLDERS, ids=[f[0] for f in FOLDERS])
def test_folder_of_each_grain(grain, key: str, folder: str, length: timedelta) -> None:
    partition = Partition("weather", "w", floor(WHEN, grain), grain)
    assert (partition.key, partition.folder(2), partition.end - partition.start) == (key, folder, length)
    assert Partition.from_key(key) == partition


def test_december_ends_in_january() -> None:
    assert Partition.from_key("a/b/2026-12").end == datetime(2027, 1, 1, tzinfo=UTC)


@given(
    st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(9000, 1, 1)),
    st.sampled_from(["hour", "day", "month"]),
)
def test_every_moment_lies_in_its_partition(moment: datetime, grain) -> None:
    moment = moment.replace(tzinfo=UTC)
    partition = Partition("s", "t", floor(moment, grain), grain)
    assert partition.start <= moment < partition.end
    assert floor(partition.end, grain) == partition.end


@pytest.mark.parametrize("key", ["", "a/b", "a/b/2026", "a/b/2026-13", "a/b/2026-11-22T3", "a/b/c/d"])
def test_what_is_no_key(key: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Partition.from_key(key)


def test_grain_follows_cadence() -> None:
    assert partition_of(CATALOG.type("weather_station"), WHEN).key == "weather/weather_station/2026-11-22T03"
    assert rejected_partition_of(WHEN).folder(1) == "rejected/date=2026-11-22/hour=03"


def test_manifest_names_sort_by_offset() -> None:
    paths = [manifest_path("sensor", 0, n) for n in (5, 40, 300)]
    assert paths == sorted(paths)
    match = MANIFEST_PATH.search(paths[2])
    assert match is not None
    assert (match["topic"], int(match["partition"]), int(match["first"])) == ("sensor", 0, 300)


def test_a_type_has_its_metrics_as_columns() -> None:
    spec = CATALOG.type("weather_station")
    assert [c for c, t in columns(spec).items() if t == "double"] == list(spec.metrics)


def manifest(**changes) -> Manifest:
    fields = {
        "topic": "sensor", "kafka_partition": 0, "first_offset": 10, "last_offset": 19, "rows": 6, "unreadable": 1,
        "heartbeats": 1, "controls": 1, "missing": 1, "first_append_ms": 0, "last_append_ms": 1,
        "files": [DataFile("a", "k", 1, 6, 99), DataFile("b", "r", 1, 1, 99)],
    }  # fmt: skip
    return Manifest(**{**fields, **changes})


def test_a_right_manifest_balances() -> None:
    assert manifest().imbalance() == 0
    assert decode_manifest(encode_manifest(manifest())) == manifest()


@pytest.mark.parametrize(
    "changes", [{"rows": 7}, {"last_offset": 20}, {"heartbeats": 0}, {"missing": 2}, {"files": []}], ids=str
)
def test_a_wrong_manifest_does_not(changes: dict) -> None:
    assert manifest(**changes).imbalance() != 0
