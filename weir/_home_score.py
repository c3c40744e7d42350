"""How well the home's rules tell of what went wrong in simulated homes: through the evaluator alone, no servers."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from heapq import merge
from multiprocessing import get_context
from typing import Any

import numpy as np

from fleet.backtest import Arrival, Episode, Truth, episodes, transitions
from fleet.catalog import Catalog, load_catalog
from fleet.control import Device
from fleet.energy import HOUR_US
from fleet.meter import meter_of
from fleet.reading import Reading
from fleet.settings import Settings
from simulators.home import shown
from simulators.home_batch import Counted, home_readings
from simulators.homes import Town, sent
from simulators.household import DEVICES, SYSTEM, WHOLE, device_id, sites
from simulators.incidents import Schedule, Told
from simulators.routine import HOUR
from weir._table import aligned

SAMPLED = 600.0
"""Seconds between what a meter said before the run, as the batch knows it; rules hear of one an hour."""
JUST_BEFORE = 10.0
"""Before the full hour: what is counted of a day begins with the last value before midnight."""


@dataclass
class Score:
    """Of one rule. `true` and `false`: alerts that tell of something true, and of nothing. `told` and `missed`: what is
    true, by whether an alert told of it."""

    true: int = 0
    false: int = 0
    told: int = 0
    missed: int = 0

    def add(self, other: "Score") -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def precision(self) -> float | None:
        return self.true / (self.true + self.false) if self.true + self.false else None

    @property
    def recall(self) -> float | None:
        return self.told / (self.told + self.missed) if self.told + self.missed else None


@dataclass
class Scored:
    readings: int = 0
    incidents: dict[str, int] = field(default_factory=dict)
    rules: dict[str, Score] = field(default_factory=dict)
    kinds: dict[str, Score] = field(default_factory=dict)
    """By kind of incident: whether any of its alerts told of it."""


def rules_of(catalog: Catalog) -> list[str]:
    """All of the system: of each the truth says something, of some that of more than one type."""
    return list(dict.fromkeys(rule.id for spec in catalog.systems[SYSTEM].types for rule in spec.alerts))


def scored(town: Town, processes: int = 2) -> Scored:
    """Homes know nothing of each other, so they are spread over processes; the result is the same for any number."""
    planned = town.schedule()
    found = Scored(incidents=planned.counts())
    numbers = range(town.homes)
    if processes > 1 and town.homes > 1:
        with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
            parts = list(pool.map(_home, [town] * town.homes, [planned] * town.homes, numbers))
    else:
        parts = [_home(town, planned, number) for number in numbers]
    for part in parts:
        found.readings += part.readings
        for ours, theirs in ((found.rules, part.rules), (found.kinds, part.kinds)):
            for name, score in theirs.items():
                ours.setdefault(name, Score()).add(score)
    return found


def _home(town: Town, planned: Schedule, number: int) -> Scored:
    catalog = load_catalog(Settings.load().types_dir)
    said, count = said_of(town, planned, number, catalog)
    result = Scored(count)
    site = sites(town.homes)[number]
    told = [_truth(town, site, one) for one in town.truth(number, planned, with_past=True)]
    for rule in rules_of(catalog):
        truths = [truth for truth in told if truth.rules == {rule}]
        result.rules[rule] = score_of([episode for episode in said if episode.rule == rule], truths)
    for incident in planned.of(number):
        if incident.told:
            truths = [_truth(town, site, one) for one in incident.told]
            is_told = any(tells(episode, truth) for truth in truths for episode in said)
            result.kinds.setdefault(incident.kind, Score()).add(Score(told=is_told, missed=not is_told))
    return result


def said_of(town: Town, planned: Schedule, number: int, catalog: Catalog) -> tuple[list[Episode], int]:
    """A home's alerts within the run, and how many readings rules have seen for them: those of the weeks before, of
    meters alone and one an hour, among them. Types without a rule that no rule looks at are left out."""
    site = sites(town.homes)[number]
    specs = catalog.systems[SYSTEM].types
    seen = {spec.type for spec in specs if spec.alerts} | {"outdoor_station"}
    registry = [
        Device(
            revision=0, at=town.first_us // 1000, type=placed.type, device=placed.device_id(site), site=site,
            registered_at=town.first_us // 1000, params=placed.params,
        )
        for placed in (*DEVICES, WHOLE)
    ]  # fmt: skip
    until_us = town.first_us + town.span_us
    meters = _meters(town, planned, number, catalog)
    readings = merge(
        _before(town, site, meters, catalog),
        sent(town, [town.home(number, planned)], catalog, True, seen.__contains__),
        home_readings(catalog, site, meters, town.first_us, until_us),
        key=lambda item: item[0],
    )
    counted = _Counted()
    arrivals = (Arrival(reading, offset, due_us) for offset, (due_us, reading) in enumerate(counted.of(readings)))
    found = episodes(transitions(0, specs, registry, arrivals, until_us))
    return [episode for episode in found if episode.fired_us >= town.first_us], counted.count


def _meters(town: Town, planned: Schedule, number: int, catalog: Catalog) -> list[Counted]:
    """All that they say in the run, and each ten minutes of the weeks before."""
    home, (begin, end) = town.home(number, planned), town.span
    past = town.energy(home, with_past=True)
    before = past.end <= begin
    sampled = before & (past.end % SAMPLED == SAMPLED - JUST_BEFORE)
    at_us = town.origin_us + np.round(past.end[sampled] * 1e6).astype(np.int64)
    found = []
    for place, placed in enumerate(DEVICES):
        if meter_of(catalog.type(placed.type)):
            total = np.cumsum(past.watt_hours[placed.name][before])
            counter = shown(placed.type, (home.counted[place] + total - total[-1])[sampled[before]])
            found.append(Counted(placed.type, placed.device_id(home.site), at_us, at_us, counter))
    is_meter = {one.type for one in found}.__contains__
    for hour in range(int(begin // HOUR), int(-(-end // HOUR))):
        for placed, due_us, event_us, _, values in home.hour(hour, is_meter):
            counter = values[_counter_of(catalog, placed.type)]
            found.append(Counted(placed.type, placed.device_id(home.site), due_us, event_us, counter))
    return found


def _before(town: Town, site: str, meters: list[Counted], catalog: Catalog) -> Iterator[tuple[int, Reading]]:
    """One an hour, of the weeks before the run."""
    rows = []
    for one in meters:
        name, version = _counter_of(catalog, one.type), catalog.type(one.type).version
        kept = (one.due_us < town.first_us) & (one.due_us % HOUR_US == HOUR_US - round(JUST_BEFORE * 1e6))
        for at, counter in zip(one.due_us[kept].tolist(), one.counter[kept].tolist(), strict=True):
            rows.append((at, Reading(one.device, one.type, site, at, {name: counter}, None, version)))
    return iter(sorted(rows, key=lambda row: row[0]))


def _counter_of(catalog: Catalog, type_name: str) -> str:
    meter = meter_of(catalog.type(type_name))
    assert meter is not None
    return meter.metric


class _Counted:
    count = 0

    def of(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            self.count += 1
            yield item


def _truth(town: Town, site: str, told: Told) -> Truth:
    return Truth(device_id(site, told.device), town.micros(told.begin), town.micros(told.end), frozenset({told.rule}))


def tells(episode: Episode, truth: Truth) -> bool:
    """Whether it began to while the truth lasts: one that fired before and is active still tells nobody anything."""
    return truth.is_told_by(episode) and episode.fired_us >= truth.begin_us


def score_of(found: Sequence[Episode], truths: Sequence[Truth]) -> Score:
    true = sum(any(tells(episode, truth) for truth in truths) for episode in found)
    told = sum(any(tells(episode, truth) for episode in found) for truth in truths)
    return Score(true, len(found) - true, told, len(truths) - told)


def as_object(found: Scored) -> dict[str, Any]:
    return {
        "readings": found.readings,
        "incidents": {
            kind: {"count": count, "recall": found.kinds[kind].recall if kind in found.kinds else None}
            for kind, count in found.incidents.items()
        },
        "rules": {
            rule: {
                "precision": score.precision, "recall": score.recall, "tp": score.true, "fp": score.false,
                "fn": score.missed,
            }
            for rule, score in found.rules.items()
        },
    }  # fmt: skip


def as_lines(found: Scored) -> Iterator[str]:
    yield f"{found.readings:,} readings; " + ", ".join(f"{kind} {n}" for kind, n in found.incidents.items())
    head = ("rule", "precision", "recall", "tp", "fp", "fn")
    rows = [
        (rule, _share(s.precision), _share(s.recall), f"{s.true:,}", f"{s.false:,}", f"{s.missed:,}")
        for rule, s in found.rules.items()
    ]
    yield from aligned([head, *rows])


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
