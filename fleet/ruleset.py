"""A device type's rules, compiled: made once from the spec, shared by all its devices, holding no state."""

from collections.abc import Iterable
from datetime import timedelta
from typing import get_args

from fleet.evaluation import Condition, Places, Value, compared, compile_condition, compile_value
from fleet.expression import Call, Logic, Name, Node, Window, parse_expression, walk
from fleet.rule import COUNTER_FUNCTIONS, SITE_FUNCTIONS, WINDOW_FUNCTIONS, Flap, Level, Rule, Severity
from fleet.spec import RuledType

SEVERITIES: tuple[str, ...] = get_args(Severity)
"""From the least to the most severe; a place in it is a rank."""
UNLIMITED = 1 << 61
LARGEST = 1.7976931348623157e308


def microseconds(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)


def trees(rule: Rule) -> list[Node]:
    """All conditions of a rule."""
    texts = [t for _, condition in rule.conditions() for t in (condition.when, condition.clear) if t is not None]
    return [parse_expression(text) for text in texts]


class CompiledLevel:
    """One machine of a rule: the rule's own condition, or one of its levels."""

    __slots__ = ("clear", "for_us", "keep_us", "mask", "needed", "rank", "severity", "when", "when_tree")

    def __init__(self, condition: Level | Rule, severity: str, rank: int, places: Places):
        assert condition.when is not None
        self.severity = severity
        self.rank = rank
        self.when_tree = parse_expression(condition.when)
        self.when: Condition = compile_condition(self.when_tree, places)
        self.clear: Condition | None = None
        if condition.clear is not None:
            self.clear = compile_condition(parse_expression(condition.clear), places)
        self.for_us = microseconds(condition.for_)
        self.keep_us = microseconds(condition.keep_firing_for)
        self.needed = condition.count.needed if condition.count else 0
        """True outcomes that make a breach; 0: no count."""
        self.mask = (1 << condition.count.last) - 1 if condition.count else 0


class CompiledRule:
    __slots__ = (
        "flap", "has_templates", "id", "kind", "levels", "looked_at", "max_gap_us", "metrics", "no_data_us", "own",
        "place", "places", "severity", "spec", "title", "value", "when",
    )  # fmt: skip

    def __init__(self, rule: Rule, place: int, places: Places, default_gap_us: int):
        self.id = rule.id
        self.spec = rule
        self.place = place
        self.places = places
        self.kind = "levels" if rule.levels else "no_data" if rule.no_data is not None else "when"
        self.title = rule.title or rule.id
        self.has_templates = any(
            "{" in text or "}" in text for text in (self.title, *rule.annotations.values(), *rule.labels.values())
        )
        self.flap: Flap | None = rule.flap
        self.max_gap_us = default_gap_us if rule.max_gap is None else microseconds(rule.max_gap)
        self.no_data_us = None if rule.no_data is None else microseconds(rule.no_data)
        self.severity: str | None = None if rule.levels else rule.severity or "warning"
        """Of a rule with levels None: its alert's rank says it."""
        if rule.levels:
            ordered = sorted(rule.levels.items(), key=lambda item: SEVERITIES.index(item[0]))
            self.levels = [CompiledLevel(level, name, SEVERITIES.index(name), places) for name, level in ordered]
        else:
            self.levels = [CompiledLevel(rule, "", 0, places)] if rule.when is not None else []
        roots = trees(rule)
        nodes = [node for root in roots for node in walk(root)]
        self.looked_at: frozenset[tuple[str, str]] = frozenset(
            (type_name, metric)
            for node in nodes
            if isinstance(node, Call) and node.function in SITE_FUNCTIONS and isinstance(node.arguments[0], Name)
            for type_name, _, metric in [node.arguments[0].name.partition(".")]
        )
        """(type, metric) of its site functions."""
        names = {node.name for node in nodes if isinstance(node, Name)}
        self.metrics = [(name, i) for name, i in places.metrics.items() if name in names]
        """Of its own device, in the spec's order: name, place."""
        self.own = frozenset(name for name, _ in self.metrics)
        self.when: Condition | None = None
        """True where any level's `when` is. If it is not, an evaluation where nothing is remembered leaves nothing to
        remember; None for rules that always are evaluated in full: flap remembers that it was calm."""
        if self.levels and rule.flap is None:
            any_level = [level.when_tree for level in self.levels]
            root = any_level[0] if len(any_level) == 1 else Logic("or", tuple(any_level))
            self.when = compile_condition(root, places)
        shown = next((found for root in roots if (found := compared(root, places.metrics)) is not None), None)
        self.value: Value | None = None if shown is None else compile_value(shown, places)


class RuleSet:
    """Raises nothing for a spec that loaded."""

    def __init__(self, spec: RuledType):
        self.spec = spec
        self.name = spec.type
        cadence = None if spec.cadence == "event" else microseconds(spec.cadence)
        default = UNLIMITED if cadence is None else 3 * cadence
        self.stale_us = default if spec.stale_after is None else microseconds(spec.stale_after)
        self.lateness_us = microseconds(spec.lateness)
        roots = {rule.id: trees(rule) for rule in spec.alerts}
        calls = [
            node for of_rule in roots.values() for root in of_rule for node in walk(root) if isinstance(node, Call)
        ]
        self.windows = _window_lengths(calls)
        """Metric → the longest window any rule looks at, in microseconds."""
        self.reaches_us = list(self.windows.values())
        self.params: list[tuple[str, float]] = [item for rule in spec.alerts for item in rule.params.items()]
        """Of all rules, one after the other; compiled conditions know their place."""
        self.places = self._places(
            {}, _first_arguments(calls, ("previous",)), _first_arguments(calls, COUNTER_FUNCTIONS)
        )
        self.ranges = [
            (metric.range.low, metric.range.high)
            if metric.range is not None and metric.outside != "warn"
            else (-LARGEST, LARGEST)
            for metric in spec.metrics.values()
        ]
        """By metric; a value outside is unknown, NaN and infinities too."""
        self.rules: list[CompiledRule] = []
        start = 0
        for place, rule in enumerate(spec.alerts):
            own = {name: start + i for i, name in enumerate(rule.params)}
            start += len(own)
            places = self._places(own, self.places.previous, self.places.totals)
            self.rules.append(CompiledRule(rule, place, places, default))
        silences = [rule.no_data_us for rule in self.rules if rule.no_data_us is not None]
        self.shortest_silence_us = min(silences) if silences else None
        self.default_params = [value for _, value in self.params]

    def _places(self, params: dict[str, int], previous: Iterable[str], totals: Iterable[str]) -> Places:
        return Places(
            metrics={name: i for i, name in enumerate(self.spec.metrics)},
            params=params,
            windows={name: i for i, name in enumerate(self.windows)},
            previous={name: i for i, name in enumerate(previous)},
            totals={name: i for i, name in enumerate(totals)},
            counters=frozenset(name for name, metric in self.spec.metrics.items() if metric.kind == "counter"),
        )

    def params_of(self, own: dict[str, float] | None) -> list[float]:
        """A device's params: the rules', where it has none of that name."""
        if not own:
            return self.default_params
        return [own.get(name, value) for name, value in self.params]

    def rule(self, rule_id: str) -> CompiledRule | None:
        return next((rule for rule in self.rules if rule.id == rule_id), None)


def _window_lengths(calls: Iterable[Call]) -> dict[str, int]:
    lengths: dict[str, int] = {}
    for call in calls:
        if call.function in WINDOW_FUNCTIONS:
            metric, length = call.arguments
            assert isinstance(metric, Name) and isinstance(length, Window)
            lengths[metric.name] = max(lengths.get(metric.name, 0), microseconds(length.length))
    return lengths


def _first_arguments(calls: Iterable[Call], functions: tuple[str, ...]) -> list[str]:
    found = [c.arguments[0] for c in calls if c.function in functions]
    return list(dict.fromkeys(node.name for node in found if isinstance(node, Name)))
