"""All device types together, and what must hold between them."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fleet.action import action_problems
from fleet.errors import ConfigurationError, SpecError
from fleet.nearest import nearest
from fleet.rule import check_expression
from fleet.spec import DeviceType, RuledType
from fleet.spec_file import line_of, load_spec, parse_yaml


@dataclass(frozen=True)
class System:
    """The types that share one Kafka topic of readings."""

    name: str
    types: tuple[DeviceType, ...]

    @property
    def topic(self) -> str:
        return self.types[0].topic

    @property
    def partitions(self) -> int:
        return self.types[0].partitions


@dataclass(frozen=True)
class Catalog:
    """Types by name, in the order of their names."""

    types: dict[str, DeviceType]

    def __iter__(self) -> Iterator[DeviceType]:
        return iter(self.types.values())

    def type(self, name: str) -> DeviceType:
        """Raises ConfigurationError with the nearest name."""
        if name not in self.types:
            raise ConfigurationError(f"no device type {name[:80]!r}{nearest(name, self.types)}")
        return self.types[name]

    @cached_property
    def systems(self) -> dict[str, System]:
        names = sorted({t.system for t in self})
        return {name: System(name, tuple(t for t in self if t.system == name)) for name in names}

    def system(self, name: str) -> System:
        """Raises ConfigurationError with the nearest name."""
        if name not in self.systems:
            raise ConfigurationError(f"no system {name!r}{nearest(name, self.systems)}")
        return self.systems[name]

    def having(self, rule: str, type_name: str | None = None) -> list[DeviceType]:
        """The types with a rule of that id; of one type, where it is named. Raises ConfigurationError where there is
        none, with the nearest id."""
        among = list(self) if type_name is None else [self.type(type_name)]
        ids = {one.id for spec in among for one in spec.alerts}
        if rule not in ids:
            who = "no type has a" if type_name is None else f"{type_name} has no"
            raise ConfigurationError(f"{who} rule {rule!r}{nearest(rule, ids)}")
        return [spec for spec in among if any(one.id == rule for one in spec.alerts)]

    def only_having(self, rule: str, type_name: str | None = None) -> DeviceType:
        """The one type with a rule of that id. Raises ConfigurationError where there are several, too."""
        spec, *others = self.having(rule, type_name)
        if others:
            names = ", ".join(one.type for one in (spec, *others))
            raise ConfigurationError(f"rule {rule!r} is one of {names}: say which with --type")
        return spec


def build_catalog(types: Iterable[DeviceType]) -> Catalog:
    """Raises SpecError where types contradict each other. Messages start with the type's name and path."""
    ordered = {t.type: t for t in sorted(types, key=lambda t: t.type)}
    problems = []
    owner: dict[str, str] = {}
    for t in ordered.values():
        first = next(o for o in ordered.values() if o.system == t.system)
        for key in ("topic", "partitions", "partition_by"):
            if getattr(t, key) != getattr(first, key):
                problems.append(
                    f"{t.type}: {'kafka_topic' if key == 'topic' else key}: types of one system share a topic;"
                    f" {first.type} says {getattr(first, key)!r}, this says {getattr(t, key)!r}"
                )
        if owner.setdefault(t.topic, t.system) != t.system:
            problems.append(f"{t.type}: kafka_topic: {t.topic!r} belongs to system {owner[t.topic]!r}")
        problems += site_problems(t, ordered)
    problems += action_problems(ordered)
    if problems:
        raise SpecError("\n".join(problems))
    return Catalog(ordered)


def site_problems(t: RuledType, types: Mapping[str, RuledType]) -> list[str]:
    """What is wrong with a type's site functions, among the types there are."""
    others = {
        o.type: set(o.metrics) for o in types.values() if o.system == t.system and o.partition_by == "site"
    }  # fmt: skip
    kinds = {name: metric.kind for name, metric in t.metrics.items()}
    return [
        f"{t.type}: {'.'.join(filter(None, ('alerts', str(place), path, key)))}: {problem}"
        for place, rule in enumerate(t.alerts)
        for path, condition in rule.conditions()
        for key in ("when", "clear")
        if (text := getattr(condition, key)) is not None
        for problem in check_expression(text, metrics=kinds, params=set(rule.params), cadence=None, other_types=others)
    ]


def load_catalog(folder: Path) -> Catalog:
    """Every `*.yaml` of the folder. Raises SpecError naming all that is wrong in all files."""
    files = read_files(folder)
    if not files:
        raise ConfigurationError(f"no device types in {folder}; `weir types new NAME` writes a first one")
    return catalog_of(files)


def read_files(folder: Path) -> dict[Path, bytes]:
    """The specs' files as they are now, in the order of their names. Raises OSError."""
    return {file: file.read_bytes() for file in sorted(folder.glob("*.yaml"))}


def catalog_of(files: Mapping[Path, bytes]) -> Catalog:
    """Raises SpecError naming all that is wrong in all files."""
    problems, types, texts = [], [], {}
    for file, content in files.items():
        try:
            text = content.decode()
            spec = load_spec(text, str(file))
            if spec.type != file.stem:
                raise SpecError(f"{file}:1: type: {spec.type!r} must be the file's name, {file.stem!r}")
            types.append(spec)
            texts[spec.type] = (file, text)
        except SpecError as error:
            problems.append(str(error))
        except UnicodeDecodeError as error:
            problems.append(f"{file}:1: not UTF-8 at byte {error.start}; save it as UTF-8")
    if problems:
        raise SpecError("\n".join(problems))
    try:
        return build_catalog(types)
    except SpecError as error:
        raise SpecError("\n".join(_with_line(line, texts) for line in str(error).splitlines())) from None


def check_sites(spec: DeviceType, file: Path, folder: Path) -> None:
    """Whether the site functions and the actions of one spec find types that there are, the folder's others among them.
    Raises SpecError; another file that cannot be read is not this one's fault, and its type is not there."""
    types: dict[str, RuledType] = {}
    for other in sorted(folder.glob("*.yaml")):
        with suppress(SpecError, UnicodeDecodeError):
            found = load_spec(other.read_text(encoding="utf-8"), str(other))
            types[found.type] = found
    types[spec.type] = spec
    problems = site_problems(spec, types) + action_problems(types, spec.type)
    if problems:
        texts = {spec.type: (file, file.read_text(encoding="utf-8"))}
        raise SpecError("\n".join(_with_line(line, texts) for line in problems))


def _with_line(problem: str, texts: dict[str, tuple[Path, str]]) -> str:
    name, path, rest = problem.split(": ", 2)
    file, text = texts[name]
    _, lines = parse_yaml(text, str(file))
    where = tuple(int(p) if p.isdigit() else p for p in path.split("."))
    return f"{file}:{line_of(where, lines)}: {path}: {rest}"
