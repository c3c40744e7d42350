"""Each model of `fleet/model.py` is trained on what is loaded, promoted if it is better, and its champion estimates.
What each step does is in `etl/retrain.py`; `weir models retrain` and `weir models score` do the same."""

from airflow.sdk import dag, task_group

from fleet.model import MODELS
from plugins.model_tasks import retrain, score
from plugins.sensor_tasks import ONE_AT_A_TIME, at, end


@dag(schedule=at("10 3 * * *"), doc_md=__doc__, **ONE_AT_A_TIME)
def retrain_nightly() -> None:
    @task_group
    def model(name):  # type: ignore[no-untyped-def]
        trained, estimated = retrain(name), score(name)
        trained >> estimated >> (last := end())
        trained >> last

    model.expand(name=list(MODELS))


retrain_nightly()
