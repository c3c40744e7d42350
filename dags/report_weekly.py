"""A PDF of last week: a page of all systems, and of each its key findings and how Weir performed. What it does is in
`etl/report.py`; `weir report` does the same. It is written to `var/reports/`."""

from airflow.sdk import Param, dag

from plugins.report_tasks import write
from plugins.sensor_tasks import ONE_AT_A_TIME, RANGE, at, systems

EVERY = {"type": ["null", "string"]}


@dag(
    schedule=at("10 5 * * mon"),
    doc_md=__doc__,
    params={
        "system": Param("all", enum=["all", *systems()], description="Which system's pages"),
        "from": Param(None, **EVERY, description=f"Instead of last week, from then on: {RANGE}"),
        "to": Param(None, **EVERY, description=f"And before then, or now: {RANGE}"),
    },
    **ONE_AT_A_TIME,
)
def report_weekly() -> None:
    write()


report_weekly()
