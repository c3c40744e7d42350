"""Files of what is true, by which a backtest is scored: intervals that somebody wrote down, or what a simulator did."""

import json
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from etl.window import micros
from fleet.backtest import Truth
from fleet.errors import ConfigurationError
from fleet.ruleset import RuleSet
from fleet.spec import SILENT_CADENCES, DeviceType

MEASURED = ("stuck", "spike", "out_of_range")
"""Faults of a simulator that change what a metric says …"""
SEEN = ("valid", "value warned")
"""… where the verdict on the message lets rules see it."""
SILENCE = "dropout"
"""The one that keeps messages from coming. All others leave what the device says true."""

EXAMPLE = '{"device": "7", "begin": "2026-11-22T03:00:00Z", "end": "2026-11-22T03:05:00Z"}'


def read_truths(path: Path, spec: DeviceType, rules: Collection[str]) -> list[Truth]:
    """For rules of the type. JSON lines of device, begin, end (RFC 3339) and, if it is of one rule alone, rule; or the
    truth of `weir simulate --truth`, known by its lines' `fault` or its `summary`: what its faults touched, and what
    it says itself that a rule must tell. Raises ConfigurationError with file and line."""
    lines = list(_lines(path))
    if any("fault" in said or "summary" in said for _, said in lines):
        told = [_interval(f"{path}:{number}", said) for number, said in lines if said.get("rule") in rules]
        return [*told, *_of_faults([said for _, said in lines if "fault" in said], spec, rules)]
    return [_interval(f"{path}:{number}", said) for number, said in lines]


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if line.strip():
            try:
                said = json.loads(line)
            except ValueError as error:
                raise _wrong(f"{path}:{number}", line, error) from None
            if not isinstance(said, dict):
                raise _wrong(f"{path}:{number}", line, TypeError("no object"))
            yield number, said


def _wrong(where: str, found: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"{where}: expected such as {EXAMPLE}, or the truth of weir simulate, not {found[:80]!r} ({error!r})"
    )


def _interval(where: str, said: dict[str, Any]) -> Truth:
    try:
        begin, end = (micros(datetime.fromisoformat(said[name])) for name in ("begin", "end"))
        if begin > end:
            raise ValueError("the end comes before the begin")
        rules = frozenset({str(said["rule"])}) if said.get("rule") is not None else None
        return Truth(str(said["device"]), begin, end, rules)
    except (ValueError, KeyError, TypeError) as error:
        raise _wrong(where, json.dumps(said), error) from None


class _Touched(NamedTuple):
    device: str
    metric: str | None
    """None: of the device as a whole."""
    at_us: int


def _of_faults(faults: Iterable[dict[str, Any]], spec: DeviceType, rules: Collection[str]) -> Iterator[Truth]:
    """An interval for each device and metric whose messages were touched one soon after the other; of those that the
    rules look at. It lasts until the next message was due."""
    compiled = [rule for rule in RuleSet(spec).rules if rule.id in rules]
    concerned: dict[str | None, frozenset[str]] = {
        metric: frozenset(rule.id for rule in compiled if metric in rule.own) for metric in spec.metrics
    }
    concerned[None] = frozenset(rule.id for rule in compiled if rule.no_data_us is not None)
    cadence_us = 0 if spec.cadence == "event" else spec.cadence // timedelta(microseconds=1)
    found = (_touched(fault) for fault in faults if fault["type"] == spec.type)
    touched = sorted(
        (one for one in found if one is not None and concerned.get(one.metric)),
        key=lambda one: (one.device, one.metric or "", one.at_us),
    )
    begin: _Touched | None = None
    last: _Touched | None = None
    for one in [*touched, None]:
        if begin is not None and last is not None and (one is None or not _goes_on(last, one, cadence_us)):
            yield Truth(begin.device, begin.at_us, last.at_us + cadence_us, concerned[begin.metric])
            begin = None
        begin, last = begin or one, one


def _goes_on(last: _Touched, one: _Touched, cadence_us: int) -> bool:
    # As many may lie between two touched messages of one interval: others carry other metrics, or are lost.
    return last[:2] == one[:2] and one.at_us - last.at_us <= SILENT_CADENCES * cadence_us


def _touched(fault: dict[str, Any]) -> _Touched | None:
    at_us = micros(datetime.fromisoformat(fault["event_time"]))
    if fault["fault"] == SILENCE:
        return _Touched(fault["device"], None, at_us)
    if fault["fault"] in MEASURED and fault["expected"] in SEEN:
        return _Touched(fault["device"], fault["metric"], at_us)
    return None
