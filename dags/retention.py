"""What is older than its type's `retention` leaves the warehouse once a day; the lake keeps all of it. The same without
Airflow: `weir etl expire`."""

from datetime import UTC, datetime, timedelta

from airflow.sdk import dag

from plugins.sensor_tasks import expire


@dag(
    schedule="20 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=6),
    tags=["weir"],
    doc_md=__doc__,
)
def retention() -> None:
    expire()


retention()
