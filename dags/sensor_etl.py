"""Landed readings → validated tables. What each step does is in `etl/run.py`; `weir etl run` does the same."""

from airflow.sdk import Param, dag, task_group

from plugins.sensor_tasks import (
    ONE_AT_A_TIME,
    RANGE,
    discover,
    end,
    late_alerts,
    load,
    reconcile,
    schedule,
    systems,
    validate,
)


@dag(
    schedule=schedule(),
    doc_md=__doc__,
    params={
        "system": Param("all", enum=["all", *systems()], description="Which system's readings"),
        "from": Param(None, type=["null", "string"], description=f"Only partitions from then on: {RANGE}"),
        "to": Param(None, type=["null", "string"], description=f"Only partitions before then: {RANGE}"),
        "force": Param(False, type="boolean", description="Also partitions that did not change"),
    },
    **ONE_AT_A_TIME,
)
def sensor_etl() -> None:
    @task_group
    def process(batch):  # type: ignore[no-untyped-def]
        # A batch whose validation failed still loads its other partitions; reconcile fails the run for the one.
        validate(batch) >> load(batch)

    found = discover()
    late = late_alerts(found)
    late >> process.expand(batch=found) >> (books := reconcile())
    [late, books] >> end()


sensor_etl()
