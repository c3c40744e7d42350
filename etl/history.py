"""What devices said on the days before, from the hours in the warehouse: the limits of what is `unseen`.

They end with the day before the folder's own, so that nothing of the day decides about itself, and all folders of a day
share them. What is in the warehouse when a run begins is what is known: days that one run loads together do not know
of each other, and a later run of the same folder may know more.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from connections.warehouse import Warehouse
from etl.kernel import Past
from etl.lake_index import PartitionFiles
from fleet.anomaly import LEAST_DAYS, TRIM, with_room
from fleet.spec import DeviceType

SEEN = """\
SELECT metric, device_id, percentile_disc(:trim) WITHIN GROUP (ORDER BY min) AS low,
       percentile_disc(1 - :trim) WITHIN GROUP (ORDER BY max) AS high
  FROM rollups
 WHERE type = :type AND metric = ANY(:metrics) AND grain = '1h' AND bucket >= :begin AND bucket < :day
 GROUP BY metric, device_id
HAVING count(DISTINCT date_trunc('day', bucket)) >= :least"""


def past(warehouse: Warehouse, spec: DeviceType, partitions: Iterable[PartitionFiles]) -> Past:
    """Of each day on which one of the partitions begins. Empty, and nothing is asked, where no metric has a history."""
    found: dict[tuple[str, str, int], tuple[float, float]] = {}
    by_reach: dict[timedelta, list[str]] = {}
    for name, metric in spec.metrics.items():
        if metric.history:
            by_reach.setdefault(metric.history, []).append(name)
    days = sorted({p.partition.start.replace(hour=0) for p in partitions}) if by_reach else []
    for day in days:
        micros = (day - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        for reach, metrics in by_reach.items():
            rows = warehouse.rows(SEEN, trim=TRIM, type=spec.type, metrics=metrics, begin=day - reach, day=day,
                                  least=LEAST_DAYS)  # fmt: skip
            found |= {(r["metric"], r["device_id"], micros): with_room(r["low"], r["high"]) for r in rows}
    return found
