"""Care of the lake as Airflow tasks. What they do is in `etl/`, which is imported when a task runs."""

from datetime import UTC, datetime
from functools import partial

from airflow.sdk import task

from plugins.sensor_tasks import ATTEMPTS, asked_params, job_of_task


@task(**ATTEMPTS)
def compact() -> dict[str, int]:
    """Files and bytes before and after. Fails, once all others are done, where files are not what they should be."""
    from etl.compaction import compact as outcomes
    from etl.compaction import summed
    from fleet.errors import DataError

    system = asked_params()["system"]
    problems, done = [], []
    clock = partial(datetime.now, UTC)
    for one in outcomes(job_of_task().lake, clock, None if system == "all" else system):
        done.append(one)
        print(one)
        if one.damaged:
            problems.append(str(one))
    if problems:
        raise DataError("\n".join(problems))
    return summed(done)


@task(**ATTEMPTS, trigger_rule="all_done")
def tidy() -> dict[str, int]:
    """Files and records deleted. Fails where a compacted file is damaged: what it was made from is kept."""
    from etl.lake_tidy import tidy as tidied
    from fleet.errors import DataError

    found = tidied(job_of_task().lake, datetime.now(UTC))
    if found.problems:
        raise DataError("\n".join(found.problems))
    return {"landed": found.landed, "compacted": found.compacted, "records": found.records}
