"""The inbox of files as an Airflow task. What it does is in `etl/inbox.py`, imported when the task runs."""

from airflow.sdk import task

from plugins.sensor_tasks import ATTEMPTS, job_of_task, run_id_of_task


@task(**ATTEMPTS)
def take() -> dict[str, int]:
    """How many files had which outcome. Fails once for a file that is refused: what to do is in the log."""
    from collections import Counter

    from etl.inbox import take as take_all
    from fleet.errors import DataError

    outcomes: Counter[str] = Counter()
    refused = []
    for one in take_all(job_of_task(), run_id_of_task()):
        said = f"{one.type}/{one.name}: {one.outcome} {one.detail}"
        print(f"{said}, rows {one.rows:,}, readings {one.readings:,}, old {one.old:,}, rejected {one.rejected:,}")
        outcomes[one.outcome] += 1
        if one.is_refused and one.is_new:
            refused.append(said)
    if refused:
        raise DataError("\n".join(refused))
    return dict(outcomes)
