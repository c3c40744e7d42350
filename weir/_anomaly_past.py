"""What devices said on the days before, where there is no warehouse: as etl.history has it, from the kernel's hours."""

from collections.abc import Iterable
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.kernel import Past
from fleet.anomaly import LEAST_DAYS, TRIM, with_room

DAY_US = 86_400_000_000


def past_of(rollups: pa.Table, days: Iterable[datetime], reach: timedelta) -> Past:
    """Of each of the days (midnights), by the days up to `reach` before it."""
    hours = rollups.filter(pc.equal(rollups["grain"], "1h"))
    series = hours.group_by(["metric", "device_id"]).aggregate([(name, "list") for name in ("bucket", "min", "max")])
    found = {}
    for row in series.to_pylist():
        bucket = np.array([round(at.timestamp()) * 1_000_000 for at in row["bucket_list"]])
        low, high = np.array(row["min_list"]), np.array(row["max_list"])
        for day in days:
            day_us = round(day.timestamp()) * 1_000_000
            before = (bucket < day_us) & (bucket >= day_us - reach // timedelta(microseconds=1))
            if len(np.unique(bucket[before] // DAY_US)) >= LEAST_DAYS:
                limits = (np.quantile(low[before], TRIM, method="inverted_cdf"),
                          np.quantile(high[before], 1 - TRIM, method="inverted_cdf"))  # fmt: skip
                found[row["metric"], row["device_id"], day_us] = with_room(*map(float, limits))
    return found
