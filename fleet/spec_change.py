"""A type's new text, taken over by the devices that are there: what keeps its name keeps its state."""

from typing import TYPE_CHECKING, Any

from fleet import timer
from fleet.alert_state import LONG_AGO, Alert, Machine
from fleet.control import Spec
from fleet.counter_total import CounterTotal
from fleet.device_state import DeviceState, TypeState
from fleet.ruleset import CompiledRule, RuleSet
from fleet.spec import RuledType
from fleet.spec_file import parse_yaml, validated
from fleet.window import Window

if TYPE_CHECKING:
    from fleet.engine import Engine


def read_spec(text: str, name: str) -> RuledType:
    """Raises SpecError."""
    data, lines = parse_yaml(text, name)
    return validated(RuledType, data, lines, name)


def change_spec(engine: "Engine", record: Spec) -> None:
    rules = RuleSet(read_spec(record.text, f"{record.type}.yaml"))
    type_ = engine.known.types.get(rules.name)
    if type_ is None:
        type_ = engine.known.types[rules.name] = TypeState(rules)
        type_.watermark = engine.known.floor
    else:
        for _, device in sorted(type_.devices.items()):
            _carry_over(engine, device, type_.rules, rules, record.at * 1000)
        type_.rules = rules
        for device in type_.devices.values():
            timer.rearm(device)
    engine.known.index_lookers()


def _carry_over(engine: "Engine", device: DeviceState, old: RuleSet, new: RuleSet, at_us: int) -> None:
    pairs = [(rule, new.rule(rule.id)) for rule in old.rules]
    kept: dict[str, Alert] = {}
    pinned: dict[str, int] = {}
    evaluated: dict[int, int] = {}
    for (rule, successor), alert in zip(pairs, device.alerts, strict=True):
        if successor is None or successor.kind != rule.kind:
            if alert is not None:
                engine.evaluator.end(device, rule, alert, at_us, "rule_removed", new.spec.version)
            continue
        if alert is not None:
            kept[rule.id] = _carried(alert, rule, successor)
        elif rule.no_data_us is not None and rule.no_data_us != successor.no_data_us:
            pinned[rule.id] = device.silence_due(rule)
        elif device.pinned and rule.id in device.pinned:
            pinned[rule.id] = device.pinned[rule.id]
        if device.evaluated and rule.place in device.evaluated:
            evaluated[successor.place] = device.evaluated[rule.place]
    device.alerts = [kept.get(rule.id) for rule in new.rules]
    device.silences = sum(rule.no_data_us is not None and rule.id in kept for rule in new.rules)
    device.pinned = pinned or None
    device.evaluated = evaluated or None
    device.params = new.params_of(device.own_params)
    _carry_values(device, old, new)


def _carried(alert: Alert, old: CompiledRule, new: CompiledRule) -> Alert:
    by_severity = {level.severity: machine for level, machine in zip(old.levels, alert.machines, strict=True)}
    alert.machines = [by_severity.get(level.severity) or Machine() for level in new.levels]
    if new.flap is None:
        alert.changes, alert.was_firing, alert.flapping = 0, None, False
    return alert


def _carry_values(device: DeviceState, old: RuleSet, new: RuleSet) -> None:
    def by_name(names: Any, items: list[Any]) -> dict[str, Any]:
        return dict(zip(names, items, strict=False))

    values, times = by_name(old.places.metrics, device.values), by_name(old.places.metrics, device.times)
    device.values = [values.get(name) for name in new.places.metrics]
    device.times = [times.get(name, LONG_AGO) for name in new.places.metrics]
    windows = by_name(old.places.windows, device.windows)
    device.windows = [windows.get(name) or Window() for name in new.places.windows]
    totals = by_name(old.places.totals, device.totals)
    device.totals = [totals.get(name) or CounterTotal() for name in new.places.totals]
    half = len(old.places.previous)
    previous = by_name(old.places.previous, device.previous[:half])
    last = by_name(old.places.previous, device.previous[half:])
    names = list(new.places.previous)
    device.previous = [*(previous.get(name) for name in names), *(last.get(name) for name in names)]
