"""Files of readings that were dropped in the inbox go where readings go. What it does is in `etl/inbox.py`; `weir inbox
take` does the same."""

from datetime import UTC, datetime, timedelta

from airflow.sdk import dag

from plugins.inbox_tasks import take


@dag(
    schedule="*/5 * * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=6),
    tags=["weir"],
    doc_md=__doc__,
)
def file_inbox() -> None:
    take()


file_inbox()
