"""The batch job's transform against pandas doing the same split and rollups, on the same lake in the same run.

    python benchmarks/etl.py [rows]

Prints rows/s of each and the ratio, from medians of PASSES that take turns; the first Spark pass (cold JVM code) apart.
On the Spark Connect server of a running stack: WEIR_ENV_FILE=var/env/batch.env; else on a Spark of its own.
"""

import random
import shutil
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from connections.lake import Lake, arrow_schema
from connections.spark import session
from etl.derive import derive
from etl.lake_frames import arrow_tables
from etl.lake_index import PartitionFiles, read_index
from fleet.catalog import load_catalog
from fleet.lake_layout import columns, data_file_name, partition_of
from fleet.manifest import DataFile, Manifest
from fleet.settings import Settings
from fleet.spec import DeviceType

START = datetime(2026, 11, 22, 3, tzinfo=UTC)
DEVICES = 100
PASSES = 5


def write_lake(lake: Lake, spec: DeviceType, rows: int) -> None:
    """One hour of evenly spaced readings, 1 % of values out of range."""
    rng = random.Random(7)  # noqa: S311
    made: dict[str, list[object]] = {name: [] for name in columns(spec)}
    for i in range(rows):
        row = {
            "device_id": str(i % DEVICES), "site": "field", "event_time": START + timedelta(seconds=3600 * i / rows),
            "seq": None, "carried": [*spec.metrics], "kafka_topic": spec.topic, "kafka_partition": 0,
            "kafka_offset": i, "kafka_timestamp": START,
        }  # fmt: skip
        row |= {m: 999.0 if rng.random() < 0.01 else rng.gauss(10, 1) for m in spec.metrics}
        for name, value in row.items():
            made[name].append(value)
    table = pa.table(made, schema=arrow_schema(columns(spec)))
    partition = partition_of(spec, START)
    path = f"{partition.folder(spec.version)}/{data_file_name(spec.topic, 0, 0, rows - 1)}"
    size = lake.write_table(path, table)
    file = DataFile(path, partition.key, spec.version, rows, size)
    lake.commit(Manifest(spec.topic, 0, 0, rows - 1, rows, 0, 0, 0, 0, 0, 0, [file]))


def with_pandas(lake: Lake, spec: DeviceType, files: PartitionFiles) -> int:
    """The same rollups: duplicates dropped, bad values left out, both grains. Returns the number of rollup rows."""
    frame = pa.concat_tables(arrow_tables(lake, spec, files)).to_pandas()
    metrics = [*spec.metrics]
    frame["carried"] = frame["carried"].str.join(",")
    frame = frame.sort_values(["kafka_timestamp", "kafka_partition", "kafka_offset"])
    frame = frame.drop_duplicates(["device_id", "event_time", "seq", "carried", *metrics])
    long = frame.melt(["device_id", "site", "event_time"], metrics, "metric", "value").dropna(subset="value")
    low = long["metric"].map({m: spec.metrics[m].range.low for m in metrics})  # type: ignore[union-attr]
    high = long["metric"].map({m: spec.metrics[m].range.high for m in metrics})  # type: ignore[union-attr]
    long = long[(long["value"] >= low) & (long["value"] <= high)].sort_values("event_time")
    series = long.groupby(["device_id", "metric"])["value"]
    deviation = (long["value"] - series.transform("median")).abs()
    long["unusual"] = deviation > 5 * 1.4826 * deviation.groupby([long["device_id"], long["metric"]]).transform(
        "median"
    )
    total = 0
    for grain in ("min", "h"):
        keys = ["device_id", "metric", "site", long["event_time"].dt.floor(grain)]
        total += len(
            long.groupby(keys).agg(
                count=("value", "count"), mean=("value", "mean"), min=("value", "min"), max=("value", "max"),
                stddev=("value", "std"), last=("value", "last"), anomalies=("unusual", "sum"),
            )
        )  # fmt: skip
    return total


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 500_000
    settings = Settings.load(role="batch")
    spec = load_catalog(settings.types_dir).type("weather_station")
    folder = tempfile.mkdtemp(prefix="weir-benchmark-")
    try:
        lake = Lake(f"file://{folder}")
        write_lake(lake, spec, rows)
        (files,) = read_index(lake).partitions.values()
        spark_seconds, pandas_seconds = [], []
        with session(settings) as spark:
            for _ in range(1 + PASSES):
                began = time.perf_counter()
                (derived,) = derive(spark, lake, spec, [files])
                spark_seconds.append(time.perf_counter() - began)
                began = time.perf_counter()
                peer_rows = with_pandas(lake, spec, files)
                pandas_seconds.append(time.perf_counter() - began)
        assert peer_rows == derived.rollups.num_rows, (peer_rows, derived.rollups.num_rows)
        warm, peer = statistics.median(spark_seconds[1:]), statistics.median(pandas_seconds[1:])
        print(f"{rows:,} rows, {derived.rollups.num_rows:,} rollup rows, pandas {pd.__version__}")
        print(f"Spark first {rows / spark_seconds[0]:,.0f} rows/s, then {rows / warm:,.0f} rows/s")
        print(f"pandas {rows / peer:,.0f} rows/s; Spark is {peer / warm:.2f} times pandas")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
