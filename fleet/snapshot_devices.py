"""The devices of a type in a snapshot: in columns, so that 40,000 of them are written and read in a moment; what few
devices have beside them.

Devices stand in the order of the type's dict, quiet ones (see fleet.device_table) and others alike, so the bytes do not
say which form of the engine wrote them.
"""

from typing import Any

import msgspec
import numpy as np

from fleet import timer
from fleet.alert_state import LONG_AGO, Alert, Machine
from fleet.counter_total import CounterTotal
from fleet.device_state import RECENT, DeviceState, Mark, TypeState
from fleet.device_table import DeviceTable
from fleet.partition import Partition
from fleet.text import Bools, Ints
from fleet.window import Window
from fleet.window_table import limit_of

TIMES = ("clock", "heard", "newest", "lag")
INTS, DOUBLES = np.dtype("<i8"), np.dtype("<f8")


class Few(msgspec.Struct, array_like=True):
    """Of a device, what is not empty for few."""

    own_params: dict[str, float] | None
    pinned: dict[str, int] | None
    marks: dict[str, Mark] | None
    silences: int
    totals: list[tuple[float | None, int | None, list[float], int | None, list[float]]]
    alerts: list[tuple[int, list[Any], list[list[Any]]]]
    """(rule's place, the alert's fields but the machines, each machine's fields)"""
    evaluated: list[tuple[int, int]]

    def is_empty(self) -> bool:
        return not (
            self.own_params
            or self.pinned
            or self.marks
            or self.silences
            or self.totals
            or self.alerts
            or self.evaluated
        )


class Devices(msgspec.Struct, array_like=True):
    """Arrays are little-endian int64 and float64, an entry a device or a row a metric; NaN is unknown."""

    ids: list[str]
    site_names: list[str]
    sites: bytes
    registered: bytes
    state: dict[str, bytes]
    """clock, heard, newest, lag, taken, recent, values, times, previous, as fleet.device_table has them."""
    windows: list[tuple[bytes, bytes, bytes]]
    """Of each window: entries of each device, their times and values one after the other."""
    few: dict[int, Few]
    """By place."""


def write_devices(type_: TypeState) -> Devices:
    devices = list(type_.devices.values())
    names = sorted({device.site.name for device in devices})
    number = {name: place for place, name in enumerate(names)}
    few = {place: kept for place, device in enumerate(devices) if not (kept := _few(device)).is_empty()}
    writer = _Writer(type_, devices)
    return Devices(
        [device.id for device in devices],
        names,
        np.array([number[device.site.name] for device in devices], INTS).tobytes(),
        np.array([device.registered for device in devices], INTS).tobytes(),
        {name: array.tobytes() for name, array in writer.state().items()},
        [writer.window(place) for place in range(len(type_.rules.windows))],
        few,
    )


class _Writer:
    def __init__(self, type_: TypeState, devices: list[DeviceState]):
        self.table, self.devices = type_.table or DeviceTable(type_), devices
        self.slots = np.array([device.slot if device.quiet else -1 for device in devices], np.int64)
        self.live = np.flatnonzero(self.slots < 0).tolist()

    def state(self) -> dict[str, Any]:
        table, live = self.table, self.live
        found = {name: getattr(table, name)[self.slots] for name in (*TIMES, "taken", "recent")}
        found |= {name: getattr(table, name)[:, self.slots] for name in ("values", "times", "previous")}
        for place in live:
            device = self.devices[place]
            for name in TIMES:
                found[name][place] = getattr(device, name)
            for name in ("values", "times", "previous"):
                found[name][:, place] = getattr(device, name)
            filled = len(device.recent)
            found["taken"][place] = filled if filled < RECENT else RECENT + device.place
            found["recent"][place, :filled] = device.recent
        found["recent"][np.arange(RECENT) >= found["taken"][:, None]] = 0
        return found

    def window(self, number: int) -> tuple[bytes, bytes, bytes]:
        table = self.table.windows[number]
        quiet = self.slots >= 0
        some, times, values = table.dump(self.slots[quiet])
        counts = np.zeros(len(self.slots), np.int64)
        counts[quiet] = some
        if not self.live:
            return counts.tobytes(), times.tobytes(), values.tobytes()
        for place in self.live:
            counts[place] = len(self.devices[place].windows[number])
        begins = np.cumsum(counts) - counts
        is_quiet = np.repeat(quiet, counts)
        all_times, all_values = np.empty(len(is_quiet), np.int64), np.empty(len(is_quiet))
        all_times[is_quiet], all_values[is_quiet] = times, values
        for place in self.live:
            window, begin = self.devices[place].windows[number], int(begins[place])
            those = slice(begin, begin + len(window))
            all_times[those], all_values[those] = window.times[window.start :], window.values[window.start :]
        return counts.tobytes(), all_times.tobytes(), all_values.tobytes()


def _few(device: DeviceState) -> Few:
    return Few(
        device.own_params, device.pinned, device.marks, device.silences,
        [total.dump() for total in device.totals],
        [(place, *_write_alert(alert)) for place, alert in enumerate(device.alerts) if alert is not None],
        sorted((device.evaluated or {}).items()),
    )  # fmt: skip


def _write_alert(alert: Alert) -> tuple[list[Any], list[list[Any]]]:
    _, *fields = msgspec.structs.astuple(alert)
    machines = []
    for machine in alert.machines:
        *rest, outcomes = msgspec.structs.astuple(machine)
        # As bytes: of 10,000 outcomes, an integer is longer than msgpack's.
        machines.append([*rest, outcomes.to_bytes((outcomes.bit_length() + 7) // 8, "big")])
    return fields, machines


def read_devices(known: Partition, type_: TypeState, stored: Devices) -> None:
    """Into a type that has none yet: quiet ones into its table."""
    count = len(stored.ids)
    sites, registered = _ints(stored.sites).tolist(), _ints(stored.registered).tolist()
    devices = [
        known.add_device(type_, name, stored.site_names[site]) for name, site in zip(stored.ids, sites, strict=True)
    ]
    for device, at in zip(devices, registered, strict=True):
        device.registered = at
    state: dict[str, Any] = {name: _ints(stored.state[name]) for name in (*TIMES, "taken")}
    state["recent"] = _ints(stored.state["recent"]).reshape(count, RECENT)
    state["times"] = _ints(stored.state["times"]).reshape(len(type_.rules.ranges), count)
    for name, rows in (("values", len(type_.rules.ranges)), ("previous", 2 * len(type_.rules.places.previous))):
        state[name] = np.frombuffer(stored.state[name], DOUBLES).reshape(rows, count)
    windows = [(_ints(c), _ints(t), np.frombuffer(v, DOUBLES)) for c, t, v in stored.windows]
    quiet = _read_few(type_, stored, devices) & (state["heard"] != LONG_AGO)
    for counts, *_ in windows:
        quiet &= counts <= limit_of(counts.mean() if count else 0.0)
    if type_.is_scalar:
        quiet[:] = False
    if quiet.any():
        type_.table = DeviceTable(type_)
        some = [(np.where(quiet, c, 0), t[those], v[those]) for c, t, v in windows for those in [np.repeat(quiet, c)]]
        type_.table.restore(devices, quiet, state, some)
    ends = [np.cumsum(counts) for counts, *_ in windows]
    for place in np.flatnonzero(~quiet).tolist():
        _fill(devices[place], place, state, windows, ends)


def _read_few(type_: TypeState, stored: Devices, devices: list[DeviceState]) -> Bools:
    """Returns which devices have nothing that keeps them from being quiet."""
    quiet = np.ones(len(devices), np.bool_)
    for place, few in stored.few.items():
        device = devices[place]
        device.own_params, device.pinned, device.silences = few.own_params, few.pinned, few.silences
        device.marks = few.marks
        device.params = type_.rules.params_of(device.own_params)
        device.totals = [CounterTotal(*total) for total in few.totals] or device.totals
        for rule, fields, machines in few.alerts:
            alert = device.alerts[rule] = Alert([_read_machine(*machine) for machine in machines], *fields)
            if alert.rank >= 0:
                type_.count(type_.rules.rules[rule], alert, 1)
        device.evaluated = dict(few.evaluated) or None
        quiet[place] = not (few.pinned or few.alerts or few.evaluated)
    return quiet


def _fill(device: DeviceState, place: int, state: dict[str, Any], windows: list[Any], ends: list[Ints]) -> None:
    for name in TIMES:
        setattr(device, name, int(state[name][place]))
    device.values = [None if v != v else v for v in state["values"][:, place].tolist()]
    device.times = state["times"][:, place].tolist()
    device.previous = [None if v != v else v for v in state["previous"][:, place].tolist()]
    taken = int(state["taken"][place])
    device.recent.frombytes(state["recent"][place, :taken].tobytes())
    device.place = max(taken - RECENT, 0)
    for number, ((counts, times, values), end) in enumerate(zip(windows, ends, strict=True)):
        those = slice(int(end[place] - counts[place]), int(end[place]))
        device.windows[number] = Window(times[those].tobytes(), values[those].tobytes())
    timer.rearm(device)


def _ints(data: bytes) -> Ints:
    return np.frombuffer(data, INTS)


def _read_machine(*fields: Any) -> Machine:
    machine = Machine(*fields)
    machine.outcomes = int.from_bytes(fields[-1], "big")
    return machine
