"""The way back from quarantine as Airflow tasks. What they do is in `etl/replay.py`, imported when a task runs."""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import task

from plugins.sensor_tasks import ATTEMPTS, asked_params, job_of_task, run_id_of_task

LANDING = timedelta(minutes=30)
"""How long what was given back may take to land."""


@task.short_circuit(**ATTEMPTS)
def replay() -> dict[str, Any] | None:
    """Gives back what is good now; which partitions of the lake are to be processed, and how far Kafka is to land. None
    where nothing is to be written: all other tasks are skipped."""
    from etl.quarantine import Filter
    from etl.replay import replay as give_back
    from etl.window import parse_window

    params = asked_params()
    window = parse_window(params["from"], params["to"], datetime.now(UTC))
    system = None if params["system"] == "all" else params["system"]
    asked = Filter(system, params["type"], params["reason"], params["device"], params["metric"], window)
    found = give_back(job_of_task(), asked, run_id_of_task(), params["dry_run"])
    print(f"readings: {dict(found.letters)}, values: {dict(found.values)}, still bad: {dict(found.still)}")
    if params["dry_run"]:
        print("a dry run: nothing was written")
        return None
    return {"partitions": sorted(found.partitions), "ends": found.ends}


@task.sensor(poke_interval=5, timeout=LANDING.total_seconds(), mode="reschedule")
def landed(back: dict[str, Any]) -> bool:
    from etl.replay import has_landed

    return has_landed(job_of_task(), back["ends"])


@task(**ATTEMPTS)
def discover(back: dict[str, Any]) -> list[dict[str, Any]]:
    """The batches of the partitions to which something came back."""
    from etl.run import Request

    found = job_of_task().begin(run_id_of_task(), Request(partitions=tuple(back["partitions"])))
    return [batch.as_json() for batch in found]
