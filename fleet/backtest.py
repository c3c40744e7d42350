"""A rule tried on history: the engine that runs live, over readings in their order of arrival; then what came of it.

Pure. The bridge writes a heartbeat into every partition now and then, of which the lake keeps the number and not the
places: here one stands before the first reading that comes that long after the one before, so that a watermark may be
off by as much. While nothing came because Weir itself was down there were none, and a rule about silence may fire here
that did not fire then.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from fleet.alert_state import NEVER
from fleet.control import Control, Retire
from fleet.engine import Engine
from fleet.reading import Reading
from fleet.ruleset import SEVERITIES
from fleet.settings import Settings
from fleet.spec import RuledType
from fleet.transition import Transition

HEARTBEAT_US = round(Settings.model_fields["bridge_heartbeat_seconds"].default * 1e6)


class Arrival(NamedTuple):
    """A reading where it stood in Kafka's partition. `digest` stands for its seq where it has none."""

    reading: Reading
    offset: int
    append_us: int
    digest: int | None = None


def transitions(
    partition: int, specs: Iterable[RuledType], registry: Iterable[Control], arrivals: Iterable[Arrival],
    until_us: int | None = None,
) -> Iterator[Transition]:  # fmt: skip
    """Of one Kafka partition, its arrivals in order of offset. Of `registry`, devices are known from the beginning,
    and retire when they did. `until_us`, of append times: heartbeats go on till then."""
    engine = Engine(partition, specs)
    retired = deque[Retire]()
    for record in registry:
        if isinstance(record, Retire):
            retired.append(record)
        else:
            yield from engine.control(record, offset=-1)
    beat, last = -HEARTBEAT_US, 0
    for reading, offset, append_us, digest in arrivals:
        while retired and retired[0].at * 1000 <= append_us:
            yield from engine.control(retired.popleft(), offset=last, detected_at_us=append_us)
        if append_us - beat >= HEARTBEAT_US:
            yield from engine.heartbeat(offset=last, append_us=append_us, detected_at_us=append_us)
            beat = append_us
        yield from engine.reading(
            reading, offset=offset, append_us=append_us, detected_at_us=append_us, digest=digest
        )  # fmt: skip
        last = offset
    if until_us is not None:
        for record in retired:
            if record.at * 1000 <= until_us:
                yield from engine.control(record, offset=last, detected_at_us=until_us)
        yield from engine.heartbeat(offset=last, append_us=until_us, detected_at_us=until_us)


@dataclass
class Episode:
    """One alert from its start to its end, in event time; `ends_us` None: it was active when the history ended."""

    rule: str
    device: str
    site: str
    severity: str
    """The highest it reached."""
    starts_us: int
    fired_us: int
    ends_us: int | None = None

    def meets(self, begin_us: int, end_us: int) -> bool:
        return self.fired_us <= end_us and (self.ends_us is None or self.ends_us >= begin_us)


class Change(NamedTuple):
    """A transition in short: an alert came to a state, at a severity."""

    rule: str
    device: str
    site: str
    to: str
    severity: str
    at_us: int


def episodes(said: Iterable[Transition]) -> list[Episode]:
    """In the order in which they fired."""
    found: dict[str, Episode] = {}
    for t in said:
        episode = found.get(t.alert_id)
        if episode is None:
            episode = Episode(t.rule, t.device, t.site, t.severity, t.starts_at_us, t.event_time_us)
            found[t.alert_id] = episode
        if SEVERITIES.index(t.severity) > SEVERITIES.index(episode.severity):
            episode.severity = t.severity
        if t.to == "resolved":
            episode.ends_us = t.event_time_us
    return sorted(found.values(), key=lambda e: (e.fired_us, e.rule, e.device))


class Truth(NamedTuple):
    """What an alert should have been about: a device from one moment to another, of any of some rules, or (None) of
    all."""

    device: str
    begin_us: int
    end_us: int
    rules: frozenset[str] | None = None

    def is_told_by(self, episode: Episode) -> bool:
        return (
            episode.device == self.device
            and (self.rules is None or episode.rule in self.rules)
            and episode.meets(self.begin_us, self.end_us)
        )


@dataclass(frozen=True)
class Score:
    """`precision`: of the episodes, how many tell of something true; `recall`: of what is true, how much was told.
    None where there was nothing to take a share of. Latencies in seconds, from the begin of what is true to the first
    episode that tells of it, 0 where one was active already."""

    precision: float | None
    recall: float | None
    median_latency: float | None
    longest_latency: float | None


def score(found: Sequence[Episode], truths: Sequence[Truth]) -> Score:
    by_device: dict[str, list[Truth]] = {}
    for truth in truths:
        by_device.setdefault(truth.device, []).append(truth)
    true = 0
    latencies: dict[Truth, float] = {}
    for episode in found:
        told = [truth for truth in by_device.get(episode.device, ()) if truth.is_told_by(episode)]
        true += bool(told)
        for truth in told:
            seconds = max(0, episode.fired_us - truth.begin_us) / 1e6
            latencies[truth] = min(seconds, latencies.get(truth, seconds))
    return Score(
        true / len(found) if found else None,
        len(latencies) / len(set(truths)) if truths else None,
        median(latencies.values()) if latencies else None,
        max(latencies.values(), default=None),
    )


@dataclass(frozen=True)
class Difference:
    """Episodes of the same rule and device that overlap are the same alert."""

    both: int
    only_first: tuple[Episode, ...]
    only_second: tuple[Episode, ...]


def difference(first: Sequence[Episode], second: Sequence[Episode]) -> Difference:
    def lonely(some: Sequence[Episode], others: Sequence[Episode]) -> tuple[Episode, ...]:
        by_identity: dict[tuple[str, str], list[Episode]] = {}
        for other in others:
            by_identity.setdefault((other.rule, other.device), []).append(other)
        return tuple(
            e for e in some
            if not any(o.meets(e.fired_us, NEVER if e.ends_us is None else e.ends_us)
                       for o in by_identity.get((e.rule, e.device), ()))
        )  # fmt: skip

    only_first, only_second = lonely(first, second), lonely(second, first)
    return Difference(len(first) - len(only_first), only_first, only_second)


@dataclass
class Coverage:
    """What part of the time there were data, by device: a reading speaks for the time up to the next, for `allowed`
    at most."""

    begin_us: int
    end_us: int
    allowed_us: int
    _covered: dict[str, int] = field(default_factory=dict)
    _last: dict[str, int] = field(default_factory=dict)

    def take(self, device: str, event_us: int) -> None:
        """In order of time, about: one that comes late adds nothing."""
        if not self.begin_us <= event_us < self.end_us:
            return
        last = self._last.get(device)
        if last is not None:
            if event_us <= last:
                return
            self._covered[device] = self._covered.get(device, 0) + min(event_us - last, self.allowed_us)
        self._last[device] = event_us

    def shares(self) -> dict[str, float]:
        """Device → 0 to 1."""
        span = max(1, self.end_us - self.begin_us)
        return {
            device: (self._covered.get(device, 0) + min(self.end_us - last, self.allowed_us)) / span
            for device, last in self._last.items()
        }
