"""What `weir rules explain` has found, as text and as JSON."""

import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from fleet.duration import format_duration
from fleet.explanation import Explanation, Level, Present
from fleet.reason import EPOCH, clock
from weir._explain import Found

WIDTH = 80
INDENT = 10


def as_lines(found: Found) -> list[str]:
    """At most 80 columns wide."""
    it, lines = found.explanation, []
    alert = f"; alert {it.alert_id[:12]} since {_time(it.starts_at)}" if it.alert_id and it.starts_at else ""
    severity = f" ({it.severity})" if it.severity else ""
    lines += _said("", f"{it.title}: {it.device} at {it.site}, rule {it.rule} of {it.type} version {it.spec_version}")
    lines += _said("at", f"{_time(it.at)} UTC")
    lines += _said("state", ", ".join([it.state + severity + alert, *it.marks]))
    if it.why:
        lines += _said("why", it.why)
    for level in it.levels:
        lines += _of_level(it, level)
    for value in it.values:
        lines += _said("value", f"{value.metric} {_present(value, it.stale_after)}")
    if it.last_reading and it.values and all(value.age is None or value.is_stale for value in it.values):
        then = it.last_reading.replace(tzinfo=None).isoformat(timespec="milliseconds")
        lines += _said("earlier", f"of when it last spoke: --at {then}")
    for event in it.events:
        detail = f" ({event.detail})" if event.detail else ""
        of = f"{event.level}: " if event.level else ""
        lines += _said("before", f"{clock(event.at_us)}  {of}{event.what}{detail}")
    lag = f", the device {format_duration(it.lag)} behind it" if it.lag else ""
    lines += _said("watermark", f"{_time(it.watermark)}{lag}")
    lines += _said("log", _log(found))
    return lines


def _of_level(it: Explanation, level: Level) -> Iterator[str]:
    yield from _said(level.severity or "why", f"{level.state}: {level.why}" if level.severity else level.why)
    if level.outcomes:
        yield from _said("count", f"outcomes {' '.join(level.outcomes)}, the newest last")
    for side in level.sides:
        whole, *parts = side.parts
        then = ""
        if side.at_evaluation is not _truth(whole.value):
            then = f" (at the last evaluation, {_time(it.evaluated)}: {_value(side.at_evaluation)})"
        yield from _said(side.name, f"{_value(whole.value)}: {whole.text}{then}")
        for part in parts:
            yield from _said("", f"  {_value(part.value)}: {part.text}", INDENT)


def _log(found: Found) -> str:
    log = found.log
    taken = f"{log.topic}-{log.partition}, offsets {log.begin} to {found.read_to - 1}"
    if found.read_to <= log.begin:
        taken = f"{log.topic}-{log.partition}, no records"
    if log.begin > 0:
        return f"{taken}; it no longer begins at 0: all this is made from less than there was"
    return taken


def _said(label: str, text: str, indent: int | None = None) -> list[str]:
    indent = indent if indent is not None else INDENT if label else 0
    return textwrap.wrap(
        text, WIDTH, initial_indent=f"{label:<{indent}}", subsequent_indent=" " * (indent or 2), break_on_hyphens=False
    )  # fmt: skip


def _truth(value: float | bool | None) -> bool | None:
    return None if value is None else value != 0


def _value(value: float | bool | None) -> str:
    return "unknown" if value is None else str(value).lower() if isinstance(value, bool) else f"{value:g}"


def _present(value: Present, stale_after: timedelta | None) -> str:
    if value.age is None:
        return "unknown, never sent"
    seconds = value.age.total_seconds()
    age = f"{seconds:.1f}".removesuffix(".0") + "s old"
    if value.is_stale and stale_after is not None:
        return f"unknown: {_value(value.last)} is {age}, and stale after {format_duration(stale_after)}"
    return f"{_value(value.value)}, {age}"


def _time(time: datetime | None) -> str:
    return "never" if time is None else clock((time - EPOCH) // timedelta(microseconds=1))


def as_object(found: Found) -> dict[str, Any]:
    it, log = found.explanation, found.log
    events = []
    for event in it.events:
        fields = event._asdict()
        events.append({"at": _plain(EPOCH + timedelta(microseconds=fields.pop("at_us"))), **fields})
    said = {name: _plain(value) for name, value in asdict(it).items() if name != "events"}
    return {**said, "events": events, "log": {**asdict(log), "read_to": found.read_to, "is_whole": log.begin == 0}}


def _plain(value: Any) -> Any:
    """Times as ISO texts, spans as seconds."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value.total_seconds() if isinstance(value, timedelta) else value
