"""The log of security events as an Airflow task. What it does is in `etl/security_log.py`, imported when it runs."""

from datetime import UTC, datetime

from airflow.sdk import task

from plugins.sensor_tasks import ATTEMPTS, asked_params, job_of_task


@task(**ATTEMPTS)
def keep() -> dict[str, int]:
    """How many events there are of the span that was written, by system."""
    from etl.security_log import keep as kept
    from etl.window import parse_window
    from fleet.security_log import types_of

    job, now, params = job_of_task(), datetime.now(UTC), asked_params()
    wanted = parse_window(params["from"], params["to"], now)
    return {one.name: kept(job.warehouse, one, wanted, now) for one in job.catalog.systems.values() if types_of(one)}
