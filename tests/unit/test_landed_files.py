"""Which file has a record; tests/unit/test_compaction.py has the same of files that were compacted or have expired."""

from pathlib import Path

import pyarrow as pa

from connections.lake import Lake
from etl.landed_files import LandedFiles
from fleet.manifest import DataFile, Manifest


def test_the_file_that_has_a_record_is_found_among_those_of_its_flush(tmp_path: Path) -> None:
    lake = Lake(f"file://{tmp_path}/lake")
    landed = LandedFiles(lake)
    assert landed.file_of("sensor", 2, 12) is None
    files = []
    for hour, offsets in (("03", [10, 13]), ("04", [11, 14])):  # 12 is a heartbeat
        path = f"raw/{hour}.parquet"
        lake.write_table(path, pa.table({"kafka_offset": offsets}))
        files.append(DataFile(path, f"weather/weather_station/2026-11-22T{hour}", 1, 2, 10))
    found = Manifest(
        "sensor", 2, 10, 14, first_append_ms=1, last_append_ms=2, files=files, rows=4, unreadable=0, heartbeats=1,
        controls=0, missing=0,
    )  # fmt: skip
    assert lake.commit(found)
    assert [landed.file_of("sensor", 2, offset) for offset in range(10, 16)] == [
        "raw/03.parquet", "raw/04.parquet", "", "raw/03.parquet", "raw/04.parquet", None,
    ]  # fmt: skip
