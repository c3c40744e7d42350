"""Great Expectations as it is once it has worked, for processes that are made from one that loads this."""

import tempfile
from pathlib import Path

from etl.great_expectations_site import Validator

with tempfile.TemporaryDirectory() as folder:
    Validator(Path(folder))
