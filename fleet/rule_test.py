"""Rule tests, run: a spec, the records of one partition, the transitions that must come of them. RULES.md §6.

Nothing here knows Kafka: each test runs an engine of its own, from the first line to the last.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from fleet.duration import format_duration
from fleet.engine import Engine
from fleet.errors import ConfigurationError, SpecError
from fleet.reading import Reading
from fleet.rule_test_file import TIMES, Advance, FindTypes, Restart, RuleTest, RuleTestFile, inline_spec
from fleet.transition import Transition

__all__ = ["Result", "check_file", "inline_spec", "run", "transitions"]

ALWAYS_SHOWN = ("at", "device", "rule", "to")


@dataclass(frozen=True)
class Result:
    """`diff` is empty where the test passed; else the first difference, for people."""

    file: str
    name: str
    diff: str

    @property
    def ok(self) -> bool:
        return not self.diff


def check_file(text: str, file: str, find_types: FindTypes) -> list[Result]:
    """Runs each test of a file. What is wrong with a test fails that test, what is wrong with the file fails it as one
    test without a name."""
    try:
        document = RuleTestFile(text, file, find_types)
    except (SpecError, ConfigurationError) as error:
        return [Result(file, "", str(error))]
    results = []
    for place, data in enumerate(document.tests):
        name = data.get("name") if isinstance(data, dict) else None
        try:
            test = document.test(place, data)
            results.append(Result(file, test.name, run(test)))
        except SpecError as error:
            results.append(Result(file, str(name or f"test {place + 1}"), str(error)))
    return results


def run(test: RuleTest) -> str:
    """The first difference between what was expected and what came; empty where there is none."""
    found = transitions(test)
    for place, transition in enumerate(found):
        if place >= len(test.expected):
            return (
                f"transition {place + 1} was not expected; {_number(len(test.expected))} expected\n"
                f"  found     {_shown(transition, ALWAYS_SHOWN)}"
            )
        expected = test.expected[place]
        wrong = [key for key, value in expected.items() if not _matches(value, _value(transition, key))]
        if wrong:
            said = _line({key: expected[key] for key in wrong})
            came = _shown(transition, wrong)
            return (
                f"transition {place + 1} of {len(test.expected)} differs ({test.places[place]})\n"
                f"  expected  {_line(expected)}\n"
                f"  found     {_shown(transition, dict.fromkeys((*ALWAYS_SHOWN, *expected)))}\n"
                f"  expected {said}, found {came}"
            )
    if len(found) < len(test.expected):
        return (
            f"transition {len(found) + 1} of {len(test.expected)} did not come ({test.places[len(found)]})\n"
            f"  expected  {_line(test.expected[len(found)])}"
        )
    return ""


def transitions(test: RuleTest) -> list[Transition]:
    """All that the test's records cause, in order of emission. The offset of a record is its place in the input."""
    engine = Engine(0, test.specs)
    found: list[Transition] = []
    for entry in test.registry:
        found += engine.control(entry, offset=-1)
    for offset, step in enumerate(test.steps):
        if isinstance(step, Restart):
            engine = Engine.restore(engine.snapshot())
        elif isinstance(step, Reading):
            found += engine.reading(step, offset=offset)
        elif isinstance(step, Advance):
            found += engine.advance(int(step), offset=offset)
        else:
            found += engine.control(step, offset=offset)
    return found


def _value(transition: Transition, key: str) -> Any:
    if key == "source":
        return {"partition": transition.partition, "offset": transition.offset}
    return getattr(transition, TIMES.get(key, key))


def _matches(expected: Any, found: Any) -> bool:
    """Of a mapping, the keys given; of numbers, as near as arithmetic comes."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return all(key in found and _matches(value, found[key]) for key, value in expected.items())
    numbers = isinstance(expected, int | float) and isinstance(found, int | float)
    if numbers and not isinstance(expected, bool) and not isinstance(found, bool):
        return math.isclose(expected, found, rel_tol=1e-9, abs_tol=1e-12)
    return bool(expected == found)


def _shown(transition: Transition, keys: Iterable[str]) -> str:
    return _line({key: _value(transition, key) for key in keys})


def _line(fields: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{k}: {_time(v) if k in TIMES else _text(v)}" for k, v in fields.items()) + "}"


def _text(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _time(time_us: int) -> str:
    return format_duration(timedelta(microseconds=time_us))


def _number(n: int) -> str:
    return {0: "none was", 1: "only 1 was"}.get(n, f"only {n} were")
