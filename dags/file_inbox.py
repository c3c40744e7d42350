"""Files of readings that were dropped in the inbox go where readings go. What it does is in `etl/inbox.py`; `weir inbox
take` does the same."""

from airflow.sdk import dag

from plugins.inbox_tasks import take
from plugins.sensor_tasks import ONE_AT_A_TIME, at


@dag(schedule=at("*/5 * * * *"), doc_md=__doc__, **ONE_AT_A_TIME)
def file_inbox() -> None:
    take()


file_inbox()
