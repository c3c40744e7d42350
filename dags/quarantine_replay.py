"""What was quarantined and is good by today's specs and registry goes where it belongs. What each step does is in
`etl/replay.py` and `etl/run.py`; `weir quarantine replay` does the same."""

from airflow.sdk import Param, dag, task_group

from plugins.replay_tasks import discover, landed, replay
from plugins.sensor_tasks import ONE_AT_A_TIME, RANGE, end, late_alerts, load, reconcile, systems, validate

EVERY = {"type": ["null", "string"]}


@dag(
    schedule=None,
    doc_md=__doc__,
    params={
        "system": Param("all", enum=["all", *systems()], description="What of which system"),
        "type": Param(None, **EVERY, description="Of one device type alone"),
        "reason": Param(None, **EVERY, description="Held back for this reason alone, such as unknown_metric"),
        "device": Param(None, **EVERY, description="Of one device alone"),
        "metric": Param(None, **EVERY, description="Values of one metric alone"),
        "from": Param(None, **EVERY, description=f"Only what is from then on: {RANGE}"),
        "to": Param(None, **EVERY, description=f"Only what is before then: {RANGE}"),
        "dry_run": Param(False, type="boolean", description="Say in the log of `replay` what would come back, no more"),
    },
    **ONE_AT_A_TIME,
)
def quarantine_replay() -> None:
    @task_group
    def process(batch):  # type: ignore[no-untyped-def]
        validate(batch) >> load(batch)

    back = replay()
    landed(back) >> (found := discover(back))
    late = late_alerts(found)
    late >> process.expand(batch=found) >> (books := reconcile())
    [late, books] >> end()


quarantine_replay()
