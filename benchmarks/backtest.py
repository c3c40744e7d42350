"""A long backtest: Kafka's partitions as Spark tasks, beside a pool of processes over the same function, and one alone.

    make bench-backtest        or  python benchmarks/backtest.py [--hours 1] [--passes 3]

1,000 weather stations at 2 s in eight Kafka partitions, through the rules of their type, with all changes told. The
three ways take turns, must say the same, and share the machine with nobody; medians. Spark's session is one of this
process, begun before the first pass, as the stack's is. Twice `here`, on two cores, would be what costs nothing.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pyarrow as pa

import etl.backtest
from benchmarks.etl import DEVICES, START, readings, station, without_spark_server
from connections.lake import Lake
from connections.spark import session
from etl.backtest import Past, backtest
from etl.backtest_partition import History, Work, history_of
from etl.window import Window
from fleet.lake_layout import data_file_name, partition_of
from fleet.manifest import DataFile, Manifest
from fleet.settings import Settings
from fleet.spec import DeviceType

PARTITIONS = 8
CADENCE = timedelta(seconds=2)
FLUSH = timedelta(minutes=5)


def write_lake(lake: Lake, spec: DeviceType, hours: int) -> None:
    """As landing would, a file and a manifest of each Kafka partition for each FLUSH."""
    rng, offsets = np.random.default_rng(7), [0] * PARTITIONS
    ticks = FLUSH // CADENCE
    for flush in range(timedelta(hours=hours) // FLUSH):
        start = START + flush * FLUSH
        rows = readings(spec, rng, start, CADENCE // timedelta(microseconds=1), ticks, 0)
        number = np.tile(np.arange(DEVICES) % PARTITIONS, ticks)
        for kafka_partition, first in enumerate(offsets):
            table = rows.filter(pa.array(number == kafka_partition))
            last = first + table.num_rows - 1
            for name, values in (
                ("kafka_partition", pa.repeat(pa.scalar(kafka_partition, pa.int32()), table.num_rows)),
                ("kafka_offset", pa.array(np.arange(first, last + 1))),
            ):
                table = table.set_column(table.column_names.index(name), table.schema.field(name), values)
            partition = partition_of(spec, start)
            name = data_file_name(spec.topic, kafka_partition, first, last)
            path = f"{partition.folder(spec.version)}/{name}"
            file = DataFile(path, partition.key, spec.version, table.num_rows, lake.write_table(path, table))
            span = (round(moment.timestamp() * 1000) for moment in (start, start + FLUSH))
            lake.commit(Manifest(spec.topic, kafka_partition, first, last, table.num_rows, 0, 0, 0, 0, *span, [file]))
            offsets[kafka_partition] = last + 1


def in_processes(_: Any, lake: Lake, work: list[Work]) -> list[History]:
    with get_context("spawn").Pool() as pool:
        return pool.starmap(history_of, [(lake, one) for one in work], chunksize=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=int, default=1)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "backtest.json")
    options = parser.parse_args()
    spec, window = station(CADENCE), Window(START, START + timedelta(hours=options.hours))
    settings = without_spark_server(Settings.load())
    seconds: dict[str, list[float]] = {"here": [], "processes": [], "spark": []}
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder, session(settings) as spark:
        lake = Lake(f"file://{folder}/lake")
        write_lake(lake, spec, options.hours)
        spark.range(10).count()
        ask = partial(backtest, Past(lake, (spec,), {}), spec, window, timedelta(0), True)
        said = []
        for _ in range(options.passes):
            for way in seconds:
                began = time.monotonic()
                if way == "here":
                    found = ask()
                elif way == "spark":
                    found = ask(lambda: nullcontext(spark))
                else:
                    with patch.object(etl.backtest, "_in_tasks", in_processes):
                        found = ask(lambda: nullcontext(spark))
                seconds[way].append(time.monotonic() - began)
                said.append(found)
                print(f"{way}: {seconds[way][-1]:.1f} s", flush=True)
    assert all(one == said[0] for one in said), "the ways do not say the same"
    rows = said[0].readings
    rates = {way: round(rows / statistics.median(times)) for way, times in seconds.items()}
    result = {
        "about": {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "passes": options.passes},
        "readings": rows, "alerts": len(said[0].episodes), "changes": len(said[0].changes),
        "readings_per_second": rates,
        "spark_beside_processes": round(rates["spark"] / rates["processes"], 2),
        "spark_beside_here": round(rates["spark"] / rates["here"], 2),
    }  # fmt: skip
    print(json.dumps(result))
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
