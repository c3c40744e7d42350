"""Where the real recordings are: TEST_DATA, else `shared/data` beside the checkout. Tests skip without them."""

import os
from pathlib import Path

import pytest

from fleet.settings import CHECKOUT

FOLDER = Path(os.environ.get("TEST_DATA") or CHECKOUT.parent / "shared" / "data")
OCCUPANCY = FOLDER / "room-occupancy-estimation" / "Occupancy_Estimation.csv"
needs_occupancy = pytest.mark.skipif(not OCCUPANCY.is_file(), reason=f"the occupancy recording is not at {OCCUPANCY}")
