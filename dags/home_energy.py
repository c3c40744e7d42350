"""What each home has used today and this month, and is forecast to: told to the rules as readings of `home_energy`,
five minutes after sensor_etl begins. What it does is in `etl/home_energy.py`; `weir energy forecast --publish` does the
same."""

from airflow.sdk import dag

from plugins.energy_tasks import publish
from plugins.sensor_tasks import ONE_AT_A_TIME, at


@dag(schedule=at("5-59/15 * * * *"), doc_md=__doc__, **ONE_AT_A_TIME)
def home_energy() -> None:
    publish()


home_energy()
