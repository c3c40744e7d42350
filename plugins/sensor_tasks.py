"""The batch job's steps as Airflow tasks. What they do is in `etl/run.py`, which is imported when a task runs."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import (
    CronDataIntervalTimetable,
    CronTriggerTimetable,
    ExceptionRetryPolicy,
    RetryAction,
    RetryRule,
    get_current_context,
    task,
)

from fleet.catalog import load_catalog
from fleet.errors import ConfigurationError
from fleet.nearest import nearest
from fleet.settings import Settings
from plugins.data_docs import validation_task

if TYPE_CHECKING:
    from etl.discover import Batch
    from etl.run import Job

# Trying again helps when a server was away or the task was killed, and never when the data is wrong.
ATTEMPTS: dict[str, Any] = {
    "retries": 3,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
    "retry_policy": ExceptionRetryPolicy(
        rules=[
            RetryRule(exception="fleet.errors.Unavailable", action=RetryAction.RETRY),
            RetryRule(exception="fleet.errors.WeirError", action=RetryAction.FAIL),
        ]
    ),
}
ONE_AT_A_TIME: dict[str, Any] = {
    "catchup": False,
    "max_active_runs": 1,
    "dagrun_timeout": timedelta(hours=6),
    "tags": ["weir"],
}
"""Options of every DAG: its runs take turns, and none is made for what was before. A start date would make each run at
once where Airflow starts for the first time."""
RANGE = "2026-11-22, 2026-11-22T03:00, or -2h for two hours ago; UTC"
"""How a trigger form takes a moment."""


def systems() -> list[str]:
    """For the trigger form. Raises SpecError, which Airflow shows as the DAG's import error."""
    return list(load_catalog(Settings.load().types_dir).systems)


def at(cron: str) -> CronTriggerTimetable:
    """By the clock, in UTC; for the first time when it next strikes, or struck within the minute."""
    return CronTriggerTimetable(cron, timezone="UTC", run_immediately=timedelta(minutes=1))


def schedule() -> CronDataIntervalTimetable | None:
    """When sensor_etl runs by itself; None: only when it is triggered. Each run has an interval, from one moment of the
    schedule to the next: a backfill goes by it."""
    given = Settings.load().etl_schedule
    return None if given == "none" else CronDataIntervalTimetable(given, "UTC")


def job_of_task() -> "Job":
    from etl.run import Job

    return Job(Settings.load())


def run_id_of_task() -> str:
    return str(get_current_context()["dag_run"].run_id)


def asked_params() -> dict[str, Any]:
    """The run's params. Raises ConfigurationError for one that the DAG does not have: Airflow takes any, and who meant
    `dry_run` would get none."""
    context = get_current_context()
    declared = list(context["dag"].params)
    for name in context["dag_run"].conf or {}:
        if name not in declared:
            raise ConfigurationError(f"{context['dag'].dag_id} has no param {name!r}{nearest(name, declared)}")
    return dict(context["params"])


@task(**ATTEMPTS)
def discover() -> list[dict[str, Any]]:
    """The batches of partitions that changed since they were processed; of a run of a backfill, of all partitions that
    its interval touches."""
    from etl.run import Request

    params, run = asked_params(), get_current_context()["dag_run"]
    system = None if params["system"] == "all" else params["system"]
    asked = Request(system, params["from"], params["to"], params["force"])
    if run.run_type == "backfill" and run.data_interval_start and run.data_interval_end:
        asked = Request(system, run.data_interval_start.isoformat(), run.data_interval_end.isoformat(), force=True)
    found = job_of_task().begin(run_id_of_task(), asked)
    for batch in found:
        print(f"{batch.type}: {batch.rows:,} rows in {', '.join(batch.partitions)}")
    return [batch.as_json() for batch in found]


@task(**ATTEMPTS)
def late_alerts(batches: list[dict[str, Any]]) -> int:
    """Alerts that would have fired, had what comes back with the batches been good when it came: written down, told to
    nobody. Before they are processed: what is held back there now is what comes back. Where this fails they are
    processed all the same, and `end` fails the run."""
    from etl.late_alerts import write_late_alerts

    keys = [key for batch in batches for key in batch["partitions"]]
    found = write_late_alerts(job_of_task(), run_id_of_task(), keys)
    print(f"alerts that would have fired: {found:,}; `weir quarantine alerts` shows them")
    return found


@validation_task(**ATTEMPTS, trigger_rule="all_done", map_index_template="{{ batch_name }}")
def validate(batch: dict[str, Any]) -> dict[str, Any]:
    """Great Expectations; fails where a partition must not be loaded."""
    job, run_id, named = job_of_task(), run_id_of_task(), _named(batch)
    try:
        return job.validate(run_id, named)
    finally:
        get_current_context()["task"].data_docs = job.data_docs(run_id, named)


@task(**ATTEMPTS, pool="spark", trigger_rule="all_done", map_index_template="{{ batch_name }}")
def load(batch: dict[str, Any]) -> dict[str, Any]:
    """Split, roll up and flag in Spark; replace the partitions in the warehouse."""
    return job_of_task().load(run_id_of_task(), _named(batch))


@task(**ATTEMPTS, trigger_rule="all_done")
def reconcile() -> dict[str, Any]:
    """Do the books balance? Fails the run where they do not, or where a partition did not load."""
    return job_of_task().finish(run_id_of_task())


@task(trigger_rule="none_failed")
def end() -> None:
    """Is reached where nothing failed: that later tasks went well must not hide that one before them did not."""


@task(**ATTEMPTS)
def expire() -> dict[str, dict[str, int]]:
    """Deletes from the warehouse what is older than its type's retention, by event time; rows by type and table. Of
    types that say so the lake's readings expire, too."""
    from etl.retention import expire as remove
    from etl.retention import expire_lake

    job, now = job_of_task(), datetime.now(UTC)
    deleted = remove(job.warehouse, job.catalog, now)
    for type_name, figures in expire_lake(job.lake, job.warehouse, job.catalog, now).items():
        deleted[type_name] |= {f"lake_{name}": number for name, number in figures.items()}
    return deleted


def _named(batch: dict[str, Any]) -> "Batch":
    """The batch; its name shows in Airflow's list of mapped tasks."""
    from etl.discover import Batch

    found = Batch(batch["type"], tuple(batch["partitions"]), batch["rows"])
    more = f" and {len(found.partitions) - 1} more" if len(found.partitions) > 1 else ""
    get_current_context()["batch_name"] = f"{found.partitions[0]}{more}"
    return found
