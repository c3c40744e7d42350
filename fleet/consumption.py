"""Who uses how much: appliances beside the whole home, beside their own past, and beside others of their kind. Pure.

Meters stand behind meters: what a plug counts, the home's meter counts too. So of the types that measure energy at a
site one counts for all of it: that which measured most. Its devices add up to the site's total.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import fmean, median
from typing import NamedTuple, TypeVar

WEEK = timedelta(weeks=1)
MAD_TO_SIGMA = 1.4826
MEAN_TO_SIGMA = 1.2533
"""Of the mean absolute deviation, where most values are alike: of an appliance that runs every other day, say."""
SCORE_LIMIT = 3.5
"""Robust z-scores beyond it are unusual (Iglewicz and Hoaglin, 1993)."""
LEAST_SHARE_MORE = 0.2
"""… if it is so much more than usual, too: an hour that is the same each week deviates by nothing."""
LEAST_WEEKS = 3
"""Before a span, to say what is usual in it."""
LEAST_KNOWN = 0.9
"""Of a week's hours that are meant: it counts as if those that are missing were as the others."""
LEAST_PEERS = 3
NIGHT_HOURS = 5
"""From local midnight, in which standby power is looked for."""
LEAST_NIGHT_MINUTES = 60
STANDBY_QUANTILE = 0.05
"""The median of the lowest tenth is the twentieth from below."""


class Appliance(NamedTuple):
    site: str
    type: str
    device: str


class Used(NamedTuple):
    """What an appliance used in an hour; `local` is the hour's beginning in the site's zone, aware."""

    appliance: Appliance
    local: datetime
    watt_hours: float


S = TypeVar("S", bound=Hashable)
Slot = tuple[int, int]
"""(weekday, hour), local."""


def slot_of(local: datetime) -> Slot:
    return local.weekday(), local.hour


def sums_before(
    meant: Mapping[S, float], past: Iterable[tuple[datetime, float]], start: datetime, period: timedelta,
    slot: Callable[[datetime], S],
) -> list[float]:  # fmt: skip
    """Wh that the hours `meant`, each so many times or such a part of it, took in each period before `start`, of `past`
    (local beginning, Wh). Hours are not looked at one by one: what runs at another hour each week has a median of 0 in
    all of them. Periods of which too little is known are left out."""
    begin, whole = start.replace(tzinfo=None), sum(meant.values())
    sums: dict[int, float] = defaultdict(float)
    known: dict[int, float] = defaultdict(float)
    for local, watt_hours in past:
        weight = meant.get(slot(local))
        if weight and (number := (local.replace(tzinfo=None) - begin) // period) < 0:
            sums[number] += weight * watt_hours
            known[number] += weight
    return [sums[number] * whole / known[number] for number in sums if known[number] >= LEAST_KNOWN * whole]


def totals(hours: Iterable[Used]) -> dict[Appliance, float]:
    found: dict[Appliance, float] = defaultdict(float)
    for used in hours:
        found[used.appliance] += used.watt_hours
    return dict(found)


def counting_types(of: Mapping[Appliance, float]) -> dict[str, str]:
    """Site → the type whose devices add up to all that is used there."""
    measured: dict[tuple[str, str], float] = defaultdict(float)
    for appliance, watt_hours in of.items():
        measured[appliance.site, appliance.type] += watt_hours
    return {site: type_name for (site, type_name), _ in sorted(measured.items(), key=lambda item: (item[1], item[0]))}


@dataclass(frozen=True)
class Hog:
    """Of one appliance in a span. None: not known, as there is too little to compare with."""

    appliance: Appliance
    watt_hours: float
    share: float | None
    """Of the site's total; None where that is 0."""
    usual_watt_hours: float | None
    """The median of what the same weekdays and hours took together in each of the weeks before the span."""
    score: float | None
    """How many deviations above that (median absolute deviations, as standard deviations)."""
    peers_watt_hours: float | None
    """The median of the others of its kind."""
    peers_score: float | None
    standby_watts: float | None

    @property
    def is_unusual(self) -> bool:
        return _beyond(self.watt_hours, self.usual_watt_hours, self.score)

    @property
    def is_above_peers(self) -> bool:
        return _beyond(self.watt_hours, self.peers_watt_hours, self.peers_score)

    @property
    def verdict(self) -> str:
        said = []
        if self.is_unusual:
            said.append(f"{_times(self.watt_hours, self.usual_watt_hours)} its usual")
        if self.is_above_peers:
            said.append(f"{_times(self.watt_hours, self.peers_watt_hours)} its peers")
        return ", ".join(said)


def hogs(
    hours: Sequence[Used], before: Iterable[Used], standby_watts: Mapping[Appliance, float],
    kinds: Mapping[Appliance, str] | None = None,
) -> list[Hog]:  # fmt: skip
    """The greatest share first, site by site. `before` are hours before the span, by which usual is meant. A meter that
    alone counts for its site is no appliance where others are measured behind it, and is left out. `kinds`: which
    appliance each is (fleet.meter.kind_of); where it is not known it has no peers. None: a type is of one kind."""
    used = totals(hours)
    counting = counting_types(used)
    of_site: dict[str, float] = defaultdict(float)
    for appliance, watt_hours in used.items():
        if counting[appliance.site] == appliance.type:
            of_site[appliance.site] += watt_hours
    usual, peers = _usual(hours, before), _beside_peers(used, dict.fromkeys(used, "") if kinds is None else kinds)
    found = []
    for appliance, watt_hours in used.items():
        if _is_whole(appliance, used, counting):
            continue
        whole, own, others = of_site[appliance.site], usual.get(appliance), peers.get(appliance)
        found.append(
            Hog(
                appliance, watt_hours, watt_hours / whole if whole else None,
                own[0] if own else None, own[1] if own else None,
                others[0] if others else None, others[1] if others else None, standby_watts.get(appliance),
            )
        )  # fmt: skip
    return sorted(found, key=lambda hog: (hog.appliance.site, -hog.watt_hours, hog.appliance))


def _is_whole(appliance: Appliance, used: Mapping[Appliance, float], counting: Mapping[str, str]) -> bool:
    there = [other for other in used if other.site == appliance.site]
    alike = [other for other in there if other.type == appliance.type]
    return counting[appliance.site] == appliance.type and alike == [appliance] != there


def _usual(hours: Sequence[Used], before: Iterable[Used]) -> dict[Appliance, tuple[float, float]]:
    """Usual Wh and score of those of which enough weeks are known."""
    past: dict[Appliance, list[tuple[datetime, float]]] = defaultdict(list)
    for one in before:
        past[one.appliance].append((one.local, one.watt_hours))
    meant: dict[Appliance, dict[Slot, float]] = defaultdict(lambda: defaultdict(float))
    for used in hours:
        meant[used.appliance][slot_of(used.local)] += 1
    start = min((used.local.replace(tzinfo=None) for used in hours), default=datetime.min)
    found = {}
    for appliance, watt_hours in totals(hours).items():
        weeks = sums_before(meant[appliance], past[appliance], start, WEEK, slot_of)
        if len(weeks) >= LEAST_WEEKS:
            usual, sigma = _median_and_sigma(weeks)
            found[appliance] = usual, _score(watt_hours, usual, sigma)
    return found


def _beside_peers(
    used: Mapping[Appliance, float], kinds: Mapping[Appliance, str]
) -> dict[Appliance, tuple[float, float]]:
    by_kind: dict[tuple[str, str], list[Appliance]] = defaultdict(list)
    for appliance in used:
        if appliance in kinds:
            by_kind[appliance.type, kinds[appliance]].append(appliance)
    found = {}
    for alike in by_kind.values():
        for appliance in alike if len(alike) > LEAST_PEERS else ():
            usual, sigma = _median_and_sigma([used[other] for other in alike if other != appliance])
            found[appliance] = usual, _score(used[appliance], usual, sigma)
    return found


def _median_and_sigma(values: Sequence[float]) -> tuple[float, float]:
    middle = median(values)
    off = [abs(value - middle) for value in values]
    return middle, MAD_TO_SIGMA * median(off) or MEAN_TO_SIGMA * fmean(off)


def _score(value: float, usual: float, sigma: float) -> float:
    """Where all are alike, a hundredth of them, or 1 Wh, counts as a deviation: it is measured no better."""
    return (value - usual) / max(sigma, usual / 100, 1.0)


def _beyond(value: float, usual: float | None, score: float | None) -> bool:
    if usual is None or score is None:
        return False
    return score > SCORE_LIMIT and value > usual * (1 + LEAST_SHARE_MORE)


def _times(value: float, usual: float | None) -> str:
    return f"{value / usual:.1f} times" if usual else "more than"
