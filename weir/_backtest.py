"""`weir rules backtest`: what a rule would have said, and how it compares with what is true and with the rules in
force."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import typer

from connections.lake import Lake
from connections.spark import address, session
from connections.warehouse import Warehouse
from etl.backtest import LONG, Past, backtest
from etl.backtest_partition import History
from etl.truths import read_truths
from etl.window import parse_window
from fleet.backtest import Change, Difference, Episode, Score, difference, score
from fleet.catalog import Catalog, load_catalog, site_problems
from fleet.duration import rounded_duration
from fleet.errors import ConfigurationError, SpecError
from fleet.settings import Settings
from fleet.spec import DeviceType
from fleet.spec_file import load_spec
from weir._table import aligned

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SHOWN = 10
BUSIEST = 5
"""Devices, and days, of each rule in the text."""


@dataclass(frozen=True)
class Outcome:
    spec: DeviceType
    rules: tuple[str, ...]
    start: datetime
    end: datetime
    history: History
    score: Score | None
    live: Difference | None


def outcome(
    rule: str,
    type_name: str | None,
    start: str,
    to: str,
    truth: Path | None,
    against_live: bool,
    warm_up: timedelta,
    with_changes: bool,
) -> Outcome:
    """Raises ConfigurationError, SpecError, DataError, Unavailable."""
    settings, now = Settings.load(role="batch"), datetime.now(UTC)  # whose Spark is the stack's
    window = parse_window(start, to, now)
    if window.start is None or window.end is None:
        raise ConfigurationError("--from and --to must both be given")
    catalog = load_catalog(settings.types_dir)
    live, tried, ids = _chosen(catalog, rule, type_name)
    truths = None if truth is None else read_truths(truth, tried, ids)
    warehouse = Warehouse.of(settings)
    past = Past.of(Lake.of(settings), warehouse, catalog, live, tried, live)
    warehouse.close()

    def spark() -> AbstractContextManager["SparkSession"]:
        typer.echo(f"{LONG:,} readings or more: Spark evaluates them, at {address(settings)}", err=True)
        return session(settings, "weir-backtest")

    found = _of_rules(backtest(past, tried, window, warm_up, with_changes, spark), ids)
    compared = None
    if against_live:
        as_now = found if tried is live else backtest(past, live, window, warm_up, spark=spark)
        compared = difference(found.episodes, as_now.episodes)
    scored = None if truths is None else score(found.episodes, truths)
    return Outcome(tried, ids, window.start, window.end, found, scored, compared)


def _of_rules(found: History, ids: Collection[str]) -> History:
    """All rules of a type run together, as live: a timer of one moves the clock of its device for the others."""
    return replace(
        found,
        episodes=tuple(e for e in found.episodes if e.rule in ids),
        changes=tuple(c for c in found.changes if c.rule in ids),
    )


def _chosen(catalog: Catalog, rule: str, type_name: str | None) -> tuple[DeviceType, DeviceType, tuple[str, ...]]:
    """(the type as it is, the type with the rules to be tried, the ids of those that are asked for)"""
    path = Path(rule)
    if path.suffix in (".yaml", ".yml"):
        try:
            tried = load_spec(path.read_text(encoding="utf-8"), str(path))
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{path}: not UTF-8 at byte {error.start}") from None
        if not tried.alerts:
            raise ConfigurationError(f"{path} has no alerts: nothing to try")
        if problems := site_problems(tried, {**catalog.types, tried.type: tried}):
            raise SpecError("\n".join(f"{path}: {problem}" for problem in problems))
        return catalog.type(tried.type), tried, tuple(r.id for r in tried.alerts)
    spec = catalog.only_having(rule, type_name)
    return spec, spec, (rule,)


def as_object(found: Outcome) -> dict[str, Any]:
    return {
        "type": found.spec.type, "rules": found.rules, "from": found.start.isoformat(), "to": found.end.isoformat(),
        "readings": found.history.readings, "devices": len(found.history.coverage),
        "coverage": _coverage(found), "coverage_by_device": _coverage_by_device(found),
        "a_device_and_day": {rule: _rate(found, rule) for rule in found.rules},
        "by_device": {rule: _by_device(found, rule) for rule in found.rules},
        "by_utc_day": {rule: _by_day(found, rule) for rule in found.rules},
        "by_device_and_day": {rule: _by_device_and_day(found, rule) for rule in found.rules},
        "alerts": [_episode(e) for e in found.history.episodes],
        "transitions": [_transition(c) for c in found.history.changes],
        "score": found.score and asdict(found.score),
        "against_live": found.live
        and {
            "both": found.live.both,
            "only_tried": [_episode(e) for e in found.live.only_first],
            "only_live": [_episode(e) for e in found.live.only_second],
        },
    }  # fmt: skip


def as_lines(found: Outcome) -> Iterator[str]:
    history = found.history
    yield (
        f"{found.spec.type}: {', '.join(found.rules)} from {found.start:%Y-%m-%d %H:%M} to {found.end:%Y-%m-%d %H:%M}"
        f" UTC over {history.readings:,} readings of {len(history.coverage):,} devices"
    )
    if not history.readings:
        yield f"no reading of {found.spec.type} arrived in that time, so that no alert means nothing"
    if (shares := _coverage(found)) is not None:
        scarcest = next(iter(_coverage_by_device(found)))
        yield (
            f"coverage     median device {shares['median']:.1%} of the time,"
            f" least {shares['least']:.1%} (device {scarcest})"
        )
    for rule in found.rules:
        of_rule = [e for e in history.episodes if e.rule == rule]
        if not of_rule:
            yield f"{rule:24} no alerts"
            continue
        rate = _rate(found, rule)
        shown = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
        yield f"{rule:24} {len(of_rule):,} alerts, {shown} a device and day, {_longest(of_rule, found)}"
    if found.score is not None:
        s = found.score
        yield (
            f"truth        precision {_share(s.precision)}, recall {_share(s.recall)}, latency median"
            f" {_seconds(s.median_latency)}, longest {_seconds(s.longest_latency)}"
        )
    if found.live is not None:
        d = found.live
        yield f"live         {d.both:,} alike, {len(d.only_first):,} only here, {len(d.only_second):,} only live"
        for name, some in (("only here", d.only_first), ("only live", d.only_second)):
            for e in some[:SHOWN]:
                yield f"  {name}  {_moment(e.fired_us)} {e.rule} {e.device} at {e.site}"
            if len(some) > SHOWN:
                yield f"  … and {len(some) - SHOWN:,} more; --json has all"
    yield from _busiest(found, "device", _by_device)
    yield from _busiest(found, "UTC day", _by_day)


def _rate(found: Outcome, rule: str) -> float:
    """Alerts a device and day."""
    device_days = max(1, len(found.history.coverage)) * (found.end - found.start) / timedelta(days=1)
    return sum(e.rule == rule for e in found.history.episodes) / device_days


def _by_device(found: Outcome, rule: str) -> dict[str, int]:
    """Device → its alerts, most first; of those that have any."""
    return _counted(e.device for e in found.history.episodes if e.rule == rule)


def _by_day(found: Outcome, rule: str) -> dict[str, int]:
    """Day → alerts that fired on it, most first; of those that have any. In UTC, wherever a site is."""
    return _counted(_moment(e.fired_us)[:10] for e in found.history.episodes if e.rule == rule)


def _by_device_and_day(found: Outcome, rule: str) -> dict[str, dict[str, int]]:
    """Device → its `_by_day`; of those that have any, by name."""
    days: dict[str, list[str]] = {}
    for e in found.history.episodes:
        if e.rule == rule:
            days.setdefault(e.device, []).append(_moment(e.fired_us)[:10])
    return {device: _counted(days[device]) for device in sorted(days)}


def _counted(some: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(some).items(), key=lambda one: (-one[1], one[0])))


def _busiest(found: Outcome, what: str, counted: Callable[[Outcome, str], dict[str, int]]) -> Iterator[str]:
    """A table after a blank line; none where there are no alerts."""
    rows = [("rule", what, "alerts")]
    for rule in found.rules:
        alerts = list(counted(found, rule).items())
        rows += [(rule, name, f"{n:,}") for name, n in alerts[:BUSIEST]]
        if rest := alerts[BUSIEST:]:
            rows.append((rule, f"… {len(rest):,} more", f"{sum(n for _, n in rest):,}"))
    if len(rows) > 1:
        yield ""
        yield from aligned(rows)


def _longest(some: list[Episode], found: Outcome) -> str:
    end = found.end.timestamp() * 1e6
    lengths = [(end if e.ends_us is None else e.ends_us) - e.fired_us for e in some]
    return f"median {_length(median(lengths))}, longest {_length(max(lengths))}"


def _length(micros: float) -> str:
    return rounded_duration(timedelta(microseconds=round(micros)))


def _coverage(found: Outcome) -> dict[str, float] | None:
    if not (shares := _coverage_by_device(found).values()):
        return None
    return {"median": median(shares), "least": min(shares)}


def _coverage_by_device(found: Outcome) -> dict[str, float]:
    """Device → its share, the least first; empty where devices say something only when something happens."""
    if found.spec.cadence == "event":
        return {}
    return dict(sorted(found.history.coverage.items(), key=lambda one: (one[1], one[0])))


def _episode(e: Episode) -> dict[str, Any]:
    ends = None if e.ends_us is None else _moment(e.ends_us)
    return {
        "rule": e.rule, "device": e.device, "site": e.site, "severity": e.severity, "fired": _moment(e.fired_us),
        "resolved": ends,
    }  # fmt: skip


def _transition(c: Change) -> dict[str, Any]:
    return {
        "rule": c.rule, "device": c.device, "site": c.site, "to": c.to, "severity": c.severity, "at": _moment(c.at_us),
    }  # fmt: skip


def _moment(micros: int) -> str:
    return datetime.fromtimestamp(micros / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else rounded_duration(timedelta(seconds=value))
