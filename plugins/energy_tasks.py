"""What homes use, as an Airflow task. What it does is in `etl/home_energy.py`, imported when the task runs."""

from datetime import UTC, datetime

from airflow.sdk import task

from plugins.sensor_tasks import ATTEMPTS, job_of_task


@task(**ATTEMPTS)
def publish() -> dict[str, dict[str, float | None]]:
    """Site → what was told of it, in kWh."""
    from etl.home_energy import publish as tell

    found = tell(job_of_task(), datetime.now(UTC))
    for home in found:
        print(f"{home.site}: day: {home.day.explanation}; month: {home.month.explanation}")
    return {home.site: home.values for home in found}
