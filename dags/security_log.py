"""Doors, motion, smoke, tampering, coming and going, alerts: what happened is written down, with who was at home,
before `readings` forget it. What it does is in `etl/security_log.py`; `weir events` shows it."""

from airflow.sdk import Param, dag

from plugins.security_tasks import keep
from plugins.sensor_tasks import ONE_AT_A_TIME, RANGE, at

EVERY = {"type": ["null", "string"]}


@dag(
    schedule=at("*/10 * * * *"),
    doc_md=__doc__,
    params={
        "from": Param(None, **EVERY, description=f"Written anew from then on, where readings still are: {RANGE}"),
        "to": Param(None, **EVERY, description=f"And before then: {RANGE}"),
    },
    **ONE_AT_A_TIME,
)
def security_log() -> None:
    keep()


security_log()
