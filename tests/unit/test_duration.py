from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.duration import format_duration, parse_duration, rounded_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("30s", 30), ("5m", 300), ("2h", 7200), ("1d", 86400), ("1.5h", 5400), (0, 0)]
)
def test_reads(text: object, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "30", "30 s", "s", "-5s", "1h30m", 30, 1.5, None, True, "٣s"])
def test_refuses(text: object) -> None:
    with pytest.raises(ValueError, match="a number with a unit"):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=10**12))
def test_writes_what_it_reads(milliseconds: int) -> None:
    value = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(value)) == value


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (0.25, "0.2s"), (9.94, "9.9s"), (9.96, "10s"), (59.4, "59s"), (59.6, "1m"), (60, "1m"),
        (112, "1m 52s"), (119.7, "2m"), (120, "2m"), (3599.8, "1h"), (7384, "2h 3m"), (86_400 * 3 + 7_300, "3d 2h"),
    ],
    ids=str,
)  # fmt: skip
def test_for_people(seconds: float, text: str) -> None:
    assert rounded_duration(timedelta(seconds=seconds)) == text
