"""Runs of the batch job on the small lakes of tests/integration/small_lake.py, and what they leave in the warehouse."""

from datetime import timedelta
from typing import Any

from etl.discover import Batch
from etl.run import Job, Request
from tests.integration.small_lake import T0

TABLES = (
    "rollups", "anomalies", "quarantine", "validations", "etl_runs", "ledger_topics", "ledger",
    "energy_hours", "energy_unattributed", "energy_pieces", "energy_ends",
)  # fmt: skip
STRICT = """\
type: boiler
version: 1
system: plant
cadence: 2s
metrics:
  pressure: {unit: hectopascal, range: [0, 2000], outside: fail}
  water: {unit: degC, max_change: {by: 5, within: 10s}, stuck_after: 10s, history: 28d}
examples:
  good: [{payload: {device_id: b1, event_time: 1732985789000, values: {pressure: 900}}, values: {pressure: 900}}]
  bad: [{payload: {device_id: b1, event_time: 1732985789000, values: {pressure: high}}, reason: wrong_type}]
"""


def run(job: Job, run_id: str, **request: Any) -> tuple[list[Batch], dict[str, Any]]:
    batches = job.begin(run_id, Request(**request))
    for batch in batches:
        job.validate(run_id, batch)
        job.load(run_id, batch)
    return batches, job.finish(run_id)


def keys(batches: list[Batch]) -> set[str]:
    return {key for batch in batches for key in batch.partitions}


def contents(job: Job) -> dict[str, Any]:
    names = ("rollups", "anomalies", "quarantine", "ledger_metrics", "rejects")
    return {name: sorted(r["t"] for r in job.warehouse.rows(f"SELECT t::text AS t FROM {name} t")) for name in names}


def at(seconds: float) -> dict[str, Any]:
    return {"event_time": T0 + timedelta(seconds=seconds)}


KEY = "weather/weather_station/2026-11-22T03"
