from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.duration import format_duration, parse_duration


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
