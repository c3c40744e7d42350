"""The report as an Airflow task. What it does is in `etl/report.py`, imported when it runs."""

from datetime import UTC, datetime

from airflow.sdk import task

from plugins.sensor_tasks import ATTEMPTS, asked_params, job_of_task


@task(**ATTEMPTS)
def write() -> str:
    """Where the PDF is."""
    from etl.report import figures, file_of, span_of
    from etl.report import write as written

    job, params = job_of_task(), asked_params()
    window = span_of(params["from"], params["to"], datetime.now(UTC))
    names = job.catalog.systems if params["system"] == "all" else [params["system"]]
    found = figures(job.warehouse, [job.catalog.system(name) for name in names], window)
    file = file_of(job.settings, window)
    pages = written(job.settings, found, file)
    print(f"{file}: {pages} pages")
    return str(file)
