"""What a device obeys: the commands of its type, as written in a spec, and one given with its arguments.

```yaml
commands:
  on: {sets: {on: 1}}
  dim: {args: {level: {unit: percent, range: [0, 100]}}, sets: {brightness: level}, expires: 30s}
```
A device has obeyed when its readings show what the command sets. `expires` is the time it has for that.
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from math import isfinite
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field

from fleet.duration import Span
from fleet.errors import CommandError
from fleet.nearest import nearest
from fleet.quantity import Range, UnitName, named_numbers
from fleet.rule import Identifier, Strict

if TYPE_CHECKING:
    from fleet.spec import Metric, RuledType

EXPIRES = timedelta(minutes=1)


def _number_or_name(value: object) -> object:
    if isinstance(value, bool | int | float) and isfinite(value):
        return float(value)
    if isinstance(value, str) and value:
        return value
    raise ValueError("expected a number, or the name of an argument")


Wanted = Annotated[float | str, BeforeValidator(_number_or_name)]


class Argument(Strict):
    unit: UnitName
    range: Range | None = None


class Command(Strict):
    title: str = ""
    args: dict[Identifier, Argument] = {}
    sets: dict[str, Wanted] = Field(min_length=1)
    """Metric → the value that obeying gives it: a number, or an argument."""
    expires: Span = EXPIRES


def command_problems(commands: Mapping[str, Command], metrics: Mapping[str, "Metric"]) -> list[str]:
    """What is wrong with a type's commands, a line each: `path: problem`."""
    return [
        f"commands.{name}.sets.{metric}: {problem}"
        for name, command in commands.items()
        for metric, value in command.sets.items()
        for problem in _sets_problems(command, metric, value, metrics)
    ]


def _sets_problems(
    command: Command, name: str, value: float | str, metrics: Mapping[str, "Metric"]
) -> Iterator[str]:  # fmt: skip
    metric = metrics.get(name)
    if metric is None:
        yield f"{name!r} is no metric of this type{nearest(name, metrics)}"
        return
    if metric.kind == "counter":
        yield "a counter counts; a command cannot set it"
    if isinstance(value, float):
        if metric.range and not metric.range.low <= value <= metric.range.high:
            yield f"{value:g} is outside the metric's range, {metric.range}"
        return
    argument = command.args.get(value)
    if argument is None:
        yield f"{value!r} is no argument of this command{nearest(value, command.args)}"
        return
    if argument.unit != metric.unit:
        yield f"argument {value} is in {argument.unit}, the metric in {metric.unit}; make them alike"
    if metric.range and argument.range is None:
        yield f"argument {value} takes any number, the metric only {metric.range}; give it a range"
    elif metric.range and argument.range and not argument.range.inside(metric.range):
        yield f"argument {value} takes {argument.range}, the metric only {metric.range}"


def command_of(spec: "RuledType", name: str) -> Command:
    """Raises CommandError with the nearest name."""
    if name not in spec.commands:
        if not spec.commands:
            raise CommandError(f"a {spec.type} obeys no commands: its spec has none")
        raise CommandError(f"a {spec.type} knows no command {name[:80]!r}{nearest(name, spec.commands)}")
    return spec.commands[name]


def wanted_values(spec: "RuledType", name: str, args: Mapping[str, float]) -> dict[str, float]:
    """Metric → the value that it is to have. Raises CommandError with all that is wrong with the arguments."""
    command = command_of(spec, name)
    if problems := list(argument_problems(name, command, args)):
        raise CommandError("\n".join(problems))
    return {metric: value if isinstance(value, float) else args[value] for metric, value in command.sets.items()}


def argument_problems(name: str, command: Command, args: Mapping[str, float]) -> Iterator[str]:
    for given, value in args.items():
        argument = command.args.get(given)
        if argument is None:
            said = nearest(given, command.args) if command.args else "; it takes none"
            yield f"{name} has no argument {given[:80]!r}{said}"
        elif not isfinite(value) or (argument.range and not argument.range.low <= value <= argument.range.high):
            yield f"{given} is {argument.range or 'a number'} in {argument.unit}; found {value:g}"
    for missing, argument in command.args.items():
        if missing not in args:
            bounds = f", {argument.range}" if argument.range else ""
            yield f"{name} wants {missing}=… ({argument.unit}{bounds})"


def parse_args(texts: list[str]) -> dict[str, float]:
    """`["level=40"]` → {"level": 40.0}. Raises CommandError saying which is wrong."""
    try:
        return named_numbers(texts, "argument", "level=40", {"true": 1.0, "on": 1.0, "false": 0.0, "off": 0.0})
    except ValueError as error:
        raise CommandError(str(error)) from None
