"""How well the home's rules tell of what went wrong in simulated homes: through the evaluator alone, no servers."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

from fleet.backtest import Arrival, Episode, Truth, episodes, transitions
from fleet.catalog import Catalog, load_catalog
from fleet.control import Device
from fleet.settings import Settings
from simulators.homes import Town, sent
from simulators.household import DEVICES, SYSTEM, sites
from simulators.incidents import RULES, Schedule, Told
from weir._table import aligned


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
    rules: dict[str, Score] = field(default_factory=lambda: {rule: Score() for rule in RULES})
    kinds: dict[str, Score] = field(default_factory=dict)
    """By kind of incident: whether any of its alerts told of it."""


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
    told = list(town.truth(number, planned))
    site = sites(town.homes)[number]
    for rule in RULES:
        truths = [truth for one in told if one.rule == rule for truth in [_truth(town, site, one)]]
        of_rule = [episode for episode in said if episode.rule == rule]
        result.rules[rule] = score_of(of_rule, truths)
    for incident in planned.of(number):
        if incident.told:
            truths = [_truth(town, site, one) for one in incident.told]
            is_told = any(tells(episode, truth) for truth in truths for episode in said)
            result.kinds.setdefault(incident.kind, Score()).add(Score(told=is_told, missed=not is_told))
    return result


def said_of(town: Town, planned: Schedule, number: int, catalog: Catalog) -> tuple[list[Episode], int]:
    """A home's alerts, and how many readings rules have seen for them. Types without a rule that no rule looks at are
    left out."""
    site = sites(town.homes)[number]
    specs = catalog.systems[SYSTEM].types
    seen = {spec.type for spec in specs if spec.alerts} | {"outdoor_station"}
    registry = [
        Device(
            revision=0, at=town.first_us // 1000, type=placed.type, device=placed.device_id(site), site=site,
            registered_at=town.first_us // 1000, params=placed.params,
        )
        for placed in DEVICES
    ]  # fmt: skip
    readings = sent(town, [town.home(number, planned)], catalog, True, seen.__contains__)
    counted = _Counted()
    arrivals = (Arrival(reading, offset, due_us) for offset, (due_us, reading) in enumerate(counted.of(readings)))
    until_us = town.first_us + town.span_us
    return episodes(transitions(0, specs, registry, arrivals, until_us)), counted.count


class _Counted:
    count = 0

    def of(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            self.count += 1
            yield item


def _truth(town: Town, site: str, told: Told) -> Truth:
    return Truth(f"{site}-{told.device}", town.micros(told.begin), town.micros(told.end), frozenset({told.rule}))


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
