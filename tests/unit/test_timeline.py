"""Event time and wall time meet at the end of the span, and never cross."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import ConfigurationError
from simulators.timeline import Timeline

NOW = 1_732_985_800_123_456
HOUR = 3_600_000_000
SPANS = st.integers(1, 400 * 24 * HOUR)
SPEEDS = st.just(0.0) | st.floats(1, 100_000)


@given(SPANS, SPEEDS)
def test_a_run_ends_now(span, speed):
    timeline = Timeline.ending(span, NOW, speed)
    assert 0 <= timeline.wall_us(timeline.end_us) - timeline.end_us < 1000  # first times are whole milliseconds


@given(SPANS, SPEEDS, st.floats(0, 3))
def test_no_event_lies_ahead_of_the_clock_that_sends_it(span, speed, share):
    timeline = Timeline.ending(span, NOW, speed)
    event = timeline.first_us + int(span * share)
    assert timeline.wall_us(event) >= event - 1


@given(SPANS, SPEEDS, st.floats(0, 3), st.floats(0, 3))
def test_order_is_kept(span, speed, one, other):
    timeline = Timeline.ending(span, NOW, speed)
    early, late = sorted(timeline.first_us + int(span * share) for share in (one, other))
    assert timeline.wall_us(early) <= timeline.wall_us(late)


def test_a_hundred_times_as_fast():
    timeline = Timeline.ending(2 * HOUR, NOW, 100)
    assert timeline.wall_us(timeline.first_us) == NOW
    assert timeline.wall_us(timeline.first_us + HOUR) == NOW + HOUR // 100
    assert timeline.wall_us(timeline.end_us + HOUR) == NOW + 2 * HOUR // 100 + HOUR  # then at real time


def test_real_time_begins_now():
    timeline = Timeline.ending(60_000_000, NOW, 1)
    assert NOW - 1000 < timeline.first_us <= NOW


def test_without_waiting():
    timeline = Timeline.ending(HOUR, NOW, 0)
    assert timeline.wall_us(timeline.end_us) == NOW
    assert timeline.wall_us(timeline.end_us + HOUR) == NOW + HOUR


def test_until_moves_the_events_and_not_the_pace():
    timeline = Timeline.ending(HOUR, NOW, 10, until_us=1_600_000_000_000_000)
    assert timeline.end_us == 1_600_000_000_000_000
    assert timeline.wall_us(timeline.end_us) == NOW + HOUR // 10


@pytest.mark.parametrize("speed", [0.5, -1, float("inf"), float("nan")])
def test_slower_than_real_time_is_refused(speed):
    with pytest.raises(ConfigurationError, match="--speed"):
        Timeline.ending(HOUR, NOW, speed)
