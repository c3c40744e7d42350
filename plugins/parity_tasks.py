"""The audit of alerts as Airflow tasks. What it does is in `etl/parity.py`, imported when a task runs."""

from datetime import UTC, datetime
from typing import Any

from airflow.sdk import get_current_context, task

from plugins.sensor_tasks import ATTEMPTS, asked_params, job_of_task, systems


@task
def systems_to_audit() -> list[str]:
    wanted = asked_params()["system"]
    return systems() if wanted == "all" else [wanted]


@task(**ATTEMPTS, map_index_template="{{ system }}")
def audit(system: str) -> dict[str, Any]:
    """Compares, and writes what it finds into the warehouse; how much differs, by cause."""
    from collections import Counter

    from etl.parity_books import audited, span_of

    context = get_current_context()
    context["system"] = system
    window = span_of(context["params"]["from"], context["params"]["to"], datetime.now(UTC))
    found = audited(job_of_task(), system, window)
    causes = Counter(one.cause for part in found for one in part.differences)
    print(f"{system}: {dict(causes) or 'no differences'} in {len(found)} partitions of Kafka")
    return {"system": system, "causes": dict(causes)}


@task
def verdict(audits: list[dict[str, Any]]) -> None:
    """Fails the run where a difference is not explained; what is said in which case is fleet.parity.CAUSES."""
    from fleet.errors import DataError
    from fleet.parity import CAUSES

    wrong = {
        one["system"]: bad
        for one in audits
        if (bad := {cause: n for cause, n in one["causes"].items() if not CAUSES[cause].explains})
    }
    if wrong:
        raise DataError(f"alerts are not what the rules say of the log: {wrong}; see the table parity_differences")
