"""Readings of quiet devices in a batch: what conditions look at, and what the readings leave in the table."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fleet.column_condition import Term
from fleet.device_state import RECENT
from fleet.text import Bools, Doubles, Ints
from fleet.window_table import Appended

if TYPE_CHECKING:
    from fleet.column_engine import Run


class QuietReadings:
    """Rows are ordered by device, each device's by the log."""

    def __init__(self, run: "Run", kept: Bools):
        self.run, self.table, self.rules = run, run.table, run.type.rules
        self._kept = kept
        """Of the run's ordered readings, these."""
        self.at = run.order if kept.all() else run.order[kept]
        """Their places in the columns."""
        self.done = np.zeros(len(kept), np.bool_)
        """Of the run's ordered readings, those that were committed."""
        self.slots, self.times = run.slots[self.at], run.columns.event_times_us[self.at]
        self.is_first = run.is_first[kept]
        self.begins = np.flatnonzero(self.is_first)
        self.memo: list[Any] = []
        self._window_memos: list[dict[Any, Any]] = [{} for _ in self.table.windows]
        self._metrics: list[tuple[Doubles, Any] | None] = [None] * len(self.rules.ranges)

    def __len__(self) -> int:
        return len(self.at)

    def can_breach(self) -> Bools:
        """Whether a rule's condition can be true, or it remembers the reading anyway."""
        column_rules = self.run.rules
        self.memo = [None] * column_rules.memo_size
        found = np.zeros(len(self), np.bool_)
        for own, remembers, conditions in column_rules.conditions:
            carries = self._carries(own)
            if carries is None:
                continue
            for condition in conditions:
                found |= condition(self) & carries
            if remembers:
                found |= carries
        return found

    def _carries(self, metrics: frozenset[str]) -> Any:
        """Whether a reading carries one of these; None: no reading does."""
        carried = [c for metric in metrics if (c := self.run.columns.carried.get(metric)) is not None]
        if not carried:
            return None
        return True if self.run.carries_all else np.logical_or.reduce(carried)[self.at]

    # What conditions look at

    @cached_property
    def _row_numbers(self) -> Ints:
        return np.arange(len(self))

    def _held(self, metric: int) -> tuple[Doubles, Any]:
        """Of a metric by its place: the last value that was carried, and when; NaN for what is unknown. None instead
        of times: all readings carry it."""
        known = self._metrics[metric]
        if known is None:
            known = self._metrics[metric] = self._hold(metric)
        return known

    def _hold(self, metric: int) -> tuple[Doubles, Any]:
        name, (low, high) = self._names[metric], self.rules.ranges[metric]
        columns, table = self.run.columns, self.table
        if name not in columns.values:
            return table.values[metric][self.slots], table.times[metric][self.slots]
        values = columns.values[name][self.at]
        values = np.where((values >= low) & (values <= high), values, np.nan)
        if self.run.carries_all:
            return values, None
        carried = columns.carried[name][self.at]
        if carried.all():
            return values, None
        last = np.maximum.accumulate(np.where(carried | self.is_first, self._row_numbers, 0))
        here = carried[last]
        return (
            np.where(here, values[last], table.values[metric][self.slots]),
            np.where(here, self.times[last], table.times[metric][self.slots]),
        )

    @cached_property
    def _names(self) -> list[str]:
        return list(self.rules.places.metrics)

    def present(self, metric: int) -> Doubles:
        values, times = self._held(metric)
        return values if times is None else np.where(times >= self.times - self.rules.stale_us, values, np.nan)

    def _new(self, metric: int) -> Doubles:
        """Known values that these readings carry; NaN where there is none."""
        values, times = self._held(metric)
        if times is None:
            return values
        name = self._names[metric]
        if name not in self.run.columns.carried:
            return np.full(len(self), np.nan)
        return np.where(self.run.columns.carried[name][self.at], values, np.nan)

    @cached_property
    def _previous(self) -> list[tuple[Doubles, Doubles]]:
        """By place in `previous`: the known value before the last one, and the last one."""
        metrics, table = self.rules.places.metrics, self.table
        half = len(self.rules.places.previous)
        found = []
        for name, place in self.rules.places.previous.items():
            values = self._new(metrics[name])
            known = ~np.isnan(values)
            before, last = table.previous[place][self.slots], table.previous[half + place][self.slots]
            if len(self.begins) == len(self):
                found.append((np.where(known, last, before), np.where(known, values, last)))
                continue
            # Rows of the last known reading up to this one, and of the one before it; -1: none in this batch.
            rows = np.where(known, self._row_numbers, -1)
            begin = np.maximum.accumulate(np.where(self.is_first, self._row_numbers, 0))
            latest = np.maximum.accumulate(rows)
            earlier = np.where(latest > 0, np.concatenate([[-1], latest[:-1]])[np.maximum(latest, 0)], -1)
            in_batch, both = latest >= begin, earlier >= begin
            found.append(
                (
                    np.where(in_batch, np.where(both, values[earlier], last), before),
                    np.where(in_batch, values[latest], last),
                )
            )
        return found

    def previous(self, place: int) -> Doubles:
        return self._previous[place][0]

    def param(self, place: int) -> Doubles:
        return self.table.params[place][self.slots]

    def local(self, function: str) -> Doubles:
        """One look at the calendar for each site and minute."""
        sites, engine = self.table.sites[self.slots], self.run.engine
        names = list(self.table.site_names)
        minutes = self.times // 60_000_000
        pairs, which = np.unique(np.stack([sites, minutes]), axis=1, return_inverse=True)
        found = [
            getattr(engine.known.site(names[site]).local, function)(minute * 60_000_000)
            for site, minute in pairs.T.tolist()
        ]
        return np.array(found, np.float64)[which.reshape(-1)]

    @cached_property
    def _waves(self) -> list[Any]:
        """Rows that are the first of their devices, the second, and so on."""
        if len(self.begins) == len(self):
            return [slice(None)]
        ranks = self._row_numbers - np.repeat(self.begins, self._lengths)
        return np.split(np.argsort(ranks, kind="stable"), np.cumsum(np.bincount(ranks))[:-1])

    @cached_property
    def _lengths(self) -> Ints:
        return np.diff(self.begins, append=len(self))

    @cached_property
    def _appended(self) -> list[Appended]:
        metrics = self.rules.places.metrics
        return [
            window.append(self.slots, self.times, self._new(metrics[name]), self._waves)
            for window, name in zip(self.table.windows, self.rules.windows, strict=True)
        ]

    def window(self, function: str, place: int, reach_us: int) -> Term:
        return self.table.windows[place].look(function, self._appended[place], reach_us, self._window_memos[place])

    # What they leave

    def commit(self, calm: Bools) -> None:
        """Into the table: the readings of devices all of whose readings are calm."""
        run, table = self.run, self.table
        lasts = self.begins + self._lengths - 1
        devices: Any = slice(None)
        if not calm.all():
            of_device = np.logical_and.reduceat(calm, self.begins)
            devices = np.flatnonzero(of_device)
            calm = np.repeat(of_device, self._lengths)
            if not calm.any():
                return
        lasts, begins = lasts[devices], self.begins[devices]
        slots, times = self.slots[lasts], self.times[lasts]
        table.clock[slots] = table.heard[slots] = table.newest[slots] = times
        table.lag[slots] = np.maximum(run.watermarks[self.at[lasts]] - times, 0)
        for metric in range(len(self._metrics)):
            if self._names[metric] in run.columns.values:
                values, held = self._held(metric)
                table.values[metric][slots] = values[lasts]
                table.times[metric][slots] = times if held is None else held[lasts]
        half = len(self.rules.places.previous)
        for place, (before, last) in enumerate(self._previous):
            table.previous[place][slots], table.previous[half + place][slots] = before[lasts], last[lasts]
        for window, appended in zip(table.windows, self._appended, strict=True):
            rows = np.maximum.accumulate(np.where(appended.known, self._row_numbers, -1))[lasts]
            window.commit(appended, rows[rows >= begins])
        self._commit_recent(slots, devices)
        self.done[self._kept] = calm
        counts = run.engine.counts
        done = int(calm.sum())
        counts.readings += done
        evaluated = run.of_plans([len(plan.rules) for plan in run.plans])
        counts.evaluations += evaluated * done if isinstance(evaluated, int) else int(evaluated[self.at][calm].sum())

    def _commit_recent(self, slots: Ints, devices: Any) -> None:
        table, keys = self.table, self.run.keys
        lengths, begins = self._lengths[devices], self.begins[devices]
        taken = table.taken[slots]
        for rank in range(int(lengths.max())):
            # Of a device's readings only the last ones stay.
            some = (rank < lengths) & (rank >= lengths - RECENT)
            rows = begins[some] + rank
            table.recent[slots[some], (taken[some] + rank) % RECENT] = keys[self.at[rows]]
        after = taken + lengths
        table.taken[slots] = np.where(after < RECENT, after, RECENT + after % RECENT)
