"""The last task of the DAG parity_nightly: which differences fail its run."""

import json
import os
import subprocess
import sys
from pathlib import Path

from fleet.settings import CHECKOUT

# Who imports Airflow gets its files and its logging: it has a process and a home of its own.
PROGRAM = """
import json, sys
from fleet.errors import DataError
from plugins.parity_tasks import verdict

for audits in json.load(sys.stdin):
    try:
        said = verdict.function(audits)
    except DataError as error:
        said = str(error)
    print(json.dumps(said))
"""
WELL = {"system": "weather", "causes": {}}
EXPLAINED = {"system": "lab", "causes": {"hole": 3, "expired": 1}}
WRONG = {"system": "home", "causes": {"hole": 3, "unknown": 2, "unread": 1}}


def test_what_is_not_explained_fails_the_run_and_nothing_else(tmp_path: Path) -> None:
    asked = [], [WELL, EXPLAINED], [WELL, WRONG, EXPLAINED]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps(asked), env={**os.environ, "AIRFLOW_HOME": str(tmp_path)},
        cwd=CHECKOUT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    nothing, well, wrong = map(json.loads, done.stdout.splitlines()[-3:])
    assert (nothing, well) == (None, None)
    assert "{'home': {'unknown': 2, 'unread': 1}}" in wrong
    assert "parity_differences" in wrong
