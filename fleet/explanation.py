"""Why a rule says what it says: the value of each part of its conditions for one device at one moment."""

from dataclasses import dataclass

from fleet.device_state import DeviceState
from fleet.evaluation import compile_value, parts
from fleet.expression import parse_expression, text_of
from fleet.ruleset import CompiledRule


@dataclass(frozen=True)
class Part:
    text: str
    value: float | bool | None
    """None: unknown."""


@dataclass(frozen=True)
class Explanation:
    path: str
    """`when`, `clear`, or `levels.critical.when`."""
    parts: tuple[Part, ...]
    """The whole condition first, then what it is made of."""


def explain(device: DeviceState, rule: CompiledRule, time_us: int) -> list[Explanation]:
    """Changes nothing. Exact for times not before the device's clock: windows and values are kept for those only."""
    oldest = time_us - device.type.rules.stale_us
    found = []
    for path, condition in rule.spec.conditions():
        for key in ("when", "clear"):
            text = getattr(condition, key)
            if text is not None:
                shown = tuple(
                    Part(
                        text_of(node),
                        compile_value(node, rule.places)(device.values, device.times, oldest, time_us, device),
                    )
                    for node in parts(parse_expression(text))
                )
                found.append(Explanation(f"{path}.{key}" if path else key, shown))
    return found
