"""Windows of many devices say what windows of one device say, within narrow bounds."""

import random
from typing import Any

import numpy as np
import pytest

from fleet import window
from fleet.window import Window
from fleet.window_table import WindowTable

DEVICES, LENGTH_US = 7, 60_000_000
FUNCTIONS: dict[str, Any] = {
    "avg": window.avg, "sum": window.sum_, "min_over": window.min_over, "max_over": window.max_over,
    "stddev": window.stddev, "count": window.count, "delta": window.delta, "rate": window.rate,
    "counter_rate": window.counter_rate,
}  # fmt: skip


def waves(slots: Any) -> list[Any]:
    ranks = [int((slots[:row] == slots[row]).sum()) for row in range(len(slots))]
    return [np.array([row for row, rank in enumerate(ranks) if rank == turn]) for turn in range(max(ranks) + 1)]


def filled(seed: int, scale: float) -> tuple[WindowTable, list[Window], Any, Any]:
    """Batches of readings into both; the last one is looked at (its readings are in both)."""
    chance = random.Random(seed)
    table, known = WindowTable(LENGTH_US, DEVICES), [Window() for _ in range(DEVICES)]
    clock = [0] * DEVICES
    for turn in range(40):
        slots = np.array(sorted(chance.choices(range(DEVICES), k=12)))
        times, values = np.zeros(12, np.int64), np.zeros(12)
        for row, slot in enumerate(slots.tolist()):
            clock[slot] += chance.randrange(1, 9_000_000)
            times[row] = clock[slot]
            values[row] = float("nan") if chance.random() < 0.1 else chance.uniform(-1, 1) * scale
        assert table.fits(slots, np.full(12, 12)).all()
        appended = table.append(slots, times, values, waves(slots))
        if turn == 39:
            return table, known, appended, (slots, times, values)
        last_known = [
            max((r for r in range(12) if slots[r] == s and values[r] == values[r]), default=-1)
            for s in set(slots.tolist())
        ]
        table.commit(appended, np.array(sorted(row for row in last_known if row >= 0), np.int64))
        for slot, at, value in zip(slots.tolist(), times.tolist(), values.tolist(), strict=True):
            if value == value:
                known[slot].add(at, value, at - LENGTH_US)
    raise AssertionError


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("reach_us", [1, 10_000_000, 33_000_000, LENGTH_US])
@pytest.mark.parametrize("scale", [1e-9, 20.0, 1e12])
def test_bounds_contain_the_exact_value(function: str, reach_us: int, scale: float) -> None:
    table, known, appended, (slots, times, values) = filled(3, scale)
    with np.errstate(all="ignore"):
        term = table.look(function, appended, reach_us, {})
    for row, (slot, at, value) in enumerate(zip(slots.tolist(), times.tolist(), values.tolist(), strict=True)):
        if value == value:
            known[slot].add(at, value, at - LENGTH_US)
        exact = FUNCTIONS[function](known[slot], at - reach_us)
        low, high = float(term.low[row]), float(term.high[row])
        if exact is None:
            assert low != low and high != high
        else:
            assert low <= exact <= high
            assert high - low <= 1e-9 * scale * (1 if function != "counter_rate" else 100)


def test_a_device_comes_back_as_it_went() -> None:
    table, known, *_ = filled(5, 1.0)
    for slot, one in enumerate(known):
        assert table.load(slot).dump() == one.dump()
        other = WindowTable(LENGTH_US, DEVICES)
        other.store(slot, one)
        assert other.load(slot).dump() == one.dump()


def test_all_devices_come_back_as_they_went() -> None:
    table, known, *_ = filled(5, 1.0)
    other = WindowTable(LENGTH_US, DEVICES)
    other.restore(*table.dump(np.arange(DEVICES)))
    assert [other.load(slot).dump() for slot in range(DEVICES)] == [one.dump() for one in known]


def test_roundings_add_up_in_the_bounds() -> None:
    """Behind 1e16 each 0.9 is rounded away: two hundred of them are more than the error of one operation."""
    table, one = WindowTable(LENGTH_US, 1), np.zeros(1, np.int64)
    for turn, value in enumerate([1e16, *[0.9] * 200]):
        at = one + turn * 1000
        assert table.fits(one, one + 1).all()
        appended = table.append(one, at, np.array([value]), [slice(None)])
        term = table.look("sum", appended, 200_000, {})
        table.commit(appended, one)
    assert term.low[0] <= 200 * 0.9 <= term.high[0]
