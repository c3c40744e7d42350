"""Small files of the lake become few, and what nobody reads any more is deleted. What it does is in
`etl/compaction.py` and `etl/lake_tidy.py`; `weir lake compact` does the same."""

from airflow.sdk import Param, dag

from plugins.lake_tasks import compact, tidy
from plugins.sensor_tasks import ONE_AT_A_TIME, at, systems


@dag(
    schedule=at("50 2 * * *"),
    doc_md=__doc__,
    params={
        "system": Param("all", enum=["all", *systems(), "rejected"], description="Whose files; rejected: dead letters")
    },
    **ONE_AT_A_TIME,
)
def compact_nightly() -> None:
    compact() >> tidy()


compact_nightly()
