"""Anomalies of the Numenta Anomaly Benchmark's recordings, from the batch's kernel, by the benchmark's own score."""

import csv
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import pyarrow as pa

from connections.lake import arrow_schema
from etl import kernel
from fleet.errors import DataError
from fleet.lake_layout import IDENTITY_COLUMNS, SOURCE_COLUMNS
from fleet.nab import REWARD_LOW_FN, REWARD_LOW_FP, STANDARD, Window, probation, score
from weir._anomaly_past import past_of

WINDOWS = "windows.json"
PROFILES = {"standard": STANDARD, "reward_low_fp": REWARD_LOW_FP, "reward_low_fn": REWARD_LOW_FN}
CADENCE, GRAIN = timedelta(minutes=5), "day"
"""Of all recordings; and how a type of that cadence lies in the lake."""
HISTORY = timedelta(days=28)
QUIET = timedelta(days=1)
"""Anomalies with less between them are one alarm, at the first: a person is told once."""
VALUE = "value"


class Recording(NamedTuple):
    times: list[datetime]
    values: list[float]
    windows: list[Window]


def scored(folder: Path) -> list[dict[str, Any]]:
    """Of each recording in the folder and each kind. Raises DataError where the folder is not the benchmark's."""
    results = []
    for name, recording in _recordings(folder):
        rows = len(recording.values)
        for kind, places in _found(recording).items():
            alarms = _alarms(places, recording.times)
            scores = {p: score(alarms, recording.windows, rows, profile) for p, profile in PROFILES.items()}
            told = [alarm for alarm in alarms if alarm >= probation(rows)]
            windows = sum(any(first <= alarm <= last for alarm in told) for first, last in recording.windows)
            results.append({"recording": name, "kind": kind, "anomalies": len(places), "alarms": len(told),
                            "windows": windows, "of_windows": len(recording.windows), **scores})  # fmt: skip
    return results


def table(results: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    head = ("recording", "anomaly", "alarms", "windows", "standard", "low FP", "low FN")
    return [
        head,
        *(
            (r["recording"], r["kind"], f"{r['alarms']:,}", f"{r['windows']} of {r['of_windows']}",
             *(f"{r[name]:.1f}" for name in PROFILES))
            for r in results
        ),
    ]  # fmt: skip


def _recordings(folder: Path) -> list[tuple[str, Recording]]:
    path = folder / WINDOWS
    try:
        windows: dict[str, list[tuple[str, str]]] = json.loads(path.read_text(encoding="utf-8"))
        of_files = [(folder / place, spans) for key, spans in windows.items() for place in (key, Path(key).name)]
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: expected {{recording: [[begin, end], …]}} ({error})") from None
    found = [(file.stem, _read(file, spans)) for file, spans in of_files if spans and file.is_file()]
    if not found:
        raise DataError(f"{folder} has no recording that {WINDOWS} names; its names: {', '.join(windows) or 'none'}")
    return found


def _read(file: Path, spans: Iterable[tuple[str, str]]) -> Recording:
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            rows = [(_moment(row["timestamp"]), float(row["value"])) for row in csv.DictReader(lines)]
    except (KeyError, ValueError) as error:
        raise DataError(f"{file}: expected the columns timestamp and value ({error!r})") from None
    times = [at for at, _ in rows]
    windows = []
    for begin, end in spans:
        within = [n for n, at in enumerate(times) if _moment(begin) <= at <= _moment(end)]
        if within:
            windows.append((within[0], within[-1]))
    return Recording(times, [value for _, value in rows], windows)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _found(recording: Recording) -> dict[str, list[int]]:
    """Kind → rows, in order. The limits are what the rows before the scored part suggest: for the plain range their
    mean and as many deviations as a z-score may have, for the rate their largest change. What is unseen is so for four
    weeks, as long as there were any."""
    before = recording.values[: probation(len(recording.values))]
    mean, room = fmean(before), kernel.Z_LIMIT * stdev(before)
    change = max(abs(after - value) for value, after in pairwise(before))
    metric = kernel.Metric(VALUE, True, mean - room, mean + room, False, change, CADENCE.total_seconds())
    readings = _table(recording)
    days = sorted({at.replace(hour=0, minute=0, second=0) for at in recording.times})
    past = past_of(kernel.derive(readings, [metric], GRAIN)["rollups"], days, HISTORY)
    found = kernel.derive(readings, [metric], GRAIN, past)["anomalies"]
    rows: dict[str, list[int]] = {"range": [], "zscore": [], "rate": [], "unseen": []}
    for kind, row in zip(found["kind"].to_pylist(), found["kafka_offset"].to_pylist(), strict=True):
        rows[kind].append(row)
    return {kind: sorted(places) for kind, places in rows.items()}


def _alarms(rows: Iterable[int], times: Sequence[datetime]) -> list[int]:
    alarms: list[int] = []
    last: datetime | None = None
    for row in rows:
        if last is None or times[row] - last > QUIET:
            alarms.append(row)
        last = times[row]
    return alarms


def _table(recording: Recording) -> pa.Table:
    """As they would lie in the lake, each row's number for its offset."""
    rows = len(recording.values)
    schema = arrow_schema({**IDENTITY_COLUMNS, VALUE: "double", **SOURCE_COLUMNS, "spec_version": "int32"})
    made: dict[str, list[Any]] = {
        "device_id": ["d"] * rows, "site": ["s"] * rows, "event_time": recording.times, "seq": [*range(rows)],
        "carried": [[VALUE]] * rows, VALUE: recording.values, "kafka_topic": ["t"] * rows,
        "kafka_partition": [0] * rows, "kafka_offset": [*range(rows)], "kafka_timestamp": recording.times,
        "spec_version": [1] * rows,
    }  # fmt: skip
    return pa.table(made, schema=schema)
