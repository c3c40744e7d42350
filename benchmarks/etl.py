"""Landed readings → validated rollups, beside DuckDB and Polars doing the same by hand on the same files; rows into the
warehouse, beside a bare COPY; and what a run costs that has next to nothing to do.

    make bench-etl        or  python benchmarks/etl.py [--sizes hour,month,day] [--passes 3] [--only …]

- **Transform**: a lake of 1,000 weather stations is written (an hour and a day at 2 s; a month at 10 minutes, in
  folders of a day), one value in 1,000 out of range. `validate` is Great Expectations, `derive` Spark, on
  sessions of their own; both work batch by batch, as a run does. The peers have no Great Expectations.
- **Load**: the rollups of one hour, all that `load_readings` does, into empty tables and again over what is there; and
  the same rollups as text that is ready through psycopg2's COPY into an empty hypertable with the same indexes. By a
  server with nothing beside it: Weir writes the text on one core while the server takes it on the other.
- **Fixed cost**: an hour with ten readings lands, and sensor_etl is triggered on a whole stack that is warm.

Medians of passes that take turns; of a day, which takes minutes, one pass unless told. A day needs 12 GB of memory and
3 GB of disk.
"""

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import log10
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import psycopg2
import pyarrow as pa
import pyarrow.csv as pa_csv
from pydantic import SecretStr

from connections.airflow import Airflow
from connections.lake import Lake, arrow_schema
from connections.spark import session
from connections.warehouse import Warehouse
from etl.derive import derive
from etl.discover import batches
from etl.lake_index import PartitionFiles, read_index
from etl.load import load_readings
from etl.validate import validate
from fleet.catalog import load_catalog
from fleet.lake_layout import columns, data_file_name, partition_of
from fleet.manifest import DataFile, Manifest
from fleet.settings import CHECKOUT, Settings
from fleet.spec import DeviceType
from stack.credentials import owner_url
from stack.ports import Ports
from stack.programs import ALL
from stack.stack import Stack

HERE = Path(__file__).resolve().parent
START = datetime(2026, 11, 1, tzinfo=UTC)
DEVICES = 1000
FLUSH_ROWS = 60_000
BAD_SHARE = 0.001
LOAD_PASSES, FIXED_PASSES = 5, 5
PEERS = ("duckdb", "polars")
WAYS = ("weir", *PEERS)
Runs = Mapping[str, Sequence[Mapping[str, float]]]
"""Way → what each of its passes says."""


@dataclass(frozen=True)
class Size:
    cadence: timedelta
    span: timedelta
    passes: int = 3
    alone: int = 0
    """Passes over its first partition alone right before it, and over its last right after: the machine's speed changes
    within minutes, and growth is not to be that."""


SIZES = {
    "hour": Size(timedelta(seconds=2), timedelta(hours=1)),
    "month": Size(timedelta(minutes=10), timedelta(days=30)),
    "day": Size(timedelta(seconds=2), timedelta(days=1), passes=1, alone=2),
}
"""1.8, 4.3 and 43.2 million readings of five values."""


def station(cadence: timedelta) -> DeviceType:
    return load_catalog(CHECKOUT / "fleet" / "types").type("weather_station").model_copy(update={"cadence": cadence})


def write_lake(lake: Lake, spec: DeviceType, size: Size) -> int:
    """As landing would: in order of time, a file and a manifest for each FLUSH_ROWS of one partition. Returns rows."""
    rng, rows, cadence_us = np.random.default_rng(7), 0, size.cadence // timedelta(microseconds=1)
    ticks, at_once = size.span // size.cadence, FLUSH_ROWS // DEVICES
    for tick in range(0, ticks, at_once):
        number = min(at_once, ticks - tick)
        start = START + tick * size.cadence
        table = readings(spec, rng, start, cadence_us, number, rows)
        starts = np.array([int(partition_of(spec, start + n * size.cadence).start.timestamp()) for n in range(number)])
        files = []
        for first in np.flatnonzero(np.diff(starts, prepend=-1)).tolist():
            n = int((starts == starts[first]).sum()) * DEVICES
            partition = partition_of(spec, start + first * size.cadence)
            offset = rows + first * DEVICES
            path = f"{partition.folder(spec.version)}/{data_file_name(spec.topic, 0, offset, offset + n - 1)}"
            written = lake.write_table(path, table.slice(first * DEVICES, n))
            files.append(DataFile(path, partition.key, spec.version, n, written))
        last = rows + table.num_rows - 1
        lake.commit(Manifest(spec.topic, 0, rows, last, table.num_rows, 0, 0, 0, 0, 0, 0, files))
        rows = last + 1
    return rows


def readings(
    spec: DeviceType, rng: np.random.Generator, start: datetime, cadence_us: int, ticks: int, offset: int
) -> pa.Table:
    """Every device once a tick."""
    n = DEVICES * ticks
    device = np.tile(np.arange(DEVICES, dtype=np.int32), ticks)
    event = int(start.timestamp() * 1e6) + np.repeat(np.arange(ticks), DEVICES) * cadence_us + device * 1000
    names = pa.array([str(number + 1) for number in range(DEVICES)])
    carried = np.tile(np.array([*spec.metrics]), n)
    made: dict[str, Any] = {
        "device_id": pa.DictionaryArray.from_arrays(device, names).cast(pa.string()),
        "site": pa.repeat("field", n),
        "event_time": pa.array(event).cast(pa.timestamp("us", tz="UTC")),
        "seq": pa.nulls(n, pa.int64()),
        "carried": pa.ListArray.from_arrays(np.arange(n + 1, dtype=np.int32) * len(spec.metrics), carried),
        "kafka_topic": pa.repeat(spec.topic, n),
        "kafka_partition": pa.repeat(pa.scalar(0, pa.int32()), n),
        "kafka_offset": np.arange(offset, offset + n),
        "kafka_timestamp": pa.array(event // 1000).cast(pa.timestamp("ms", tz="UTC")),
    }
    for name, metric in spec.metrics.items():
        assert metric.range is not None
        low, high = metric.range.low, metric.range.high
        value = np.round(rng.normal(low + 0.5 * (high - low), 0.05 * (high - low), n), 2)
        made[name] = np.where(rng.random(n) < BAD_SHARE, high + 50, value)
    schema = arrow_schema(columns(spec))
    return pa.table([made[field.name] for field in schema], schema=schema)


# Transform


def peer_pass(name: str, python: Path, folders: list[str], spec: DeviceType, grain: str) -> dict[str, float]:
    """In a process of its own, which times itself."""
    ranges = {name: [m.range.low, m.range.high] for name, m in spec.metrics.items() if m.range}
    asked = json.dumps({"folders": folders, "ranges": ranges, "partition": grain})
    command = [str(python), str(HERE / "peers" / f"{name}_rollups.py"), asked]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(answer)  # type: ignore[no-any-return]


def weir_pass(
    spark: Any, lake: Lake, spec: DeviceType, partitions: Sequence[PartitionFiles], home: Path
) -> dict[str, float]:
    """Seconds of each part, and what the peers say of theirs."""
    by_key = {files.partition.key: files for files in partitions}
    took = {"validate": 0.0, "derive": 0.0}
    rollups, count, total = 0, 0, 0.0
    for number, batch in enumerate(batches(partitions)):
        files = [by_key[key] for key in batch.partitions]
        began = time.perf_counter()
        outcome = validate(lake, spec, files, f"bench-{number}", home)
        assert not outcome.failed, outcome.failed
        took["validate"] += time.perf_counter() - began
        began = time.perf_counter()
        derived = derive(spark, lake, spec, files)
        done = [derived(one) for one in files]
        took["derive"] += time.perf_counter() - began
        for one in done:
            n = one.rollups["count"].to_numpy()
            rollups, count = rollups + one.rollups.num_rows, count + int(n.sum())
            total += float((n * one.rollups["mean"].to_numpy()).sum())
    return {**took, "seconds": sum(took.values()), "rollups": rollups, "count": count, "sum": total}


def transform(name: str, settings: Settings, peers_python: Path, passes: int | None) -> dict[str, Any]:
    size = SIZES[name]
    spec = station(size.cadence)
    folder = Path(tempfile.mkdtemp(prefix="weir-bench-"))
    try:
        lake = Lake(f"file://{folder}")
        rows = write_lake(lake, spec, size)
        partitions = [*read_index(lake).partitions.values()]
        grain = partitions[0].partition.grain
        with session(settings) as spark:

            def once(way: str, some: Sequence[PartitionFiles]) -> dict[str, float]:
                if way == "weir":
                    return weir_pass(spark, lake, spec, some, folder / "home")
                folders = [lake.path(one.partition.folder(spec.version)) for one in some]
                return peer_pass(way, peers_python, folders, spec, grain)

            # Code that the JVM has not compiled is not measured.
            derive(spark, lake, spec, partitions[:1])
            found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
            alone: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
            for _ in range(passes or size.passes):
                for way in WAYS:
                    alone[way] += [once(way, partitions[:1]) for _ in range(size.alone)]
                    found[way].append(once(way, partitions))
                    alone[way] += [once(way, partitions[-1:]) for _ in range(size.alone)]
        agree(found)
        told = {way: figures(rows, runs) for way, runs in found.items()}
        faster = max(told[peer]["rows_per_second"] for peer in PEERS)
        ratio = round(told["weir"]["rows_per_second"] / faster, 2)
        grows = {"growth_per_10x": growth(found, alone, len(partitions))} if size.alone else {}
        return {"rows": rows, "partitions": grain, **told, "ratio_to_faster_peer": ratio, **grows}
    finally:
        shutil.rmtree(folder)


def growth(whole: Runs, alone: Runs, partitions: int) -> dict[str, float]:
    """Seconds of the whole against those of one of its `partitions` equal ones, for each factor of ten between them."""
    seconds = {
        way: [statistics.median(run["seconds"] for run in runs[way]) for runs in (whole, alone)] for way in whole
    }
    return {way: round((of / (partitions * one)) ** (1 / log10(partitions)), 2) for way, (of, one) in seconds.items()}


def agree(found: Runs) -> None:
    """All have made the same rollups."""
    first = next(iter(found.values()))[0]
    for name, runs in found.items():
        for key in ("rollups", "count"):
            assert runs[0][key] == first[key], (name, key, runs[0][key], first[key])
        assert abs(runs[0]["sum"] - first["sum"]) <= 1e-9 * abs(first["sum"]), (name, runs[0]["sum"], first["sum"])


def figures(rows: int, runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    parts = {
        f"{part}_seconds": round(statistics.median(run[part] for run in runs), 2)
        for part in ("validate", "derive")
        if part in runs[0]
    }
    seconds = statistics.median(run["seconds"] for run in runs)
    return {"seconds": round(seconds, 2), "rows_per_second": round(rows / seconds), **parts}


# Load and fixed cost


def load(settings: Settings, owner: str) -> dict[str, Any]:
    """One hour's rollups, anomalies and quarantine by load_readings, and the same rollups by a bare COPY."""
    spec = station(SIZES["hour"].cadence)
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
        lake = Lake(f"file://{folder}")
        write_lake(lake, spec, SIZES["hour"])
        files = [*read_index(lake).partitions.values()]
        with session(settings) as spark:
            derived = derive(spark, lake, spec, files)(*files)
    warehouse = Warehouse.of(settings)
    ready = derived.rollups.drop_columns(["starts_at"])
    for name, value in {"system": spec.system, "type": spec.type, "spec_version": derived.spec_version}.items():
        ready = ready.append_column(name, pa.repeat(pa.scalar(value), ready.num_rows))
    sink = io.BytesIO()
    pa_csv.write_csv(ready, sink, pa_csv.WriteOptions(include_header=False))
    bare = psycopg2.connect(owner.replace("+psycopg2", ""))
    with bare, bare.cursor() as cursor:
        cursor.execute("CREATE TABLE bare (LIKE rollups INCLUDING ALL)")
        cursor.execute("SELECT create_hypertable('bare', 'bucket', create_default_indexes => false)")
    seconds: dict[str, list[float]] = {"load_readings": [], "again": [], "copy": []}
    for number in range(1 + LOAD_PASSES):
        with bare, bare.cursor() as cursor:
            cursor.execute("TRUNCATE bare, rollups, anomalies, quarantine, ledger CASCADE")
        for way in ("load_readings", "again"):
            began = time.perf_counter()
            assert load_readings(warehouse, spec, derived, f"bench-{number}")
            seconds[way].append(time.perf_counter() - began)
        with bare, bare.cursor() as cursor:
            sink.seek(0)
            began = time.perf_counter()
            cursor.copy_expert(f"COPY bare ({', '.join(ready.column_names)}) FROM STDIN (FORMAT csv)", sink)
            bare.commit()
            seconds["copy"].append(time.perf_counter() - began)
    bare.close()
    warehouse.close()
    rows = derived.rollups.num_rows
    beside = derived.anomalies.num_rows + derived.bad_values.num_rows + derived.bad_readings.num_rows
    median = {way: statistics.median(found[1:]) for way, found in seconds.items()}
    return {
        "rollups": rows, "other_rows": beside, "seconds": {way: round(found, 2) for way, found in median.items()},
        "rows_per_second": {
            "load_readings": round((rows + beside) / median["load_readings"]), "copy": round(rows / median["copy"]),
        },
        "ratio": round((rows + beside) / median["load_readings"] * median["copy"] / rows, 2),
    }  # fmt: skip


def fixed_cost(stack: Stack) -> dict[str, Any]:
    """Seconds from the trigger of sensor_etl to its success, for an hour with ten readings."""
    batch = stack.settings("batch")
    spec, lake = station(SIZES["hour"].cadence), Lake(batch.lake)
    seconds = []
    with Airflow.of(stack.settings("operator")) as airflow:
        for number in range(2 + FIXED_PASSES):
            start = START + timedelta(hours=number)
            table = readings(spec, np.random.default_rng(number), start, 2_000_000, 1, number * DEVICES).slice(0, 10)
            partition = partition_of(spec, start)
            first = table["kafka_offset"][0].as_py()
            path = f"{partition.folder(spec.version)}/{data_file_name(spec.topic, 0, first, first + 9)}"
            file = DataFile(path, partition.key, spec.version, 10, lake.write_table(path, table))
            missing = DEVICES - 10 if number else 0
            lake.commit(Manifest(spec.topic, 0, first - missing, first + 9, 10, 0, 0, 0, missing, 0, 0, [file]))
            began = time.perf_counter()
            run = airflow.trigger("sensor_etl")
            airflow.wait("sensor_etl", run, 300, every=0.1)
            seconds.append(time.perf_counter() - began)
    return {"seconds": round(statistics.median(seconds[2:]), 1), "each": [round(one, 1) for one in seconds]}


def without_spark_server(settings: Settings) -> Settings:
    """The server of a stack may be down, busy or not there."""
    return settings.model_copy(update={"spark_remote": SecretStr("")})


@contextmanager
def stack_of(*services: str) -> Iterator[Stack]:
    """Of all there are, where none is named."""
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
        stack = Stack(Path(folder) / "home", Ports.free(), services or ALL, environ={"WEIR_ETL_SCHEDULE": "none"})
        stack.up()
        try:
            yield stack
        finally:
            stack.down()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--passes", type=int)
    parser.add_argument("--peers-python", type=Path, default=CHECKOUT / "var" / "bench-peers" / "bin" / "python")
    parser.add_argument("--only", default="transform,load,fixed")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "etl.json")
    options = parser.parse_args()
    found: dict[str, Any] = {"about": {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}}
    if "transform" in options.only:
        settings = without_spark_server(Settings.load(role="batch"))
        found["transform"] = {}
        for name in options.sizes.split(","):
            found["transform"][name] = transform(name, settings, options.peers_python, options.passes)
            print(name, json.dumps(found["transform"][name]), flush=True)
    if "fixed" in options.only:
        with stack_of() as stack:
            found["fixed_cost"] = fixed_cost(stack)
            print("fixed cost", found["fixed_cost"], flush=True)
    if "load" in options.only:
        with stack_of("postgres") as stack:
            found["load"] = load(without_spark_server(stack.settings("batch")), owner_url(stack.secrets, stack.ports))
            print("load", found["load"], flush=True)
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
