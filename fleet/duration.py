"""Durations as people write them in specs: `500ms 30s 5m 2h 1d`."""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, PlainSerializer

UNITS = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
"""Unit → microseconds."""
LONGEST = timedelta(days=36_525)
"""A hundred years: added to a date of this century, it still is a date."""
PATTERN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)


def parse_duration(text: object) -> timedelta:
    """`30s` → 30 seconds. Raises ValueError for anything else; a bare number has no unit and is refused, but for 0."""
    if isinstance(text, timedelta):
        return text
    if text == 0 and not isinstance(text, bool):
        return timedelta(0)
    match = PATTERN.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError("a duration is a number with a unit: 500ms, 30s, 5m, 2h or 1d")
    microseconds = float(match[1]) * UNITS[match[2]]
    if microseconds > LONGEST / timedelta(microseconds=1):
        raise ValueError(f"a duration is at most {LONGEST.days:,}d")
    return timedelta(microseconds=round(microseconds))


def format_duration(value: timedelta) -> str:
    """The shortest exact form: 90 s → `90s`, 120 s → `2m`."""
    microseconds = value // timedelta(microseconds=1)
    if microseconds == 0:
        return "0s"
    for unit in ("d", "h", "m", "s", "ms"):
        if microseconds % UNITS[unit] == 0:
            return f"{microseconds // UNITS[unit]}{unit}"
    return f"{microseconds // 1000}.{microseconds % 1000:03d}".rstrip("0") + "ms"


def rounded_duration(value: timedelta) -> str:
    """For people, in two units at most: 112 s → `1m 52s`, 7384 s → `2h 3m`, 0.25 s → `0.3s`."""
    seconds = value / timedelta(seconds=1)
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    for unit, smaller in (("d", "h"), ("h", "m"), ("m", "s")):
        parts = round(seconds * 1e6 / UNITS[smaller])
        many, rest = divmod(parts, UNITS[unit] // UNITS[smaller])
        if many:
            return f"{many}{unit} {rest}{smaller}" if rest else f"{many}{unit}"
    return f"{round(seconds)}s"


Duration = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration)]


def _positive(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("a time longer than 0s")
    return value


Span = Annotated[Duration, AfterValidator(_positive)]
