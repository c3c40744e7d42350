"""The head count on the real recording: as it was published, and as it is for who has to rely on it.

    python benchmarks/occupancy.py FILE

1. The published protocol (Singh et al. 2018: 98.4 % accuracy, F1 0.953): rows of 30 s drawn at random into ten folds.
2. The same rows and columns in order of time: trained on the older 70 %, asked for the newer 30 %.
3. As Weir does it: minutes with trailing means, by Spark, in order of time; beside baselines, and how sure.

Writes benchmarks/results/occupancy.json.
"""

import json
import sys
import time
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.etl import without_spark_server
from connections.lake import arrow_schema
from connections.spark import session
from etl import kernel
from etl.derive import metrics
from etl.features import Minutes, as_minutes, features
from etl.training import BASELINES, HOLDOUT, a_minute_ago, candidates, estimates, split, train
from fleet.catalog import load_catalog
from fleet.lake_layout import columns
from fleet.model import HEAD_COUNT
from fleet.promotion import blocks_of, compare, score
from fleet.settings import CHECKOUT, Settings
from fleet.spec import DeviceType
from simulators.occupancy_recording import COLUMNS, OCCUPANCY
from simulators.recording import Recording

LENGTHS = {"minutes": timedelta(minutes=1), "half hours": timedelta(minutes=30), "hours": timedelta(hours=1),
           "two hours": timedelta(hours=2), "four hours": timedelta(hours=4)}  # fmt: skip
LAGS = (1, 5, 10, 20, 40, 60, 120)
SHUFFLES = 10


def main() -> None:
    recording = Recording(Path(sys.argv[1]), OCCUPANCY, "room-1", 30_000_000)
    rows = [row.readings for row in recording.rows()]
    wide = np.array([[next(iter(reading.values.values())) for reading in row] for row in rows])
    place = list(COLUMNS.values()).index(("edge", "occupancy"))
    truth, inputs = wide[:, place], np.delete(wide, place, axis=1)
    names = list(candidates())
    with threadpool_limits(1):
        found = {
            "rows": len(rows),
            "at random": {name: at_random(name, inputs, truth) for name in names},
            "in order of time": {name: in_order(name, inputs, truth) for name in names},
            "as weir": as_weir(rows),
        }
    print(json.dumps(found, indent=1))
    path = CHECKOUT / "benchmarks" / "results" / "occupancy.json"
    path.write_text(json.dumps(found, indent=1) + "\n")


def at_random(name: str, inputs: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Each row said by an estimator that was trained on nine tenths drawn at random."""
    from sklearn.model_selection import KFold

    said = np.empty(len(truth))
    for some, others in KFold(SHUFFLES, shuffle=True, random_state=0).split(inputs):
        said[others] = candidates()[name].fit(inputs[some], truth[some].astype(int)).predict(inputs[others])
    return brief(truth, said)


def in_order(name: str, inputs: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    border = int(len(truth) * (1 - HOLDOUT))
    estimator = candidates()[name].fit(inputs[:border], truth[:border].astype(int))
    return brief(truth[border:], estimator.predict(inputs[border:]))


def as_weir(rows: list) -> dict:
    settings = without_spark_server(Settings.load(role="batch"))
    spec = load_catalog(settings.types_dir).type(HEAD_COUNT.type)
    began = time.perf_counter()
    minutes = minutes_of(settings, spec, rows)
    made = time.perf_counter()
    parts = split(minutes)
    trained = train(parts.training)
    done = time.perf_counter()
    said, held = estimates(trained.estimator, parts.holdout, trained.columns), parts.holdout
    others = {name: of(parts) for name, of in BASELINES.items()}
    return {
        "minutes": len(minutes), "trained on": len(parts.training), "held out from": str(held.at[0]),
        "algorithm": trained.algorithm, "candidates": trained.chosen_by,
        "model": asdict(score(held.truth, said)),
        "baselines": {name: brief(held.truth, other) for name, other in others.items()},
        "a minute ago": brief(held.truth, a_minute_ago(parts)),
        "better by": {
            name: {
                length: asdict(compare(held.truth, said, other, blocks_of(held.site, held.at, span), name))
                for length, span in LENGTHS.items()
            }
            for name, other in others.items()
        },
        "autocorrelation of errors": autocorrelation((held.truth != said).astype(float)),
        "seconds": {"features": round(made - began, 1), "training": round(done - made, 1)},
    }  # fmt: skip


def minutes_of(settings: Settings, spec: DeviceType, rows: list) -> Minutes:
    """As the lake would have them: through the kernel and the features that training and scoring share."""
    made: dict[str, list] = {name: [] for name in columns(spec)}
    for offset, reading in enumerate(reading for row in rows for reading in row):
        of = {"device_id": reading.device_id, "site": reading.site, "event_time": reading.event_time, "seq": None,
              "carried": [*reading.values], "kafka_topic": spec.topic, "kafka_partition": 0, "kafka_offset": offset,
              "kafka_timestamp": reading.event_time, **dict.fromkeys(spec.metrics), **reading.values}  # fmt: skip
        for name, value in of.items():
            made[name].append(value)
    table = pa.table(made, schema=arrow_schema(columns(spec)))
    table = table.append_column("spec_version", pa.repeat(pa.scalar(spec.version, pa.int32()), table.num_rows))
    rolled = kernel.derive(table, metrics(spec), spec.folder_grain)["rollups"]
    of_minute = rolled.filter(pc.equal(rolled["grain"], "1m")).select([c.split()[0] for c in kernel.MINUTE.split(", ")])
    with session(settings) as spark:
        return as_minutes(features(spark.createDataFrame(of_minute), HEAD_COUNT).toArrow(), HEAD_COUNT)


def brief(truth: np.ndarray, said: np.ndarray) -> dict[str, float]:
    told = score(truth, said)
    return {"accuracy": round(told.accuracy, 4), "f1": round(told.f1, 4)}


def autocorrelation(errors: np.ndarray) -> dict[int, float]:
    """By how many minutes apart."""
    off = errors - errors.mean()
    return {lag: round(float((off[lag:] * off[:-lag]).mean() / off.var()), 3) if off.any() else 0.0 for lag in LAGS}


if __name__ == "__main__":
    main()
