"""What people write for times and spans."""

from datetime import datetime, timedelta
from pathlib import Path

from fleet.duration import parse_duration
from fleet.errors import ConfigurationError
from fleet.reading import to_epoch_us


def span_us(text: str, option: str) -> int:
    """`60` or `60s`, `15m`, `2h` → µs, above 0. Raises ConfigurationError naming the option."""
    try:
        span = timedelta(seconds=float(text)) if text.replace(".", "", 1).isdecimal() else parse_duration(text)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(f"{option} {text}: {error}; a bare number is seconds") from None
    if span <= timedelta(0):
        raise ConfigurationError(f"{option} {text}: must be above 0")
    return span // timedelta(microseconds=1)


def time_us(text: str, option: str) -> int | None:
    """RFC 3339 with a zone → epoch µs; empty → None. Raises ConfigurationError naming the option."""
    if not text:
        return None
    try:
        return to_epoch_us(datetime.fromisoformat(text))
    except ValueError as error:
        raise ConfigurationError(f"{option} {text}: {error}; as in 2026-01-31T12:00:00Z") from None


def target(to: str, out: Path | None) -> tuple[str, Path | None]:
    """`file:PATH` is `--to file --out PATH`. Raises ConfigurationError where both name a file."""
    kind, colon, path = to.partition(":")
    if kind != "file" or not colon:
        return to, out
    if out is not None or not path:
        raise ConfigurationError(f"--to {to}: {'--out names a file already' if path else 'file:PATH names one'}")
    return kind, Path(path)
