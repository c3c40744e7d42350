"""Where the real recordings are: in the folder that WEIR_DATA_DIR names. Tests skip without them."""

import pytest

from fleet.settings import Settings

FOLDER = Settings.load().data_dir
OCCUPANCY = FOLDER / "room-occupancy-estimation" / "Occupancy_Estimation.csv"
needs_occupancy = pytest.mark.skipif(not OCCUPANCY.is_file(), reason=f"the occupancy recording is not at {OCCUPANCY}")
NAB = FOLDER / "nab"
needs_nab = pytest.mark.skipif(not NAB.is_dir(), reason=f"the benchmark's recording is not at {NAB}")
HOUSEHOLD = FOLDER / "household-power" / "household_power_2006-12-16_2007-01-19.csv.gz"
needs_household = pytest.mark.skipif(not HOUSEHOLD.is_file(), reason=f"the household's recording is not at {HOUSEHOLD}")
APPLIANCES = FOLDER / "appliances-energy" / "energydata_complete.csv.gz"
needs_appliances = pytest.mark.skipif(not APPLIANCES.is_file(), reason=f"the house's recording is not at {APPLIANCES}")
HOME = FOLDER / "home-activity"
needs_home = pytest.mark.skipif(not HOME.is_dir(), reason=f"the recordings of homes are not at {HOME}")
