"""Windows against a plain list, kept whole."""

import math
import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import window
from fleet.counter_total import CounterTotal, this_month, today
from fleet.local_time import LocalTime
from fleet.window import MAX_READINGS, Window

S = 1_000_000


def filled(*entries: tuple[int, float]) -> Window:
    made = Window()
    for time, value in entries:
        made.add(time, value, -(10**9))
    return made


def test_entries_stand_by_event_time_and_equal_times_by_arrival() -> None:
    made = filled((0, 1.0), (10, 2.0), (5, 3.0), (5, 4.0), (10, 5.0), (0, 6.0))
    assert list(zip(made.times, made.values, strict=True)) == [(0, 1), (0, 6), (5, 3), (5, 4), (10, 2), (10, 5)]


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(-9, 9).map(float), st.integers(0, 60)), max_size=300),
    st.integers(1, 120),
)
def test_it_forgets_only_what_nobody_can_see(steps: list[tuple[int, float, int]], length: int) -> None:
    made, entries, clock = Window(), [], 0
    for place, (ahead, value, back) in enumerate(steps):
        time = clock + ahead % 7 if back > 20 else max(0, clock - back)
        clock = max(clock, time)
        made.add(time, value, clock - length)
        entries.append((time, place, value))
        seen = [v for t, _, v in sorted(entries) if clock - length < t]
        assert list(made.values[made.after(clock - length) :]) == seen
        assert window.count(made, clock - length) == len(seen)
        if seen:
            assert window.avg(made, clock - length) == math.fsum(seen) / len(seen)
            assert window.min_over(made, clock - length) == min(seen)
            assert window.max_over(made, clock - length) == max(seen)
        if len(seen) > 1:
            assert window.stddev(made, clock - length) == pytest.approx(statistics.stdev(seen), abs=1e-12)
            assert window.delta(made, clock - length) == seen[-1] - seen[0]
        again = Window(*made.dump())
        assert list(again.values) == list(made.values[made.start :])


def test_a_window_holds_ten_thousand_readings_at_most() -> None:
    made = Window()
    for time in range(MAX_READINGS + 5_000):
        made.add(time, float(time), -1)
    assert len(made) == MAX_READINGS
    assert window.min_over(made, -1) == 5_000
    assert len(made.times) <= 2 * MAX_READINGS + 64


ONE, AT_ONCE = ((0, 1.0),), ((0, 1.0), (0, 2.0))
HUGE = ((0, -1e308), (1, 1e308))
UNKNOWN = [
    ("avg", ()), ("sum_", ()), ("min_over", ()), ("max_over", ()), ("stddev", ONE), ("delta", ONE), ("rate", ONE),
    ("counter_rate", ONE), ("rate", AT_ONCE), ("counter_rate", AT_ONCE), ("avg", ((0, 1e308), (1, 1e308))),
    ("delta", HUGE), ("stddev", HUGE), ("rate", HUGE), ("counter_rate", HUGE),
]  # fmt: skip


@pytest.mark.parametrize(("function", "entries"), UNKNOWN, ids=[f"{f} of {e}" for f, e in UNKNOWN])
def test_unknown(function: str, entries: tuple[tuple[int, float], ...]) -> None:
    assert getattr(window, function)(filled(*entries), -1) is None


def test_rates() -> None:
    made = filled((0, 100.0), (10 * S, 102.0), (20 * S, 5.0))
    assert window.rate(made, -1) == -95 / 20
    assert window.counter_rate(made, -1) == 7 / 20


def test_a_total_belongs_to_the_local_day() -> None:
    local = LocalTime("Asia/Tokyo")  # midnight is 15:00 UTC
    total = CounterTotal()
    hour = 3600 * S
    for at, value in ((14, 10.0), (14.9, 12.0), (15, 15.0), (16, 16.0)):
        total.add(int(at * hour), value, local)
    assert today(total, local, 16 * hour) == 4
    assert this_month(total, local, 16 * hour) == 6
    assert today(total, local, (24 + 15) * hour) == 0
    again = CounterTotal(*total.dump())
    assert today(again, local, 16 * hour) == 4


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_totals_are_exact(values: list[float]) -> None:
    total, local = CounterTotal(), LocalTime()
    for place, value in enumerate(values):
        total.add(place, value, local)
    steps = [window.increase(a, b) for a, b in pairwise(values)]
    assert today(total, local, 0) == math.fsum(steps)
