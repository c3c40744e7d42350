"""The devices of a type in columns, a slot a device: what every reading changes, for readings by the thousand.

A device is quiet while none of its rules remembers anything. Then its state stands here, and its DeviceState is an
empty shell; `load` fills the shell again, and from then on it has the state, until `store` takes it back. Timers of
quiet devices are those of no_data alone: none is in the type's heap, `wake` finds those that are due.
"""

from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from fleet import timer
from fleet.alert_state import LONG_AGO, NEVER
from fleet.device_state import RECENT, DeviceState, TypeState
from fleet.text import Bools, Ints
from fleet.window_table import WindowTable

if TYPE_CHECKING:
    from fleet.columns import Columns
    from fleet.engine import Engine

FIRST_CAPACITY = 256
BY_METRIC = ("values", "times", "previous", "params")
"""Arrays of a row a metric or param."""
NOTHING: Any = ()


class DeviceTable:
    def __init__(self, type_: TypeState):
        rules = type_.rules
        self.type = type_
        self.devices: list[DeviceState | None] = []
        """By slot; a slot is never used again."""
        metrics, previous = len(rules.ranges), 2 * len(rules.places.previous)
        self._fills: dict[str, Any] = {
            "quiet": np.False_, "clock": LONG_AGO, "heard": LONG_AGO, "newest": LONG_AGO, "lag": 0, "taken": 0,
            "sites": 0, "recent": np.zeros(RECENT, np.int64),
            "values": np.full(metrics, np.nan), "times": np.full(metrics, LONG_AGO),
            "previous": np.full(previous, np.nan), "params": np.array(rules.default_params, np.float64),
        }  # fmt: skip
        """What a device begins with."""
        self.quiet, self.clock, self.heard, self.newest, self.lag, self.taken, self.sites = (
            self._filled(name, FIRST_CAPACITY) for name in list(self._fills)[:7]
        )
        """`taken`: readings so far, to 32; above that, 32 and the place of the oldest in the ring `recent`."""
        self.recent = self._filled("recent", FIRST_CAPACITY)
        self.values, self.times, self.previous, self.params = (self._filled(name, FIRST_CAPACITY) for name in BY_METRIC)
        """By metric, or param, and slot."""
        self.windows = [WindowTable(length, FIRST_CAPACITY) for length in rules.windows.values()]
        self.site_names: dict[str, int] = {}
        self._devices_known: Any = None
        """The Names that `_slots` and `_site_numbers` translate, and those."""
        self._sites_known: Any = None
        self._slots = self._site_numbers = np.empty(0, np.int64)

    def _filled(self, name: str, count: int) -> Any:
        fill = np.asarray(self._fills[name])
        if name in BY_METRIC:
            return np.repeat(fill[:, None], count, axis=1)
        return np.tile(fill, (count, *[1] * fill.ndim))

    # Slots

    def slots_of(self, engine: "Engine", columns: "Columns") -> Ints:
        """Of each reading's device. Those that are new are made, at the site of their first reading."""
        if self._devices_known is not columns.device_names:
            self._devices_known, self._slots = columns.device_names, np.empty(0, np.int64)
        names = columns.device_names.names
        self._slots = _longer(self._slots, len(names))
        slots = self._slots[columns.devices]
        for place in np.flatnonzero(slots < 0).tolist():
            number = int(columns.devices[place])
            if self._slots[number] < 0:
                device = self.type.devices.get(names[number])
                if device is None:
                    site = columns.site_names.names[columns.sites[place]]
                    self._begin(engine.known.add_device(self.type, names[number], site))
                    device = self.type.devices[names[number]]
                self._slots[number] = self.slot(device)
            slots[place] = self._slots[number]
        return slots

    def sites_of(self, columns: "Columns") -> Ints:
        if self._sites_known is not columns.site_names:
            self._sites_known, self._site_numbers = columns.site_names, np.empty(0, np.int64)
        known, names = len(self._site_numbers), columns.site_names.names
        if known < len(names):
            numbers = [self.site_number(name) for name in names[known:]]
            self._site_numbers = np.concatenate([self._site_numbers, np.array(numbers, np.int64)])
        return self._site_numbers[columns.sites]

    def site_number(self, name: str) -> int:
        return self.site_names.setdefault(name, len(self.site_names))

    def _begin(self, device: DeviceState) -> None:
        """A device that nothing is known of but its name and site."""
        slot = self.slot(device)
        self.sites[slot] = self.site_number(device.site.name)
        self.quiet[slot] = True
        self._empty(device)

    def slot(self, device: DeviceState) -> int:
        if device.slot < 0:
            device.slot = len(self.devices)
            self.devices.append(device)
            if device.slot == len(self.quiet):
                self._grow(2 * device.slot)
        return device.slot

    def _grow(self, capacity: int) -> None:
        more = capacity - len(self.quiet)
        for name in self._fills:
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, self._filled(name, more)], axis=1 if name in BY_METRIC else 0))
        for window in self.windows:
            window.grow(capacity)

    def forget(self, device: DeviceState) -> None:
        """A retired one."""
        if device.slot >= 0:
            self.quiet[device.slot] = False
            self.devices[device.slot] = None
            self._devices_known = None

    # State to and fro

    def store(self, device: DeviceState) -> None:
        """It must be quiet, and have a slot."""
        slot = device.slot
        self.clock[slot], self.heard[slot], self.newest[slot] = device.clock, device.heard, device.newest
        self.lag[slot] = device.lag
        self.sites[slot] = self.site_number(device.site.name)
        self.values[:, slot] = device.values
        self.times[:, slot] = device.times
        self.previous[:, slot] = device.previous
        self.params[:, slot] = device.params
        filled = len(device.recent)
        self.recent[slot, :filled] = device.recent
        self.taken[slot] = filled if filled < RECENT else RECENT + device.place
        for table, window in zip(self.windows, device.windows, strict=True):
            table.store(slot, window)
        self.quiet[slot] = True
        self._empty(device)

    def _empty(self, device: DeviceState) -> None:
        device.values = device.times = device.previous = device.windows = device.alerts = device.recent = NOTHING
        device.next_due = device.armed = NEVER
        device.quiet = True

    def load(self, device: DeviceState) -> None:
        slot = device.slot
        device.clock, device.heard, device.newest = (
            int(self.clock[slot]), int(self.heard[slot]), int(self.newest[slot]),
        )  # fmt: skip
        device.lag = int(self.lag[slot])
        device.values = [None if v != v else v for v in self.values[:, slot].tolist()]
        device.times = self.times[:, slot].tolist()
        device.previous = [None if v != v else v for v in self.previous[:, slot].tolist()]
        taken = int(self.taken[slot])
        device.recent = array("q", self.recent[slot, :taken].tobytes())
        device.place = max(taken - RECENT, 0)
        device.windows = [table.load(slot) for table in self.windows]
        device.alerts = [None] * len(self.type.rules.rules)
        device.quiet = False
        self.quiet[slot] = False
        if device.silent_since() != LONG_AGO:
            timer.rearm(device)

    def restore(self, devices: list[DeviceState], quiet: Bools, state: dict[str, Any], windows: list[Any]) -> None:
        """All devices of a new table, with the state of the quiet ones: arrays as here, by place in `devices`."""
        count = len(devices)
        self._grow(max(count, FIRST_CAPACITY))
        self.devices = list(devices)
        for slot, device in enumerate(devices):
            device.slot = slot
        for name, array_ in state.items():
            known = getattr(self, name)
            if name == "recent":
                known[:count] = array_
            else:
                known[..., :count] = array_
        for table, (counts, times, values) in zip(self.windows, windows, strict=True):
            table.restore(counts, times, values)
        self.sites[:count] = [self.site_number(device.site.name) for device in devices]
        self.quiet[:count] = quiet
        for place in np.flatnonzero(quiet).tolist():
            self._empty(devices[place])
            if devices[place].own_params:
                self.params[:, place] = devices[place].params
        self.settle()

    def load_all(self) -> None:
        for slot in np.flatnonzero(self.quiet).tolist():
            self.load(self.devices[slot])  # type: ignore[arg-type]

    # Silence

    def due(self) -> Ints:
        """By slot, the watermark at which a quiet device's silence is told."""
        silence = self.type.rules.shortest_silence_us
        assert silence is not None
        return np.where(self.quiet & (self.heard != LONG_AGO), self.heard + self.lag, NEVER) + silence

    def wake(self, watermark: int) -> None:
        """Loads the quiet devices with a timer that acts by then."""
        if self.type.rules.shortest_silence_us is not None:
            for slot in np.flatnonzero(self.due() <= watermark).tolist():
                self.load(self.devices[slot])  # type: ignore[arg-type]

    def settle(self) -> None:
        """Says when the next quiet device is to wake."""
        if self.type.rules.shortest_silence_us is not None:
            self.type.wake_at = int(self.due().min())


def is_quiet(device: DeviceState) -> bool:
    """Whether its state can stand in a table: it has been heard, and no rule of it remembers anything."""
    return (
        device.heard != LONG_AGO
        and not device.evaluated
        and not device.pinned
        and not any(alert is not None for alert in device.alerts)
    )


def _longer(numbers: Ints, length: int) -> Ints:
    return np.concatenate([numbers, np.full(length - len(numbers), -1, np.int64)]) if length > len(numbers) else numbers


def groups(slots: Ints) -> tuple[Ints, Ints, Bools]:
    """(order by device, each device's in order of the log; where each begins; which of the ordered begin one)"""
    order = np.argsort(slots.astype(np.uint16) if slots.max() < 1 << 16 else slots, kind="stable")
    ordered = slots[order]
    begins = np.ones(len(slots), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
    return order, np.flatnonzero(begins), begins
