"""Random specs and inputs for rules, as documents of RULES §6 (so that what fails can be written down as a rule test).

Drawn to meet the hard places: times are small whole numbers, so that readings, due times, gaps and window bounds
coincide. A stream is a list of steps, folded into lines: dropping a step leaves a stream, so examples shrink.
"""

import copy
from datetime import timedelta
from functools import cache
from typing import Any

from hypothesis import strategies as st

from fleet.duration import format_duration
from fleet.expression import Call, walk
from fleet.rule import COUNTER_FUNCTIONS, WINDOW_FUNCTIONS
from tests.oracle.conditions import parse_expression
from tests.oracle.oracle import load

TYPES = ("pump", "tank", "vent")
DEVICES = ("d1", "d2", "d10")
SITES = ("north", "south")
METRICS = {
    "x": {"unit": "count"},
    "y": {"unit": "count", "range": [-2, 4], "outside": "quarantine"},
    "n": {"unit": "count", "kind": "counter"},
}
METRIC = st.sampled_from(["x", "x", "x", "y", "n"])
COMPARE = st.sampled_from([">", ">=", "<", "<=", "==", "!="])


@cache
def seconds(*, least: int, most: int) -> st.SearchStrategy[str]:
    whole = st.integers(least, most).map(lambda n: f"{n}s")
    return st.one_of(whole, whole, whole, st.integers(2 * least, 2 * most).map(lambda n: f"{n * 500}ms"))


def rarely(strategy: st.SearchStrategy[Any], otherwise: Any = None, one_in: int = 4) -> st.SearchStrategy[Any]:
    return st.integers(0, one_in - 1).flatmap(lambda n: strategy if n == one_in - 1 else st.just(otherwise))


# Expressions


@cache
def numbers() -> st.SearchStrategy[str]:
    return st.sampled_from(["0", "1", "2", "3", "0.1", "1e308", "true", "p"])


@cache
def calls(sites: tuple[str, ...]) -> st.SearchStrategy[str]:
    windows = st.builds(
        "{}({}, {})".format,
        st.sampled_from(["avg", "sum", "min_over", "max_over", "stddev", "count", "delta", "rate"]),
        METRIC, seconds(least=1, most=8),
    )  # fmt: skip
    own = [windows, windows, st.builds("previous({})".format, METRIC), st.sampled_from(["today(n)", "this_month(n)"])]
    clock = st.sampled_from(["local_hour()", "local_weekday()"])
    looks = st.builds(
        "{}({}.{})".format,
        st.sampled_from(["site_last", "site_min", "site_max", "site_avg", "site_sum"]),
        st.sampled_from(sites or TYPES), METRIC,
    )  # fmt: skip
    return st.one_of(*own, clock, *([looks] * 4 if sites else []))


@cache
def terms(sites: tuple[str, ...]) -> st.SearchStrategy[str]:
    atom = st.one_of(METRIC, METRIC, calls(sites), numbers())
    return st.recursive(
        atom,
        lambda inner: st.one_of(
            st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), inner),
            st.builds("{}({})".format, st.sampled_from(["abs", "-"]), inner),
            st.builds("{}({}, {})".format, st.sampled_from(["min", "max"]), inner, inner),
        ),
        max_leaves=3,
    )


@cache
def simple(sites: tuple[str, ...]) -> st.SearchStrategy[str]:
    looked = st.one_of(METRIC, METRIC, calls(sites))
    return st.builds("{} {} {}".format, looked, COMPARE, st.sampled_from(["0", "1", "2", "p"]))


@cache
def conditions(sites: tuple[str, ...]) -> st.SearchStrategy[str]:
    plain, anything = simple(sites), terms(sites)
    link = st.one_of(
        plain, plain, anything,
        st.builds("({} {} {} {} {})".format, anything, COMPARE, anything, COMPARE, anything),
        st.builds("({} {} {})".format, anything, COMPARE, anything),
    )  # fmt: skip
    logic = st.one_of(
        link, link,
        st.builds("{} {} {}".format, link, st.sampled_from(["and", "or"]), link),
        st.builds("not ({})".format, link),
    )  # fmt: skip
    return st.one_of(plain, plain, plain, logic)


# Specs


def compact(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


def holds(sites: tuple[str, ...]) -> dict[str, st.SearchStrategy[Any]]:
    """The keys of a condition."""
    return {
        "when": conditions(sites),
        "clear": rarely(conditions(sites), one_in=2),
        "for": rarely(seconds(least=0, most=6), one_in=2),
        "keep_firing_for": rarely(seconds(least=0, most=6), one_in=2),
        "count": rarely(st.sampled_from([1, 2, "1 of 2", "2 of 3", "3 of 5"])),
    }


FLAP = st.sampled_from([True, {"high": 0.06, "low": 0.05}, {"high": 0.1, "low": 0.04}, {"high": 0.2, "low": 0.1}])


def over_thresholds(metric: str, levels: dict[str, Any]) -> dict[str, Any]:
    """Levels as people write them: the same metric over rising limits."""
    limits = {"info": 0, "warning": 1, "critical": 2}
    return {severity: {**level, "when": f"{metric} > {limits[severity]}"} for severity, level in levels.items()}


@cache
def rules(sites: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    """A rule without its id."""
    flap = rarely(FLAP)
    shared = {
        "max_gap": rarely(seconds(least=0, most=8), one_in=2), "flap": flap,
        "params": st.sampled_from([{"p": 1}, {"p": 0}, {"p": 2.5}]),
    }  # fmt: skip
    severity = rarely(st.sampled_from(["info", "critical"]))
    level = st.fixed_dictionaries(holds(sites)).map(compact)
    names = st.sampled_from(["critical", "warning", "info"])
    apart = st.dictionaries(names, level, min_size=1, max_size=3)
    nested = st.builds(lambda metric, found: over_thresholds(metric, found), METRIC, apart)
    kinds = {
        "when": {**holds(sites), "severity": severity, **shared},
        "levels": {"levels": st.one_of(nested, nested, apart), **shared},
        "no_data": {"no_data": seconds(least=1, most=8), "severity": severity, "flap": flap},
    }
    made = {kind: st.fixed_dictionaries(keys).map(compact) for kind, keys in kinds.items()}
    return st.sampled_from(["when", "when", "when", "levels", "no_data"]).flatmap(made.__getitem__)


KEYS = st.fixed_dictionaries(
    {
        "cadence": st.sampled_from(["2s", "1s", "3s", "event"]),
        "stale_after": rarely(seconds(least=0, most=6)),
        "lateness": st.sampled_from(["0s", "1s", "3s", "10s"]),
    }
).map(compact)


@st.composite
def specs(draw: st.DrawFn) -> list[dict[str, Any]]:
    names = TYPES[: draw(st.sampled_from([1, 1, 2, 3]))]
    by_site = draw(st.booleans())
    found = []
    for name in names:
        metrics = {**METRICS, "y": {**METRICS["y"], "outside": draw(st.sampled_from(["quarantine", "warn", "fail"]))}}
        spec = {"type": name, "version": 1, "system": "plant", **draw(KEYS), "metrics": metrics}
        spec["partition_by"] = "site" if by_site else "device"
        some = rules(names if by_site else ())
        chosen = draw(st.lists(some, min_size=2 if len(names) == 1 else 0, max_size=6 // len(names)))
        found.append(settle({**spec, "alerts": [{"id": f"r{i}", **rule} for i, rule in enumerate(chosen)]}))
    return found


def looks_at_device(spec: dict[str, Any], rule: dict[str, Any]) -> bool:
    try:
        load({**spec, "alerts": [rule]})
    except ValueError:
        return False
    return True


def settle(spec: dict[str, Any]) -> dict[str, Any]:
    """Conditions that look at no device (`1 < 2`) are an error of a spec: they look at x as well."""

    def mend(condition: dict[str, Any]) -> dict[str, Any]:
        if "when" in condition and not looks_at_device(spec, {"id": "r", "params": {"p": 1}, **condition}):
            return {**condition, "when": f"({condition['when']}) and x == x"}
        return condition

    mended = []
    for rule in spec["alerts"]:
        if "levels" in rule:
            levels = {s: mend(level) for s, level in rule["levels"].items()}
            mended.append({**rule, "levels": levels})
        else:
            mended.append(mend(rule))
    return {**spec, "alerts": [rule for rule in mended if looks_at_device(spec, rule)]}


# Streams

ORIGINS = [0, 86_395, 31 * 86_400 - 5, 9_961_195]
"""Seconds since 1970: its beginning; before a midnight; before a month's end; before New York's first change to summer
time. The last three at UTC."""
ZONES = ["Asia/Tokyo", "America/New_York"]
PARAMS = [{"p": 0}, {"p": 2}]
VALUES = st.sampled_from([0, 1, 2, 3, 0.1, 5, -3, None, float("nan"), float("inf"), 1e308])
USUAL = st.sampled_from([0, 3, 1, 2, 0, 3])
STEP_FORWARD = st.sampled_from([1, 0, 2, 3, 5, 0.5, 9])


@cache
def readings() -> st.SearchStrategy[dict[str, Any]]:
    value = st.one_of(USUAL, USUAL, USUAL, VALUES)
    return st.fixed_dictionaries(
        {
            "reading": st.sampled_from([0, 0, 0, 1, 1, 2]),
            "type": st.sampled_from([0, 0, 1, 2]),
            "step": st.one_of(STEP_FORWARD, STEP_FORWARD, STEP_FORWARD, st.sampled_from([0, -1, -2, -5])),
            "site": rarely(st.sampled_from(SITES)),
            "seq": rarely(st.integers(0, 3)),
            "values": st.one_of(
                value.map(lambda v: {"x": v}),
                value.map(lambda v: {"x": v}),
                st.fixed_dictionaries({"x": value, "y": value, "n": value}),
                st.dictionaries(METRIC, value, max_size=3),
            ),
            "append": st.sampled_from([1, 0, 2, 5]),
        }
    )


@cache
def mutations(sites: tuple[str, ...]) -> st.SearchStrategy[tuple[str, Any]]:
    """(what changes, to what): of one rule of the type, or of the type."""
    return st.one_of(
        st.tuples(st.just("for"), seconds(least=0, most=6)),
        st.tuples(st.just("keep_firing_for"), seconds(least=0, most=6)),
        st.tuples(st.just("when"), simple(sites)),
        st.tuples(st.just("clear"), st.one_of(st.none(), simple(sites))),
        st.tuples(st.just("max_gap"), st.one_of(st.none(), seconds(least=0, most=8))),
        st.tuples(st.just("severity"), st.sampled_from(["info", "warning", "critical"])),
        st.tuples(st.just("no_data"), seconds(least=1, most=8)),
        st.tuples(st.just("params"), st.sampled_from([{"p": 0}, {"p": 1}, {"p": 3}])),
        st.tuples(st.just("flap"), st.one_of(st.none(), FLAP)),
        st.tuples(st.just("count"), st.sampled_from([None, 1, "1 of 2", 2])),
        st.tuples(st.just("level"), st.sampled_from(["critical", "warning", "info"])),
        st.tuples(st.just("remove"), st.none()),
        st.tuples(st.just("add"), rules(sites)),
        st.tuples(st.just("replace"), rules(sites)),
        st.tuples(st.just("first"), st.none()),
        st.tuples(st.just("lateness"), st.sampled_from(["0s", "2s", "10s"])),
        st.tuples(st.just("stale_after"), seconds(least=0, most=6)),
        st.tuples(st.just("nothing"), st.none()),
    )


def mutate(spec: dict[str, Any], place: int, what: str, to: Any) -> dict[str, Any]:
    """The spec's next version; as it was, but for the version, where the change would be none or an error."""
    new = copy.deepcopy({**spec, "version": spec["version"] + 1})
    alerts = new["alerts"]
    if what in ("lateness", "stale_after"):
        new[what] = to
    elif what == "add":
        unused = next(i for i in range(100) if all(rule["id"] != f"r{i}" for rule in alerts))
        alerts.insert(place % (len(alerts) + 1), {"id": f"r{unused}", **to})
    elif alerts:
        rule = alerts[place % len(alerts)]
        if what == "remove":
            alerts.remove(rule)
        elif what == "first":
            alerts.remove(rule)
            alerts.insert(0, rule)
        elif what == "level":
            levels = rule.get("levels", {})
            if to in levels and len(levels) > 1:
                del levels[to]
            elif levels:
                levels[to] = {"when": "x > 0"}
        elif what == "replace":
            alerts[alerts.index(rule)] = {"id": rule["id"], **to}
        elif what != "nothing":
            inner = rule
            if "levels" in rule and what in ("for", "keep_firing_for", "when", "clear", "count"):
                inner = rule["levels"][sorted(rule["levels"])[place % len(rule["levels"])]]
            if what in inner or what not in ("no_data", "when"):
                inner[what] = to
                if to is None:
                    del inner[what]
    settled = settle(new)
    if len(settled["alerts"]) < len(alerts) or not looks_no_further(settled, spec):
        return {**spec, "version": spec["version"] + 1}
    return settled


def looks_no_further(new: dict[str, Any], old: dict[str, Any]) -> bool:
    """How much of the past a new spec's rules know, where the old one's did not look at it, RULES.md leaves open."""
    before = looks_back(old)
    return all(key in before and span <= before[key] for key, span in looks_back(new).items())


def looks_back(spec: dict[str, Any]) -> dict[tuple[str, ...], timedelta | int]:
    """What of the past the spec's rules need, and how far."""
    needs: dict[tuple[str, ...], Any] = {}
    for rule in load(spec).alerts:
        for path, condition in rule.conditions():
            if condition.count is not None:
                needs["count", rule.id, path] = condition.count.last
            for text in (condition.when, condition.clear):
                for node in walk(parse_expression(text)) if text else ():
                    if isinstance(node, Call) and node.function in WINDOW_FUNCTIONS:
                        key = ("window", node.arguments[0].name)
                        needs[key] = max(needs.get(key, timedelta(0)), node.arguments[1].length)
                    elif isinstance(node, Call) and node.function in ("previous", *COUNTER_FUNCTIONS):
                        needs[node.function, node.arguments[0].name] = 0
    return needs


@cache
def steps(sites: tuple[str, ...], appends: bool, spec_changes: bool) -> st.SearchStrategy[list[dict[str, Any]]]:
    device, append = st.sampled_from([0, 0, 1, 2]), st.sampled_from([1, 0])
    target = {"type": st.integers(0, 2), "device": device, "step": st.sampled_from([0, 1, 2, -3]), "append": append}
    seldom = [
        st.just({"restart": True}),
        st.fixed_dictionaries({"again": st.integers(1, 4), "append": append}),
        st.fixed_dictionaries({"retire": st.just(True), **target}),
        st.fixed_dictionaries({"resolve": st.sampled_from([0, 0, 1, 2, 3]), **target}),
        st.fixed_dictionaries(
            {"zone": st.sampled_from(["default", *SITES]), "time_zone": st.sampled_from(ZONES), **target}
        ),
        st.fixed_dictionaries({"register": rarely(st.sampled_from(PARAMS)), "site": st.sampled_from(SITES), **target}),
    ]
    if appends:
        seldom += [st.fixed_dictionaries({"heartbeat": st.sampled_from([1, 2, 5, 10, 0])})] * 3
    else:
        seldom += [st.fixed_dictionaries({"watermark": st.sampled_from([0, 2, 5, 10, -3])})] * 2
    if spec_changes:
        place = st.integers(0, 5)
        seldom += [st.fixed_dictionaries({"spec": mutations(sites), "place": place, **target})] * 5
    one = st.integers(0, 3).flatmap([*[readings()] * 3, st.one_of(*seldom)].__getitem__)
    lengths = st.sampled_from([(1, 8), (8, 16), (16, 24), (30, 45)])
    return lengths.flatmap(lambda length: st.lists(one, min_size=length[0], max_size=length[1]))


def again(line: Any, *, payloads: bool) -> bool:
    """Whether the line is a reading that would be a duplicate, came it again."""
    others = ("retire", "resolve", "register", "zone", "spec", "watermark", "heartbeat")
    return line != "restart" and not any(key in line for key in others) and (payloads or "seq" in line)


def fold(
    first: list[dict[str, Any]], steps: list[dict[str, Any]], appends: bool, origin: int, append_start: int
) -> list[dict[str, Any]]:
    """Steps → lines of input. Times go on from the latest; devices, types and rules are picked by number."""
    current = [copy.deepcopy(spec) for spec in first]
    event, append = float(origin), float(origin + append_start)
    lines: list[Any] = []

    def at(moment: float) -> str:
        return format_duration(timedelta(seconds=max(0.0, moment)))

    for step in steps:
        append += step.get("append", 0)
        stamp = {"append": at(append)} if appends else {}
        spec = current[step.get("type", 0) % len(current)]
        moment = event + step.get("step", 0)
        if "reading" in step:
            event = max(event, moment)
            device = DEVICES[step["reading"]]
            own = compact({"site": step["site"], "seq": step["seq"]})
            lines.append({"at": at(moment), "device": device, "type": spec["type"], **own, **step["values"], **stamp})
        elif "again" in step:
            before = [line for line in lines if again(line, payloads=appends)][-step["again"] :]
            if before:
                lines.append({**before[0], **stamp})
        elif "restart" in step:
            lines.append("restart")
        elif "retire" in step:
            device = DEVICES[step["device"]]
            lines.append({"at": at(moment), "retire": device, "type": spec["type"], **stamp})
        elif "zone" in step:
            zone = {"site": step["zone"], "time_zone": step["time_zone"]}
            lines.append({"at": at(moment), "zone": zone, **stamp})
        elif "register" in step:
            known = compact({"site": step["site"], "params": step["register"]})
            known = {"device": DEVICES[step["device"]], "type": spec["type"], **known}
            lines.append({"at": at(moment), "register": known, **stamp})
        elif "resolve" in step:
            asked = {"device": DEVICES[step["device"]], "rule": f"r{step['resolve']}"}
            lines.append({"at": at(moment), "resolve": asked, "type": spec["type"], **stamp})
        elif "spec" in step:
            new = mutate(spec, step["place"], *step["spec"])
            current[current.index(spec)] = new
            lines.append({"at": at(moment), "spec": new, **stamp})
        elif "heartbeat" in step:
            append += step["heartbeat"]
            lines.append({"heartbeat": at(append)})
        else:
            lines.append({"watermark": at(event + step["watermark"])})
    return lines


REGISTERED = st.fixed_dictionaries(
    {
        "device": st.sampled_from(DEVICES),
        "type": st.integers(0, 2),
        "site": rarely(st.sampled_from(SITES)),
        "params": rarely(st.sampled_from(PARAMS), one_in=2),
    }
)


@st.composite
def parts(draw: st.DrawFn, spec_changes: bool = True, appends: bool | None = None) -> dict[str, Any]:
    """All that `assemble` makes a case from."""
    first = draw(specs())
    with_appends = draw(rarely(st.just(True), False, 3)) if appends is None else appends
    entries = draw(st.lists(REGISTERED, max_size=3, unique_by=lambda e: (e["device"], e["type"] % len(first))))
    names = tuple(spec["type"] for spec in first if spec["partition_by"] == "site")
    with_changes = spec_changes and draw(rarely(st.just(True), False, 2))
    return {
        "first": first,
        "registry": [compact({**entry, "type": first[entry["type"] % len(first)]["type"]}) for entry in entries],
        "steps": draw(steps(names, with_appends, with_changes)),
        "appends": with_appends,
        "append_start": draw(st.sampled_from([0, 0, 3, 20])) if with_appends else 0,
        "origin": draw(rarely(st.sampled_from(ORIGINS), 0)),
    }


def assemble(parts: dict[str, Any]) -> dict[str, Any]:
    lines = fold(parts["first"], parts["steps"], parts["appends"], parts["origin"], parts["append_start"])
    return {"specs": parts["first"], "registry": parts["registry"], "payloads": parts["appends"], "input": lines}


def cases(spec_changes: bool = True, appends: bool | None = None) -> st.SearchStrategy[dict[str, Any]]:
    """{specs, registry, input}, as in a rule test; with append times and heartbeats in every third."""
    return parts(spec_changes, appends).map(assemble)
