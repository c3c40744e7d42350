"""What is older than its type's `retention` leaves the warehouse once a day. The lake keeps all of it, but for readings
of types with a `retention.lake`. The same without Airflow: `weir etl expire`."""

from airflow.sdk import dag

from plugins.sensor_tasks import ONE_AT_A_TIME, at, expire


@dag(schedule=at("20 2 * * *"), doc_md=__doc__, **ONE_AT_A_TIME)
def retention() -> None:
    expire()


retention()
