"""Each model of `fleet/model.py` is trained on what is loaded, promoted if it is better, and its champion estimates.
What each step does is in `etl/retrain.py`; `weir models retrain` and `weir models score` do the same."""

from datetime import UTC, datetime, timedelta

from airflow.sdk import dag, task_group

from fleet.model import MODELS
from plugins.model_tasks import retrain, score


@dag(
    schedule="40 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=6),
    tags=["weir"],
    doc_md=__doc__,
)
def retrain_nightly() -> None:
    @task_group
    def model(name):  # type: ignore[no-untyped-def]
        retrain(name) >> score(name)

    model.expand(name=list(MODELS))


retrain_nightly()
