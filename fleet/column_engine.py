"""The columnar form of fleet.engine: readings by the thousand, with the same transitions, order, ids and state.

It decides for a batch which devices nothing happens to, does for them what `Engine._take` does in columns, and leaves
the rest to the scalar form, reading by reading, each at its place in the log. A device of a batch is left where
- a rule remembers something of it (an alert, a pending breach, outcomes of count; a rule with flap always does),
- a condition can be true (fleet.column_condition),
- a reading of it is not younger than all before it (a duplicate, out of order, or the same time again),
- it has moved to another site, or was, or will have been in this batch, silent for as long as no_data says,
- its windows hold many times more than those of others.

Left wholly are types with `is_scalar`, where devices look at each other or totals are exact sums.

Watermarks are those of each record: they depend on no rule, so they are known for all readings of the batch before any
is evaluated, and timers act at the record that reaches them.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fleet.alert_state import LONG_AGO, NEVER
from fleet.column_condition import ColumnCompiler, Readings
from fleet.columns import NO_SEQ, Columns
from fleet.device_state import DeviceState, TypeState
from fleet.device_table import DeviceTable, groups, is_quiet
from fleet.engine import Engine, is_new
from fleet.identity import ANONYMOUS, identities
from fleet.quiet_readings import QuietReadings
from fleet.ruleset import RuleSet
from fleet.text import Bools, Ints
from fleet.transition import Transition
from fleet.window_table import limit_of

FEW = 64
"""Readings that are not worth numpy's millisecond."""


class Batch(NamedTuple):
    """What stands beside readings; by place, as Columns.rows counts them."""

    offsets: Ints
    append_us: Ints | None
    """None: never holds the watermark back."""
    digests: Ints | None
    """Each stands for seq where a reading has none; None: such are no duplicates."""
    detected_at_us: int


class ColumnRules:
    """A type's conditions over columns, compiled."""

    def __init__(self, rules: RuleSet):
        compiler = ColumnCompiler()
        self.conditions: list[tuple[frozenset[str], bool, list[Callable[[Readings], Bools]]]] = [
            (
                rule.own,
                rule.flap is not None,
                [compiler.condition(level.when_tree, rule.places) for level in rule.levels],
            )
            for rule in rules.rules
            if rule.levels
        ]
        """Of each rule with conditions: its metrics, whether it remembers each outcome, where its levels can breach."""
        self.memo_size = compiler.size


def take_columns(engine: Engine, found: Sequence[Columns], batch: Batch) -> list[Transition]:
    """Readings of a run of the partition's records, none of which is a heartbeat or a control record. What the engine
    is afterwards, and says, is the same as after `Engine.reading` for each of them in order of `rows`."""
    said: list[Transition] = []
    one_by_one: list[tuple[int, Columns, int]] = []
    for columns in found:
        type_ = engine.known.types.get(columns.type)
        if type_ is None:
            engine.counts.unreadable += len(columns)
        elif len(columns) < FEW or type_.is_scalar:
            one_by_one += [(row, columns, place) for place, row in enumerate(columns.rows.tolist())]
        else:
            said += Run(engine, type_, columns, batch).take()
    for row, columns, place in sorted(one_by_one, key=lambda item: item[0]):
        said += _take_one(engine, columns, place, row, batch)
    if len(found) > 1:
        said.sort(key=lambda transition: transition.offset)
    if found:
        engine.journal.offset = int(batch.offsets[max(columns.rows[-1] for columns in found)])
    return said


def _take_one(engine: Engine, columns: Columns, place: int, row: int, batch: Batch) -> Sequence[Transition]:
    return engine.reading(
        columns.reading(place),
        offset=int(batch.offsets[row]),
        append_us=None if batch.append_us is None else int(batch.append_us[row]),
        detected_at_us=batch.detected_at_us,
        digest=None if batch.digests is None else int(batch.digests[row]),
    )


class Run:
    """The readings of one type. Arrays are by place in the columns, or `ordered`: by device, each device's in order."""

    def __init__(self, engine: Engine, type_: TypeState, columns: Columns, batch: Batch):
        self.engine, self.type, self.columns, self.batch = engine, type_, columns, batch
        if type_.table is None:
            type_.table = DeviceTable(type_)
        if type_.column_rules is None:
            type_.column_rules = ColumnRules(type_.rules)
        self.table, self.rules = type_.table, type_.column_rules
        self.slots = self.table.slots_of(engine, columns)
        self.order, self.begins, self.is_first = groups(self.slots)
        self.ends = np.append(self.begins[1:], len(columns))
        """Of each device's ordered readings."""
        self.ordered_slots = self.slots[self.order]
        self.devices = self.ordered_slots[self.begins]
        """Slots."""
        self.ordered_times = columns.event_times_us[self.order]

    def take(self) -> list[Transition]:
        self._find_plans()
        self._call_in()
        doubtful = self.ordered_times <= self._before(np.maximum(self.table.newest, self.table.clock))
        duplicates = self._duplicates(doubtful) if doubtful.any() else None
        self._find_watermarks(duplicates)
        left = self._left(doubtful)
        quiet = QuietReadings(self, ~np.repeat(left, self.ends - self.begins))
        if len(quiet):
            with np.errstate(all="ignore"):
                quiet.commit(~quiet.can_breach())
        return self._take_the_rest(quiet.done)

    def _before(self, of_device: Ints) -> Ints:
        """Ordered: the event time of the device's reading before, or what is said of the device."""
        before = np.empty_like(self.ordered_times)
        before[1:] = self.ordered_times[:-1]
        before[self.begins] = of_device[self.devices]
        return before

    def _find_plans(self) -> None:
        """By place: what its metrics make of a reading."""
        carried = self.columns.carried
        self.carries_all = all(column.all() for column in carried.values())
        if self.carries_all:
            self.plans = [self._plan(tuple(carried))]
            self.plan_of: Ints | None = None
            return
        codes = np.zeros(len(self.columns), np.int64)
        for column in carried.values():
            codes = codes * 2 + column
            if codes.max() >= 1 << 40:
                codes = np.unique(codes, return_inverse=True)[1]
        _, examples, self.plan_of = np.unique(codes, return_index=True, return_inverse=True)
        sets = [tuple(name for name, column in carried.items() if column[place]) for place in examples.tolist()]
        self.plans = [self._plan(names) for names in sets]

    def _plan(self, names: tuple[str, ...]) -> Any:
        return self.type.plans.get(names) or self.engine.known.plan(self.type, names)

    def of_plans(self, values: list[int]) -> Any:
        """By place, or one for all."""
        return values[0] if self.plan_of is None else np.array(values)[self.plan_of]

    def _call_in(self) -> None:
        """Devices of which nothing is remembered any more become quiet."""
        table = self.table
        quiet = table.quiet[self.devices]
        live = [device for slot in self.devices[~quiet].tolist() if (device := table.devices[slot]) is not None]
        for place, window in enumerate(table.windows):
            entries = int(window.counts(self.devices[quiet]).sum()) + sum(len(d.windows[place]) for d in live)
            window.limit = limit_of(entries / len(self.devices))
        for device in live:
            if is_quiet(device) and all(
                len(window) < known.limit for window, known in zip(device.windows, table.windows, strict=True)
            ):
                table.store(device)
            else:
                table.newest[device.slot] = device.newest

    def _duplicates(self, doubtful: Bools) -> Ints:
        """Places of those that are. Only devices with a doubtful reading can have any."""
        found: list[int] = []
        keys = self.keys
        for number in np.flatnonzero(np.logical_or.reduceat(doubtful, self.begins)).tolist():
            device = self.table.devices[self.devices[number]]
            assert device is not None
            if device.quiet:
                self.table.load(device)
            trial = DeviceState.__new__(DeviceState)
            trial.recent, trial.place, trial.newest = device.recent[:], device.place, device.newest
            for place in self.order[self.begins[number] : self.ends[number]].tolist():
                if not is_new(trial, int(self.columns.event_times_us[place]), int(keys[place])):
                    found.append(place)
        return np.array(found, np.int64)

    @cached_property
    def keys(self) -> Ints:
        """By place: what a later reading that equals it would have."""
        seqs, digests = self.columns.seqs, self.batch.digests
        without = seqs == NO_SEQ
        said = seqs if digests is None or not without.any() else np.where(without, digests[self.columns.rows], seqs)
        keys = identities(self.columns.event_times_us, said, self.of_plans([plan.key for plan in self.plans]), without)
        return keys if digests is not None else np.where(without, ANONYMOUS, keys)

    def _find_watermarks(self, duplicates: Ints | None) -> None:
        """By place: the type's highest, appended and watermark after the reading. A duplicate moves none of them."""
        type_, times = self.type, self.columns.event_times_us
        append = None if self.batch.append_us is None else self.batch.append_us[self.columns.rows]
        if duplicates is not None:
            times = times.copy()
            times[duplicates] = LONG_AGO
            if append is not None:
                append[duplicates] = LONG_AGO
        self.highest = np.maximum.accumulate(np.maximum(times, type_.highest))
        bounds, self.appended = self.highest, None
        if append is not None:
            self.appended = np.maximum.accumulate(np.maximum(append, type_.appended))
            bounds = np.minimum(bounds, self.appended)
        bounds = bounds - type_.rules.lateness_us
        if duplicates is not None:
            bounds[duplicates] = LONG_AGO
        self.watermarks = np.maximum.accumulate(np.maximum(bounds, type_.watermark))
        self.ordered_watermarks = self.watermarks[self.order]

    def _left(self, doubtful: Bools) -> Bools:
        """By device: whether it is left to the scalar form before any condition is looked at."""
        table, silence = self.table, self.type.rules.shortest_silence_us
        last = int(self.watermarks[-1])
        table.wake(last)
        left = doubtful
        sites = table.sites_of(self.columns)
        if not np.array_equal(here := table.sites[self.slots], sites):
            left = left | (here != sites)[self.order]
        if silence is not None:
            heard = self._before(table.heard)
            late = (self.ordered_times >= heard + silence) & (heard != LONG_AGO)
            left = left | late | (np.maximum(self.ordered_times, self.ordered_watermarks) + silence <= last)
        of_device: Bools = ~table.quiet[self.devices]
        if left.any():
            of_device |= np.logical_or.reduceat(left, self.begins)
        for window in table.windows:
            of_device |= ~window.fits(self.devices, np.where(of_device, 0, self.ends - self.begins))
        return of_device

    def _take_the_rest(self, done: Bools) -> list[Transition]:
        """Readings that are not done, and timers, each at its place in the log."""
        engine, type_, columns = self.engine, self.type, self.columns
        said: list[Transition] = []
        type_.wake_at = NEVER
        begin = 0
        for place in [*np.sort(self.order[~done]).tolist(), len(columns)]:
            self._run_timers(begin, place, said)
            if place < len(columns):
                self._stand_after(place - 1)
                said += _take_one(engine, columns, place, int(columns.rows[place]), self.batch)
            begin = place + 1
        self._stand_after(len(columns) - 1)
        self.table.settle()
        return said

    def _run_timers(self, begin: int, end: int, said: list[Transition]) -> None:
        """Those that the watermarks of readings from `begin` to before `end` reach: all evaluated, in columns. What
        the reading before them left overdue acts with the first."""
        engine, type_ = self.engine, self.type
        while begin < end and type_.heap:
            place = max(begin, int(np.searchsorted(self.watermarks, type_.heap[0][0])))
            if place >= end:
                return
            self._stand_after(place)
            said += engine.run_timers(
                type_,
                offset=int(self.batch.offsets[self.columns.rows[place]]),
                detected_at_us=self.batch.detected_at_us,
            )

    def _stand_after(self, place: int) -> None:
        if place >= 0:
            self.type.highest, self.type.watermark = int(self.highest[place]), int(self.watermarks[place])
            if self.appended is not None:
                self.type.appended = int(self.appended[place])
