"""Which partitions are taken, and how they are grouped."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from etl.discover import (
    MAX_BATCH_BYTES,
    MAX_BATCH_PARTITIONS,
    MAX_BATCH_ROWS,
    MAX_STRANGERS,
    Processed,
    batches,
    changed,
    sort_out,
)
from etl.lake_index import PartitionFiles, by_partition
from etl.window import Window, parse_window
from fleet.errors import ConfigurationError
from fleet.lake_layout import Partition
from fleet.manifest import DataFile

NOW = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)
OPEN = Window(None, None)


def part(
    hour: int, *files: str, system: str = "weather", type_: str = "weather_station", rows: int = 5
) -> PartitionFiles:
    partition = Partition(system, type_, datetime(2026, 11, 22, hour, tzinfo=UTC), "hour")
    return PartitionFiles(partition, tuple(DataFile(f, partition.key, 1, rows, 1) for f in files))


THREE, FOUR = part(3, "a", "b"), part(4, "c")
DEAD = part(3, "x", system="rejected", type_="rejected")
OTHER = part(3, "r", system="occupancy", type_="room_node")
LOADED = {p.partition.key: Processed(p.digest, False) for p in (THREE, FOUR, DEAD, OTHER)}


@pytest.mark.parametrize(
    ("ledger", "expected"),
    [
        ({}, [OTHER, DEAD, THREE, FOUR]),
        (LOADED, []),
        ({**LOADED, FOUR.partition.key: Processed(FOUR.digest, True)}, [FOUR]),
        ({**LOADED, FOUR.partition.key: Processed(None, False)}, [FOUR]),
        ({**LOADED, THREE.partition.key: Processed(part(3, "a").digest, False)}, [THREE]),
    ],
    ids=["first time", "nothing new", "failed before", "never loaded", "a late file"],
)
def test_what_changed(ledger: dict[str, Processed], expected: list[PartitionFiles]) -> None:
    assert changed([FOUR, THREE, DEAD, OTHER], ledger, OPEN) == expected


def test_force_takes_what_did_not_change() -> None:
    assert len(changed([THREE, FOUR], LOADED, OPEN, force=True)) == 2


def test_dead_letters_belong_to_every_system() -> None:
    assert changed([THREE, DEAD, OTHER], {}, OPEN, system="occupancy") == [OTHER, DEAD]


@pytest.mark.parametrize(
    ("start", "end", "hours"),
    [(None, None, [3, 4]), ("2026-11-22T04:00", None, [4]), ("2026-11-22T03:59", None, [3, 4]),
     (None, "2026-11-22T04:00", [3]), ("-9h", "-8h", [3, 4]), ("2026-11-23", None, [])],
    ids=str,
)  # fmt: skip
def test_from_and_to(start: str | None, end: str | None, hours: list[int]) -> None:
    found = changed([THREE, FOUR], {}, parse_window(start, end, NOW))
    assert [p.partition.start.hour for p in found] == hours


@pytest.mark.parametrize("text", ["yesterday", "-1", "1h", "2026-13-01", "-99999999999d"])
def test_a_time_that_is_none(text: str) -> None:
    with pytest.raises(ConfigurationError, match="from"):
        parse_window(text, None, NOW)


def test_an_empty_window() -> None:
    with pytest.raises(ConfigurationError, match="before"):
        parse_window("now", "-1h", NOW)


def test_a_digest_is_of_paths_and_rows_in_any_order() -> None:
    files = [DataFile(n, THREE.partition.key, 1, 5, 1) for n in ("b", "a")]
    (again,) = by_partition(files).values()
    assert again.digest == THREE.digest
    assert part(3, "a", "b", rows=6).digest != THREE.digest


def test_batches_hold_one_type_and_are_bounded() -> None:
    hours = [part(0, f"f{i}") for i in range(MAX_BATCH_PARTITIONS + 1)]
    hours = [PartitionFiles(Partition("weather", "weather_station", NOW + timedelta(hours=i), "hour"), h.files)
             for i, h in enumerate(hours)]  # fmt: skip
    found = batches([*hours, OTHER])
    assert [len(b.partitions) for b in found] == [MAX_BATCH_PARTITIONS, 1, 1]
    assert {b.type for b in found} == {"weather_station", "room_node"}
    assert sum(len(b.partitions) for b in found) == len({k for b in found for k in b.partitions})


def test_a_partition_larger_than_a_batch_stands_alone() -> None:
    big = part(3, "a", rows=MAX_BATCH_ROWS * 2)
    assert [b.rows for b in batches([big, FOUR])] == [MAX_BATCH_ROWS * 2, 5]


def test_a_batch_is_bounded_in_bytes_too() -> None:
    large = [
        PartitionFiles(p.partition, tuple(replace(f, bytes=MAX_BATCH_BYTES) for f in p.files)) for p in (THREE, FOUR)
    ]
    assert [b.partitions for b in batches(large)] == [(THREE.partition.key,), (FOUR.partition.key,)]


def test_what_no_spec_defines_is_told_apart_and_dead_letters_are_everybodys() -> None:
    found = sort_out([THREE, OTHER, DEAD], {"weather_station"})
    assert [b.partitions for b in found.batches] == [(THREE.partition.key,), (DEAD.partition.key,)]
    assert found.strangers == [OTHER]
    assert len(sort_out([OTHER] * 1000, set()).strangers) == MAX_STRANGERS
