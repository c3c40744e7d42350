"""Are the alerts that were published what the rules say of the landed log? Asked every night of the day before. What
each step does is in `etl/parity.py`; `weir rules parity` does the same."""

from airflow.sdk import Param, dag

from plugins.parity_tasks import audit, systems_to_audit, verdict
from plugins.sensor_tasks import ONE_AT_A_TIME, RANGE, at, systems

EVERY = {"type": ["null", "string"]}


@dag(
    schedule=at("40 2 * * *"),
    doc_md=__doc__,
    params={
        "system": Param("all", enum=["all", *systems()], description="Which system's alerts"),
        "from": Param(None, **EVERY, description=f"Instead of yesterday, from then on: {RANGE}"),
        "to": Param(None, **EVERY, description=f"And before then, or two minutes ago: {RANGE}"),
    },
    **ONE_AT_A_TIME,
)
def parity_nightly() -> None:
    verdict(audit.expand(system=systems_to_audit()))


parity_nightly()
