"""Whatever is wrong with a file of the lake, it is told as such, and nothing of it is believed."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from connections.lake import Lake, arrow_schema
from etl.kernel_task import TEXTS
from etl.lake_frames import arrow_tables, reject_batches
from etl.lake_index import PartitionFiles
from fleet.catalog import load_catalog
from fleet.errors import DataError
from fleet.lake_layout import REJECTED_COLUMNS, columns, partition_of, rejected_partition_of, units
from fleet.manifest import DataFile
from fleet.settings import CHECKOUT

SPEC = load_catalog(CHECKOUT / "fleet" / "types").type("weather_station")
T0 = datetime(2026, 11, 22, 3, tzinfo=UTC)
PATH = "raw/x.parquet"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(f"file://{tmp_path}/lake")


def readings(lake: Lake) -> PartitionFiles:
    rows = [{"device_id": str(i % 7), "site": "roof", "event_time": T0 + timedelta(seconds=i), "carried": ["humidity"],
             "humidity": i * 0.37, "kafka_topic": "sensor", "kafka_partition": 0, "kafka_offset": i,
             "kafka_timestamp": T0} for i in range(150)]  # fmt: skip
    size = lake.write_table(PATH, pa.Table.from_pylist(rows, arrow_schema(columns(SPEC), units(SPEC))))
    partition = partition_of(SPEC, T0)
    return PartitionFiles(partition, (DataFile(PATH, partition.key, 1, 150, size),))


def letters(lake: Lake) -> PartitionFiles:
    rows = [{"reason": "bad_id", "payload": bytes([i]) * 20, "kafka_offset": i, "kafka_timestamp": T0}
            for i in range(150)]  # fmt: skip
    size = lake.write_table(PATH, pa.Table.from_pylist(rows, arrow_schema(REJECTED_COLUMNS)))
    partition = rejected_partition_of(T0)
    return PartitionFiles(partition, (DataFile(PATH, partition.key, 1, 150, size),))


def read(lake: Lake, files: PartitionFiles) -> pa.Table:
    if files.partition.type == "rejected":
        return pa.Table.from_batches(reject_batches(lake, files))
    return pa.concat_tables(arrow_tables(lake, SPEC, files))


def flipped(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each a bit other, at places all over the file; where it is."""
    for place in range(0, len(data), 13):
        yield place, data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]


@pytest.mark.parametrize("land", [readings, letters])
def test_a_bit_that_is_another_is_noticed_or_says_nothing(lake: Lake, land) -> None:  # type: ignore[no-untyped-def]
    """Of the pages each: they have checksums. Of the footer what matters: lengths, places and types."""
    files = land(lake)
    whole, path = read(lake, files), Path(lake.path(PATH))
    data, unnoticed, told = path.read_bytes(), 0, 0
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for place, damaged in flipped(data):
        path.write_bytes(damaged)
        try:
            same = read(lake, files).equals(whole)
        except DataError as error:
            assert PATH in str(error)
            told += 1
            continue
        assert same or place >= footer, place
        unnoticed += not same
    assert told > 50
    assert unnoticed < told / 20


def test_a_file_that_is_cut_anywhere(lake: Lake) -> None:
    files = readings(lake)
    path = Path(lake.path(PATH))
    data = path.read_bytes()
    for length in range(0, len(data), 397):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match="is no Parquet file that can be read"):
            read(lake, files)


def test_texts_as_dictionaries_are_the_same(lake: Lake) -> None:
    files = readings(lake)
    (found,) = arrow_tables(lake, SPEC, files, TEXTS)
    assert all(pa.types.is_dictionary(found.schema.field(name).type) for name in ("device_id", "site", "kafka_topic"))
    assert found.to_pylist() == read(lake, files).to_pylist()
