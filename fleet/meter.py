"""The meter of a device type: its counter of energy, if it has one, and what its readings can mean."""

from collections.abc import Mapping
from datetime import timedelta

from fleet.energy import HOUR_US, Meter
from fleet.local_time import LocalTime
from fleet.spec import RuledType
from fleet.units import WATT_HOURS

LEAST_GAP = timedelta(minutes=15)
"""A shorter silence is no gap, however often the type reports: docs/decisions/0045."""
US = timedelta(microseconds=1)


def meter_of(spec: RuledType) -> Meter | None:
    """The first metric that is a counter with a unit of energy. What its appliance can use at most is the end of the
    range of the first metric in watts."""
    for name, metric in spec.metrics.items():
        if metric.kind == "counter" and metric.unit in WATT_HOURS:
            gap = max(LEAST_GAP, spec.silent_after or LEAST_GAP)
            cadence = timedelta(0) if spec.cadence == "event" else spec.cadence
            watts = [m.range.high for m in spec.metrics.values() if m.unit == "watt" and m.range]
            return Meter(name, WATT_HOURS[metric.unit], gap // US, cadence // US, *map(float, watts[:1]))
    return None


def power_of(spec: RuledType) -> str | None:
    """The metric that says what it uses now, in watts."""
    return next((name for name, metric in spec.metrics.items() if metric.unit == "watt"), None)


def appliances_of(defaults: Mapping[str, float]) -> list[str]:
    """Params that are 0 unless a device says that it measures such an appliance. `defaults`: as of kind_of."""
    return sorted(name for name, value in defaults.items() if value == 0)


def kind_of(defaults: Mapping[str, float], params: Mapping[str, float]) -> str | None:
    """Which appliance it measures, by its params, such as `fridge: 1`. `defaults`: those of its type
    (fleet.registry.params_of). Empty: its type makes no difference; None: not known."""
    appliances = appliances_of(defaults)
    return ", ".join(name for name in appliances if params.get(name)) or (None if appliances else "")


def phase_us(zone: LocalTime, at_us: int) -> int:
    """How long after the full hour of UTC the local hours of that time begin: 0 for most, 30 or 15 minutes for some."""
    local = zone.at(at_us)
    offset = local.utcoffset() if local else None
    return -((offset or timedelta(0)) // US) % HOUR_US
