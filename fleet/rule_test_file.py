"""Rule tests as files: YAML → RuleTest, with file and line in every error. RULES.md §6."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import yaml

from fleet.catalog import site_problems
from fleet.control import Control, Device, Resolve, Retire, Spec
from fleet.duration import parse_duration
from fleet.errors import SpecError
from fleet.nearest import nearest
from fleet.reading import Reading
from fleet.site import DEFAULT_SITE
from fleet.spec import RuledType
from fleet.spec_file import Path_, line_of, parse_yaml, validated

T = TypeVar("T")
FindTypes = Callable[[str], list[RuledType]]
"""A type's name → its spec first, then the other types of its system."""

READING_KEYS = ("at", "device", "site", "type", "seq")
EXPECTED_KEYS = (
    "at", "device", "rule", "to", "severity", "reason", "site", "type", "system", "since", "starts_at", "values",
    "spec_version", "flapping", "source", "alert_id", "transition_id", "title", "annotations", "labels",
)  # fmt: skip
TIMES = {"at": "event_time_us", "since": "since_us", "starts_at": "starts_at_us"}
"""Keys of what is expected that are durations → the transition's own."""


class Advance(int):
    """`{watermark: 40s}`, in microseconds."""


class Restart:
    """State is written, dropped and read back."""


Step = Reading | Control | Advance | Restart


@dataclass(frozen=True)
class RuleTest:
    name: str
    specs: tuple[RuledType, ...]
    registry: tuple[Device, ...]
    steps: tuple[Step, ...]
    expected: tuple[dict[str, Any], ...]
    places: tuple[str, ...]
    """file:line of each thing expected."""


def as_inline(data: Mapping[str, Any]) -> dict[str, Any]:
    """A spec's data as rule tests take it: `partition_by: site` is given; units, commands and actions are of no
    consequence."""
    metrics = data.get("metrics")
    if isinstance(metrics, dict):
        metrics = {n: {**m, "unit": "count"} if isinstance(m, dict) else m for n, m in metrics.items()}
    inline = {k: v for k, v in data.items() if k != "commands"} | {"partition_by": "site", "metrics": metrics}
    if isinstance(alerts := data.get("alerts"), list):
        inline["alerts"] = [_without_actions(rule) if isinstance(rule, dict) else rule for rule in alerts]
    return inline


def _without_actions(rule: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in rule.items() if k != "actions"}


def inline_spec(data: Mapping[str, Any]) -> RuledType:
    return validated(RuledType, as_inline(data), {}, "inline")


class RuleTestFile:
    """A test file while it is read. Every error is a SpecError with file and line."""

    def __init__(self, text: str, file: str, find_types: FindTypes):
        self.file = file
        data, self.lines = parse_yaml(text, file)
        if not isinstance(data, dict):
            raise self.error((), "expected `spec:`, `specs:` or `type:`, and `tests:`")
        if "metrics" in data and "tests" not in data:
            raise self.error(
                (), "this is a device type's spec; a test of its rules is a file with `type:`, its name, and `tests:`"
            )
        self.only(data, ("spec", "specs", "type", "tests"), ())
        kinds = [key for key in ("spec", "specs", "type") if key in data]
        if len(kinds) != 1:
            raise self.error((), f"exactly one of spec, specs, type; found {' and '.join(kinds) or 'none'}")
        self.specs = self._specs(kinds[0], data[kinds[0]], find_types)
        self.check_sites(self.specs, (kinds[0],))
        self.tests = self.list_of(data.get("tests"), ("tests",))

    def error(self, path: Path_, message: str) -> SpecError:
        name = ".".join(map(str, path))
        return SpecError(f"{self.file}:{line_of(path, self.lines)}: {name}{': ' if name else ''}{message}")

    def only(self, data: Mapping[str, Any], allowed: Collection[str], path: Path_) -> None:
        raise_all(
            self.error((*path, key), f"unknown key{nearest(str(key), allowed, 'allowed')}")
            for key in data
            if key not in allowed
        )

    def list_of(self, value: Any, path: Path_) -> list[Any]:
        if not isinstance(value, list):
            raise self.error(path, "expected a list")
        return value

    def duration(self, value: Any, path: Path_) -> int:
        try:
            return parse_duration(value) // timedelta(microseconds=1)
        except ValueError as error:
            raise self.error(path, f"{error}; found {value!r}") from None

    def name(self, value: Any, path: Path_) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise self.error(path, f"expected a name, found {value!r}")
        return str(value)

    def _specs(self, kind: str, value: Any, find_types: FindTypes) -> list[RuledType]:
        if kind == "type":
            return find_types(self.name(value, ("type",)))
        if kind == "spec":
            return [self.spec(value, ("spec",))]
        specs = [self.spec(item, ("specs", i)) for i, item in enumerate(self.list_of(value, ("specs",)))]
        names = [spec.type for spec in specs]
        if not specs or len(set(names)) < len(names):
            raise self.error(("specs",), f"each type once; found {', '.join(names) or 'none'}")
        return specs

    def spec(self, data: Any, path: Path_) -> RuledType:
        if not isinstance(data, dict):
            raise self.error(
                path,
                "expected a spec: type, version, system, cadence, metrics, alerts; `type: NAME` is one that is there",
            )
        return validated(RuledType, as_inline(data), self.lines, self.file, path)

    def check_sites(self, specs: Iterable[RuledType], path: Path_) -> None:
        """Site functions look at types that there are."""
        by_name = {spec.type: spec for spec in specs}
        for spec in by_name.values():
            for problem in site_problems(spec, by_name):
                raise self.error(path, problem)

    def test(self, place: int, data: Any) -> RuleTest:
        path: Path_ = ("tests", place)
        if not isinstance(data, dict):
            raise self.error(path, "expected name, input and expect")
        self.only(data, ("name", "registry", "input", "expect"), path)
        needed = ("name", "input", "expect")
        raise_all(self.error(path, f"{key} is required and missing") for key in needed if key not in data)
        return _TestReader(self, path).read(data)


def raise_all(errors: Iterable[SpecError]) -> None:
    """As one, a line each; nothing where there are none."""
    if found := [str(error) for error in errors]:
        raise SpecError("\n".join(found))


class _TestReader:
    """One test: its lines make records, by the specs as they are at each line. All that is wrong is one error; but not
    what comes after a spec that is wrong, as its readings may be right."""

    def __init__(self, document: RuleTestFile, path: Path_):
        self.document = document
        self.path = path
        self.specs = {spec.type: spec for spec in document.specs}
        self.first = document.specs[0].type
        self.rules = {rule.id for spec in document.specs for rule in spec.alerts}
        """Of new specs on the way too, and those that these have no more."""
        self.seen: dict[str, set[str]] = {}
        """Device → the types that it was named with."""
        self.problems: list[SpecError] = []

    def read(self, data: dict[str, Any]) -> RuleTest:
        document, path = self.document, self.path
        name = document.name(data["name"], (*path, "name"))
        registry = self.each(self.registration, data.get("registry", []), (*path, "registry"))
        steps = self.each(self.step, data["input"], (*path, "input"))
        wanted = document.list_of(data["expect"], (*path, "expect"))
        places = [f"{document.file}:{line_of((*path, 'expect', i), document.lines)}" for i in range(len(wanted))]
        expected = self.each(self.expected, wanted, (*path, "expect"))
        raise_all(self.problems)
        return RuleTest(
            name, tuple(document.specs), tuple(registry), tuple(steps), tuple(expected), tuple(places)
        )  # fmt: skip

    def each(self, read: Callable[[Any, Path_], T], items: Any, path: Path_) -> list[T]:
        """Those that are right."""
        found: list[T] = []
        for place, item in enumerate(self.document.list_of(items, path)):
            try:
                found.append(read(item, (*path, place)))
            except SpecError as error:
                self.problems.append(error)
                if isinstance(item, dict) and "spec" in item:
                    raise_all(self.problems)
        return found

    def type_of(self, data: Mapping[str, Any], path: Path_) -> str:
        name = str(data.get("type", self.first))
        if name not in self.specs:
            raise self.document.error((*path, "type"), f"no type {name!r} here{nearest(name, self.specs)}")
        return name

    def named_type(self, device: str, data: Mapping[str, Any], path: Path_) -> str:
        """Of a device that a control record names: the first spec's, or the one it was seen with."""
        if "type" in data:
            return self.type_of(data, path)
        seen = self.seen.get(device, set())
        return self.first if self.first in seen or not seen else min(seen)

    def registration(self, data: Any, path: Path_) -> Device:
        document = self.document
        if not isinstance(data, dict) or "device" not in data:
            raise document.error(path, "expected {device, site, params}")
        document.only(data, ("device", "site", "type", "params"), path)
        device, type_name = document.name(data["device"], (*path, "device")), self.type_of(data, path)
        self.seen.setdefault(device, set()).add(type_name)
        params = data.get("params", {})
        if not isinstance(params, dict):
            raise document.error((*path, "params"), "expected {name: number}")
        for key, value in params.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise document.error((*path, "params", key), f"expected a number, found {value!r}")
        site = document.name(data["site"], (*path, "site")) if "site" in data else DEFAULT_SITE
        return Device(
            revision=0, at=0, registered_at=0, type=type_name, device=device, site=site,
            params={str(k): float(v) for k, v in params.items()},
        )  # fmt: skip

    def step(self, line: Any, path: Path_) -> Step:
        document = self.document
        if line == "restart":
            return Restart()
        if not isinstance(line, dict):
            raise document.error(
                path, f"expected a reading, a control record, a watermark or `restart`; found {line!r}"
            )
        if "watermark" in line:
            document.only(line, ("watermark",), path)
            return Advance(document.duration(line["watermark"], (*path, "watermark")))
        if "at" not in line:
            raise document.error(path, "at is required and missing")
        at_us = document.duration(line["at"], (*path, "at"))
        if "spec" in line:
            document.only(line, ("at", "spec"), path)
            spec = document.spec(line["spec"], (*path, "spec"))
            self.specs[spec.type] = spec
            self.rules |= {rule.id for rule in spec.alerts}
            document.check_sites(self.specs.values(), (*path, "spec"))
            text = yaml.dump(as_inline(line["spec"]), Dumper=yaml.CSafeDumper, sort_keys=False)
            return Spec(revision=0, at=at_us // 1000, type=spec.type, version=spec.version, text=text)
        if "retire" in line:
            document.only(line, ("at", "retire", "type"), path)
            device = document.name(line["retire"], (*path, "retire"))
            return Retire(revision=0, at=at_us // 1000, type=self.named_type(device, line, path), device=device)
        if "resolve" in line:
            return self.resolve(line, at_us, path)
        return self.reading(line, at_us, path)

    def resolve(self, line: dict[str, Any], at_us: int, path: Path_) -> Resolve:
        document, inner = self.document, line["resolve"]
        document.only(line, ("at", "resolve", "type"), path)
        path = (*path, "resolve")
        if not isinstance(inner, dict) or not {"device", "rule"} <= set(inner):
            raise document.error(path, "expected {device, rule}")
        document.only(inner, ("device", "rule", "type"), path)
        device = document.name(inner["device"], (*path, "device"))
        type_name = self.named_type(device, {**line, **inner}, path)
        rules = [rule.id for rule in self.specs[type_name].alerts]
        if inner["rule"] not in rules:
            problem = f"no rule {inner['rule']!r} of {type_name}{nearest(str(inner['rule']), rules)}"
            raise document.error((*path, "rule"), problem)
        return Resolve(revision=0, at=at_us // 1000, type=type_name, device=device, rule=inner["rule"], by="rule test")

    def reading(self, line: dict[str, Any], at_us: int, path: Path_) -> Reading:
        document = self.document
        if "device" not in line:
            raise document.error(path, "device is required and missing")
        device, type_name = document.name(line["device"], (*path, "device")), self.type_of(line, path)
        self.seen.setdefault(device, set()).add(type_name)
        metrics = self.specs[type_name].metrics
        document.only(line, (*READING_KEYS, *metrics), path)
        values: dict[str, float | None] = {}
        for key, value in line.items():
            if key in metrics:
                if not (value is None or isinstance(value, int | float)):
                    raise document.error((*path, key), f"expected a number, true, false or null; found {value!r}")
                values[key] = None if value is None else _float(value)
        seq = line.get("seq")
        if seq is not None and (isinstance(seq, bool) or not isinstance(seq, int)):
            raise document.error((*path, "seq"), f"expected a whole number, found {seq!r}")
        site = document.name(line["site"], (*path, "site")) if "site" in line else ""
        return Reading(device, type_name, site, at_us, values, seq)

    def expected(self, data: Any, path: Path_) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise self.document.error(path, "expected {at, device, rule, to, …}")
        self.document.only(data, EXPECTED_KEYS, path)
        wanted = dict(data)
        if "rule" in wanted and wanted["rule"] not in self.rules:
            problem = f"no rule {wanted['rule']!r} here{nearest(str(wanted['rule']), self.rules)}"
            raise self.document.error((*path, "rule"), problem)
        for key in TIMES:
            if key in wanted:
                wanted[key] = self.document.duration(wanted[key], (*path, key))
        for key in ("device", "site"):
            if key in wanted:
                wanted[key] = self.document.name(wanted[key], (*path, key))
        return wanted


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
