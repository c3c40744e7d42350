"""A model's night as Airflow tasks. What they do is in `etl/retrain.py`, which is imported when a task runs."""

from datetime import UTC, datetime
from typing import Any

from airflow.sdk import get_current_context, task

from plugins.sensor_tasks import ATTEMPTS, job_of_task

NAMED = "{{ model_name }}"


@task(**ATTEMPTS, pool="spark", map_index_template=NAMED)
def retrain(name: str) -> dict[str, Any]:
    """Train on what is loaded; promote what is better than the champion and the baselines. Too little data is no
    failure."""
    from dataclasses import asdict

    from etl.retrain import retrain as train_anew

    get_current_context()["model_name"] = name
    outcome = train_anew(job_of_task(), name, datetime.now(UTC))
    print(outcome.said)
    return asdict(outcome)


@task(**ATTEMPTS, pool="spark", map_index_template=NAMED, trigger_rule="all_done")
def score(name: str) -> dict[str, Any]:
    """The champion estimates what it was not trained on, also when nothing new could be trained."""
    from dataclasses import asdict

    from etl.retrain import score_model

    get_current_context()["model_name"] = name
    outcome = score_model(job_of_task(), name, datetime.now(UTC))
    print(outcome.said)
    return asdict(outcome)
