"""One alert rule as written in a spec: its keys, and whether its conditions make sense for their device type.

What a rule means is RULES.md; this module settles only what a rule may say.
"""

import unicodedata
from collections.abc import Container, Mapping
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fleet.duration import Duration
from fleet.expression import Call, ExpressionError, Name, Node, Window, parse_expression, walk
from fleet.nearest import nearest

Severity = Literal["info", "warning", "critical"]
MAX_WINDOW_READINGS = 10_000

WINDOW_FUNCTIONS = ("avg", "sum", "min_over", "max_over", "stddev", "count", "delta", "rate")
SITE_FUNCTIONS = ("site_last", "site_min", "site_max", "site_avg", "site_sum")
COUNTER_FUNCTIONS = ("today", "this_month")
CLOCK_FUNCTIONS = ("local_hour", "local_weekday")
ARITHMETIC_FUNCTIONS = {"abs": (1, 1), "min": (1, 100), "max": (1, 100)}
WORDS = ("and", "or", "not", "true", "false")
FUNCTIONS = (
    *WINDOW_FUNCTIONS, "previous", *SITE_FUNCTIONS, *CLOCK_FUNCTIONS, *COUNTER_FUNCTIONS, *ARITHMETIC_FUNCTIONS,
)  # fmt: skip


def _expression(text: object) -> str:
    text = {True: "true", False: "false"}.get(text, text) if isinstance(text, bool) else text
    if not isinstance(text, str):
        text = str(text)
    try:
        parse_expression(text)
    except ExpressionError as error:
        raise ValueError(f"{error} (column {error.column + 1} of {text!r})") from None
    return text


Expression = Annotated[str, Field(strict=True), AfterValidator(_expression)]


def _printable(text: str) -> str:
    if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in text):
        raise ValueError("holds control characters, which neither the warehouse nor a mail can take")
    return text


Text = Annotated[str, Field(strict=True), AfterValidator(_printable)]


Number = Annotated[float, Field(strict=False, allow_inf_nan=False)]
Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=48)]


class Strict(BaseModel):
    """A part of a spec: unknown keys are errors, values are not coerced, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class CountOf(Strict):
    """`3 of 5`; `3` is 3 of 3."""

    needed: int = Field(ge=1)
    last: int = Field(ge=1, le=MAX_WINDOW_READINGS)

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        if isinstance(value, int) and not isinstance(value, bool):
            return {"needed": value, "last": value}
        if isinstance(value, str):
            needed, _, last = value.partition(" of ")
            if needed.strip().isdigit() and (last.strip().isdigit() or not last):
                return {"needed": int(needed), "last": int(last or needed)}
            raise ValueError("count is `3` or `3 of 5`")
        return value

    @model_validator(mode="after")
    def _fits(self) -> "CountOf":
        if self.needed > self.last:
            raise ValueError(f"count asks for {self.needed} of only {self.last}")
        return self


class Flap(Strict):
    high: float = Field(default=0.5, gt=0, le=1, strict=False)
    low: float = Field(default=0.25, ge=0, lt=1, strict=False)

    @model_validator(mode="after")
    def _order(self) -> "Flap":
        if self.low >= self.high:
            raise ValueError(f"flap.low {self.low} must be below flap.high {self.high}")
        return self


class Condition(Strict):
    """What a rule, or one level of it, looks at."""

    when: Expression | None = None
    clear: Expression | None = None
    for_: Duration = Field(default=timedelta(0), alias="for")
    keep_firing_for: Duration = timedelta(0)
    count: CountOf | None = None


class Level(Condition):
    when: Expression


def _word(value: object) -> object:
    """YAML loads the words on and off as true and false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class Action(Strict):
    """A command to devices when the alert fires or resolves: to the alert's own device; with `device`, to that one at
    the same site; with `type` alone, to all of that type there. What must hold among types is fleet/action.py."""

    on: Literal["firing", "resolved"]
    command: Annotated[str, BeforeValidator(_word)]
    args: dict[Identifier, Number] = {}
    type: Identifier | None = None
    """None: the rule's own type."""
    device: Annotated[str, Field(min_length=1, max_length=64)] | None = None


class Rule(Condition):
    """One alert rule of a device type."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: Text = ""
    annotations: dict[Text, Text] = {}
    labels: dict[Text, Text] = {}
    severity: Severity | None = None
    max_gap: Duration | None = None
    levels: dict[Severity, Level] | None = Field(default=None, min_length=1)
    no_data: Duration | None = None
    params: dict[
        Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")],
        Annotated[float, Field(strict=False, allow_inf_nan=False)],
    ] = {}
    quality: bool = False
    inhibitable: bool = True
    """False: told whatever happens, unless somebody silenced it (fleet.hindrance)."""
    flap: Flap | None = None
    actions: list[Action] = []

    @model_validator(mode="before")
    @classmethod
    def _flap_on(cls, data: object) -> object:
        switch: dict[object, object] = {
            True: {},
            "on": {},
            False: None,
            "off": None,
        }  # YAML 1.1 loads on and off as true and false
        if isinstance(data, dict) and isinstance(data.get("flap"), bool | str) and data["flap"] in switch:
            data = {**data, "flap": switch[data["flap"]]}
        return data

    @model_validator(mode="after")
    def _one_kind(self) -> "Rule":
        kinds = [k for k in ("when", "levels", "no_data") if getattr(self, k) is not None]
        if len(kinds) != 1:
            raise ValueError(f"a rule has exactly one of when, levels, no_data; found {' and '.join(kinds) or 'none'}")
        beside = {
            "levels": ("clear", "for_", "count", "keep_firing_for", "severity"),
            "no_data": ("clear", "for_", "count", "keep_firing_for", "max_gap"),
        }.get(kinds[0], ())
        wrong = [name.rstrip("_") for name in beside if name in self.model_fields_set]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} cannot stand beside {kinds[0]}")
        if self.no_data is not None and self.no_data <= timedelta(0):
            raise ValueError("no_data must be longer than 0s")
        return self

    @property
    def is_timed(self) -> bool:
        """Whether it sets timers, so that it may act without a reading."""
        return self.no_data is not None or any(c.for_ or c.keep_firing_for for _, c in self.conditions())

    def conditions(self) -> list[tuple[str, Condition]]:
        """(path within the rule, condition): the rule itself, or each of its levels."""
        if self.levels:
            return [(f"levels.{severity}", level) for severity, level in self.levels.items()]
        return [] if self.no_data is not None else [("", self)]


def check_expression(
    text: str,
    *,
    metrics: Mapping[str, str],
    params: set[str],
    cadence: timedelta | None,
    other_types: Mapping[str, set[str]] | None,
) -> list[str]:
    """What is wrong with a condition for its device type, in words; empty when nothing is.

    `metrics` maps name → kind. `other_types` maps the types that a site function may look at → their metrics;
    None while they are not known yet (a spec alone).
    """
    root = parse_expression(text)
    problems: list[str] = []
    inside_call: set[int] = set()

    def metric(node: Node, function: str) -> str | None:
        if isinstance(node, Name):
            if node.name in metrics:
                return node.name
            problems.append(f"{function}() of unknown metric {node.name!r}{nearest(node.name, metrics)}")
        else:
            problems.append(f"{function}() wants a metric as its first argument")
        return None

    for node in walk(root):
        if isinstance(node, Call):
            name, arguments = node.function, node.arguments
            if name not in FUNCTIONS:
                problems.append(f"unknown function {name!r}{nearest(name, FUNCTIONS)}")
                inside_call.update(id(a) for a in arguments)
                continue
            if name in ARITHMETIC_FUNCTIONS:
                low, high = ARITHMETIC_FUNCTIONS[name]
                if not low <= len(arguments) <= high:
                    problems.append(
                        f"{name}() takes {low if low == high else 'one or more'} arguments, found {len(arguments)}"
                    )
                continue
            inside_call.update(id(a) for a in arguments)
            arity = 2 if name in WINDOW_FUNCTIONS else 0 if name in CLOCK_FUNCTIONS else 1
            if len(arguments) != arity:
                problems.append(f"{name}() takes {arity} argument{'s' * (arity != 1)}, found {len(arguments)}")
            elif name in WINDOW_FUNCTIONS:
                metric(arguments[0], name)
                if not isinstance(arguments[1], Window):
                    problems.append(f"{name}() wants a literal duration such as 5m as its second argument")
                elif arguments[1].length <= timedelta(0):
                    problems.append(f"{name}() wants a window longer than 0s")
                elif cadence and arguments[1].length / cadence > MAX_WINDOW_READINGS:
                    problems.append(
                        f"{name}() over that window holds {arguments[1].length / cadence:,.0f} readings at the type's"
                        f" cadence; at most {MAX_WINDOW_READINGS:,}: shorten it"
                    )
            elif name in SITE_FUNCTIONS:
                _check_site(name, arguments[0], other_types, problems)
            elif arity == 1:
                found = metric(arguments[0], name)
                if found and name in COUNTER_FUNCTIONS and metrics[found] != "counter":
                    problems.append(f"{name}() is for counters; {found} is a {metrics[found]}")
        elif isinstance(node, Window) and id(node) not in inside_call:
            problems.append("a duration stands only as the second argument of a window function")
        elif isinstance(node, Name) and id(node) not in inside_call and node.name not in {*metrics, *params}:
            problems.append(f"unknown name {node.name!r}{nearest(node.name, [*metrics, *params])}")
    return problems


def _check_site(function, node, other_types, problems) -> None:  # type: ignore[no-untyped-def]
    if not isinstance(node, Name) or "." not in node.name:
        problems.append(f"{function}() wants type.metric, such as {function}(room_node.co2)")
        return
    if other_types is None:
        return
    type_name, metric_name = node.name.split(".")
    if type_name not in other_types:
        problems.append(
            f"{function}() of type {type_name!r}, which is not a type of this system with partition_by: site"
            + nearest(type_name, other_types)
        )
    elif metric_name not in other_types[type_name]:
        problems.append(f"{function}() of unknown metric {node.name!r}{nearest(metric_name, other_types[type_name])}")


def uses_site_functions(text: str) -> bool:
    return any(isinstance(n, Call) and n.function in SITE_FUNCTIONS for n in walk(parse_expression(text)))


def uses_metric(text: str, metrics: Container[str]) -> bool:
    """Whether a condition that is right looks at a device: at a metric of its own, or by a site function."""
    names = [node.name for node in walk(parse_expression(text)) if isinstance(node, Name)]
    return any(name in metrics or "." in name for name in names)
