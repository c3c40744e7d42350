"""What the batch would say of simulated homes, by its own functions and without its servers: energy by the hour, and
each quarter of an hour the readings of `home_energy`."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from fleet.catalog import Catalog
from fleet.consumption import Appliance, Used
from fleet.energy import HOUR_US, IMPLAUSIBLE, attribute, in_order, intervals
from fleet.home_energy import Home, Loaded, home_energies
from fleet.meter import meter_of
from fleet.reading import Reading, to_datetime
from fleet.spec import DeviceType
from fleet.text import Doubles, Ints
from simulators.household import WHOLE

QUARTER_US, LATER_US = HOUR_US // 4, HOUR_US // 12
"""By dags/: sensor_etl begins each quarter of an hour, home_energy so much later."""
UTC = ZoneInfo("UTC")


class Counted(NamedTuple):
    """Some of what one meter said. `due_us`: when it was sent."""

    type: str
    device: str
    due_us: Ints
    event_us: Ints
    counter: Doubles


class Batch:
    """The meters of one type at a site."""

    def __init__(self, site: str, spec: DeviceType, said: Sequence[Counted]):
        meter = meter_of(spec)
        assert meter is not None
        names = {one.device: place for place, one in enumerate(said)}
        series = np.concatenate([np.full(len(one.due_us), names[one.device]) for one in said])
        due, event, counter = (
            np.concatenate([getattr(one, name) for one in said]) for name in ("due_us", "event_us", "counter")
        )
        values = in_order(series, event, counter, np.zeros(len(series), np.int64))
        between, later = intervals(values)
        shares, gaps = attribute(between, meter)
        heard = due[values.place[later]]
        order = np.argsort(heard[shares.interval], kind="stable")
        self.home: Home = (site, spec.type)
        self._appliance = Appliance(site, spec.type, "")
        self._heard, self._watt_hours = heard[shares.interval][order], shares.watt_hours[order]
        hours, self._hour = np.unique(shares.hour_us[order], return_inverse=True)
        self._begins = [to_datetime(hour_us).astimezone(UTC) for hour_us in hours.tolist()]
        kept = gaps.reason != IMPLAUSIBLE
        self._gaps = list(
            zip(
                heard[gaps.interval][kept].tolist(), between.begin_us[gaps.interval][kept].tolist(),
                gaps.watt_hours[kept].tolist(), strict=True,
            )
        )  # fmt: skip
        self._due, self._last = np.sort(due), np.maximum.accumulate(event[np.argsort(due, kind="stable")])

    def hours(self, until_us: int) -> Iterator[Used]:
        """Of what was sent until then."""
        rows = slice(int(np.searchsorted(self._heard, until_us, "right")))
        hour = self._hour[rows]
        sums = np.bincount(hour, self._watt_hours[rows], len(self._begins)).tolist()
        for place in np.flatnonzero(np.bincount(hour, minlength=len(self._begins))).tolist():
            yield Used(self._appliance, self._begins[place], sums[place])

    def gaps(self, until_us: int) -> list[tuple[datetime, float]]:
        return [(to_datetime(begin), watt_hours) for heard, begin, watt_hours in self._gaps if heard <= until_us]

    def known_to(self, until_us: int) -> datetime | None:
        place = int(np.searchsorted(self._due, until_us, "right"))
        return to_datetime(int(self._last[place - 1])) if place else None


def home_readings(
    catalog: Catalog, site: str, said: Sequence[Counted], begin_us: int, end_us: int
) -> Iterator[tuple[int, Reading]]:
    """(when it is sent, reading) of `home_energy`."""
    version = catalog.type(WHOLE.type).version
    types = sorted({one.type for one in said})
    batches = [Batch(site, catalog.type(name), [one for one in said if one.type == name]) for name in types]
    for quarter_us in range(-(-begin_us // QUARTER_US) * QUARTER_US, end_us - LATER_US, QUARTER_US):
        known = {batch.home: at for batch in batches if (at := batch.known_to(quarter_us))}
        hours = [used for batch in batches for used in batch.hours(quarter_us)]
        now_us = quarter_us + LATER_US
        gaps = {batch.home: batch.gaps(quarter_us) for batch in batches}
        for home in home_energies(Loaded(hours, gaps, known), to_datetime(now_us)):
            yield now_us, Reading(site, WHOLE.type, site, now_us, home.values, None, version)
