"""Airflow imports this by its name in each of its processes, before it starts anything.

The scheduler forks a process for each task. What it has imported the tasks need not: Great Expectations alone takes
3 seconds of a core. Weir's own modules are left to the tasks, so that a changed one holds from the next run on.
"""

import importlib
import sys

OF_TASKS = (
    "great_expectations.expectations.core", "kafka", "pandas", "psycopg2", "pyarrow.compute", "pyarrow.dataset",
    "pyarrow.parquet", "pydantic", "pyspark.cloudpickle", "pyspark.sql.connect.functions",
    "pyspark.sql.connect.session", "sqlalchemy.dialects.postgresql.psycopg2", "yaml",
)  # fmt: skip

if sys.argv[1:2] == ["scheduler"]:
    for name in OF_TASKS:
        importlib.import_module(name)

__all__: list[str] = []
