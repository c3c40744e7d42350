"""What is remembered of one device, and of one type in a partition. 40,000 of them: slots and lists, no dicts where a
list will do, and a rule's state only where there is something to remember.
"""

from array import array
from collections.abc import Container, Iterator
from typing import TYPE_CHECKING, Any

from fleet.alert_state import LONG_AGO, NEVER, Alert
from fleet.counter_total import CounterTotal
from fleet.ruleset import CompiledRule, RuleSet
from fleet.site import Site
from fleet.window import Window

if TYPE_CHECKING:
    from fleet.column_engine import ColumnRules
    from fleet.device_table import DeviceTable

RECENT = 32
"""Readings of a device that a new one is compared with."""

Mark = tuple[int, int, int]
"""Of a rule's alerts so far: the latest start, its k, the highest k there was."""


class DeviceState:
    __slots__ = (
        "alerts", "armed", "clock", "evaluated", "heard", "id", "lag", "marks", "newest", "next_due", "own_params",
        "params", "pinned", "place", "previous", "quiet", "recent", "registered", "silences", "site", "slot", "times",
        "totals", "type", "values", "windows",
    )  # fmt: skip

    def __init__(self, device_id: str, type_: "TypeState", site: Site):
        rules = type_.rules
        self.id = device_id
        self.type = type_
        self.site = site
        self.clock = LONG_AGO
        self.heard = LONG_AGO
        """Event time of the last in-order reading."""
        self.registered = LONG_AGO
        self.lag = 0
        """How far that reading was behind the watermark."""
        self.values: list[Any] = [None] * len(rules.ranges)
        self.times: list[int] = [LONG_AGO] * len(rules.ranges)
        self.recent = array("q")
        """A ring of hashes of the last readings; `place` is the oldest of a full one."""
        self.place = 0
        self.newest = LONG_AGO
        """The highest event time taken: a later one cannot be a duplicate."""
        self.windows = [Window() for _ in rules.windows]
        self.previous: list[Any] = [None] * (2 * len(rules.places.previous))
        """By place in `previous`, the value before the last known one; behind them all, the last known ones."""
        self.totals = [CounterTotal() for _ in rules.places.totals]
        self.own_params: dict[str, float] | None = None
        self.params = rules.default_params
        self.alerts: list[Alert | None] = [None] * len(rules.rules)
        self.silences = 0
        """no_data rules with an alert here: firing, or quiet."""
        self.evaluated: dict[int, int] | None = None
        """Rule → its last evaluation, where a site function's came from another device and lies beyond the clock."""
        self.pinned: dict[str, int] | None = None
        """no_data rule → due time, where a new spec left the old one standing."""
        self.marks: dict[str, Mark] | None = None
        self.next_due = NEVER
        """No timer is due before it."""
        self.armed = NEVER
        """The earliest of the device's entries in the type's heap."""
        self.slot = -1
        """In the type's table; -1: none yet."""
        self.quiet = False
        """Its state is in the table, see fleet.device_table; nothing of it may be read here but what names it."""

    def fresh(self, place: int, time_us: int) -> float | None:
        """A present value as it holds at a time."""
        return self.values[place] if self.times[place] >= time_us - self.type.rules.stale_us else None

    def silent_since(self) -> int:
        return self.heard if self.heard != LONG_AGO else self.registered

    def silence_due(self, rule: CompiledRule) -> int:
        """When a no_data rule fires that has not fired yet."""
        assert rule.no_data_us is not None
        if self.pinned and rule.id in self.pinned:
            return self.pinned[rule.id]
        return self.silent_since() + rule.no_data_us

    def timers(self) -> Iterator[tuple[int, int]]:
        """(due time, rule's place), of each timer that is set."""
        for rule, alert in zip(self.type.rules.rules, self.alerts, strict=True):
            if rule.no_data_us is not None:
                if alert is None:
                    yield self.silence_due(rule), rule.place
            elif alert is not None:
                for machine in alert.machines:
                    if machine.due != NEVER:
                        yield machine.due, rule.place


class Plan:
    """What a reading that carries certain metrics does, worked out once per set of them."""

    __slots__ = ("kept", "key", "lookers", "rules", "slots", "with_silences")

    def __init__(
        self,
        slots: list[tuple[int, float, float] | None],
        kept: list[tuple[int, int | None, int | None, int | None]],
        rules: list[CompiledRule],
        with_silences: list[CompiledRule],
        lookers: "list[tuple[TypeState, CompiledRule]]",
        key: int,
    ):
        self.slots = slots
        """By place in the reading: metric, lowest and highest value that is used; None: no metric of the type."""
        self.kept = kept
        """Metrics whose values are kept beyond the present one: metric, window, previous, total."""
        self.rules = rules
        """The type's own that use a metric among them."""
        self.with_silences = with_silences
        """Those and the no_data rules, in the spec's order."""
        self.lookers = lookers
        """Rules whose site functions look at one of them."""
        self.key = key
        """Stands for the metric names where duplicates are looked for."""


class TypeState:
    """One type in a partition: its rules, devices, timers and watermark."""

    __slots__ = (
        "active", "appended", "capped", "column_rules", "devices", "heap", "highest", "is_scalar", "name", "plans",
        "retired", "rules", "table", "wake_at", "watermark",
    )  # fmt: skip

    def __init__(self, rules: RuleSet):
        self.name = rules.name
        self.rules = rules
        self.devices: dict[str, DeviceState] = {}
        self.plans: dict[tuple[str, ...], Plan] = {}
        self.heap: list[tuple[int, str]] = []
        """(watermark at which to look, device); see fleet.timer."""
        self.highest = LONG_AGO
        """Event time."""
        self.appended = LONG_AGO
        """Append time, of its readings and the heartbeats."""
        self.watermark = LONG_AGO
        self.active: dict[str, int] = {}
        """Rule → alerts that fire now, with those beyond the cap; a rule without any may be missing."""
        self.capped = 0
        """Alerts that fire now, and were beyond their rule's cap when they began to."""
        self.retired: dict[str, dict[str, Mark]] = {}
        """Marks of devices that are gone: should they come back, their alerts need other names."""
        self.is_scalar = False
        """All its readings go through the scalar form: where devices look at each other, and for totals."""
        self.table: DeviceTable | None = None
        self.column_rules: ColumnRules | None = None
        self.wake_at = NEVER
        """No timer of a quiet device acts before this watermark."""

    def find(self, device_id: str) -> DeviceState | None:
        """With its state."""
        device = self.devices.get(device_id)
        if device is not None and device.quiet:
            assert self.table is not None
            self.table.load(device)
        return device

    def wake(self) -> None:
        assert self.table is not None
        self.table.wake(self.watermark)
        self.table.settle()

    def all_loaded(self) -> None:
        """Every device has its state, and the table is gone: before the rules change."""
        if self.table is not None:
            self.table.load_all()
            for device in self.devices.values():
                device.slot = -1
        self.table = self.column_rules = None
        self.wake_at = NEVER

    def settle_form(self, lookers: Container[tuple[str, str]]) -> None:
        """After any type's rules changed. `lookers`: (type, metric) that a site function looks at."""
        rules = self.rules
        self.is_scalar = bool(
            rules.places.totals
            or any(rule.looked_at for rule in rules.rules)
            or any((self.name, metric) in lookers for metric in rules.places.metrics)
        )
        if self.is_scalar:
            self.all_loaded()

    def count(self, rule: CompiledRule, alert: Alert, change: int) -> None:
        """An alert has begun to fire (1), or fires no more (-1)."""
        self.active[rule.id] = self.active.get(rule.id, 0) + change
        self.capped += change * alert.capped
