"""The `actions:` of rules among all types: whether each can be carried out, and that none comes back to its own cause.

A command sets metrics of its target. Where a rule looks at such a metric, the command may make it fire or resolve; if
its actions then lead back to the first rule, the two would go on for ever. So an edge from a rule to each rule that
looks at what its actions set, and no cycles. What a command does to the world beyond the metrics that it sets (a
thermostat's room gets warm) is no edge: that is what it is for.
"""

from collections.abc import Iterator, Mapping

from fleet.command import argument_problems
from fleet.expression import Name, parse_expression, walk
from fleet.nearest import nearest
from fleet.rule import Action, Rule
from fleet.spec import RuledType

Node = tuple[str, str]
"""(type, rule) or (type, metric)."""


def target_type(spec: RuledType, action: Action) -> str:
    return action.type or spec.type


def action_problems(types: Mapping[str, RuledType], of: str | None = None) -> list[str]:
    """What is wrong with the actions of all types, or of one, a line each: `type: path: problem`."""
    problems = [
        f"{spec.type}: alerts.{place}.actions.{number}{problem}"
        for spec in types.values()
        for place, rule in enumerate(spec.alerts)
        for number, action in enumerate(rule.actions)
        for problem in _problems(spec, action, types)
    ]
    problems = problems or list(_loops(types))
    return [problem for problem in problems if of is None or problem.startswith(f"{of}: ")]


def _problems(spec: RuledType, action: Action, types: Mapping[str, RuledType]) -> Iterator[str]:
    name = target_type(spec, action)
    there = {t.type: t for t in types.values() if t.system == spec.system}
    target = there.get(name)
    if target is None:
        yield f".type: {name!r} is no type of system {spec.system}{nearest(name, there)}"
    elif not target.commands:
        obeying = [t.type for t in there.values() if t.commands]
        yield f".command: a {name} obeys no commands; types that do: {', '.join(obeying) or 'none'}"
    elif action.command not in target.commands:
        yield f".command: a {name} knows no command {action.command!r}{nearest(action.command, target.commands)}"
    else:
        for problem in argument_problems(action.command, target.commands[action.command], action.args):
            yield f".args: {problem}"


def looked_at(spec: RuledType, rule: Rule) -> set[Node]:
    """(type, metric) of all that its conditions look at; of silence, all that its type tells: any reading ends it."""
    found: set[Node] = {(spec.type, metric) for metric in spec.metrics} if rule.no_data is not None else set()
    for _, condition in rule.conditions():
        for text in (condition.when, condition.clear):
            for node in walk(parse_expression(text)) if text is not None else ():
                if isinstance(node, Name) and "." in node.name:
                    type_name, _, metric = node.name.partition(".")
                    found.add((type_name, metric))
                elif isinstance(node, Name) and node.name in spec.metrics:
                    found.add((spec.type, node.name))
    return found


def _loops(types: Mapping[str, RuledType]) -> Iterator[str]:
    """One line for each action on a cycle."""
    rules = {(spec.type, rule.id): (spec, rule) for spec in types.values() for rule in spec.alerts}
    looking: dict[Node, set[Node]] = {}
    for key, (spec, rule) in rules.items():
        for metric in looked_at(spec, rule):
            looking.setdefault(metric, set()).add(key)

    def next_rules(spec: RuledType, action: Action) -> dict[Node, Node]:
        """Rule → the metric by which the action reaches it."""
        target = types[target_type(spec, action)]
        sets = target.commands[action.command].sets
        return {key: (target.type, metric) for metric in sets for key in looking.get((target.type, metric), ())}

    reached_by = {
        key: {to: metric for action in rule.actions for to, metric in next_rules(spec, action).items()}
        for key, (spec, rule) in rules.items()
        if rule.actions
    }
    for key, (spec, rule) in rules.items():
        for number, action in enumerate(rule.actions):
            for first, metric in next_rules(spec, action).items():
                way = _way(first, key, reached_by)
                if way is None:
                    continue
                place = spec.alerts.index(rule)
                by = "".join(f", which commands what {_called(to)} looks at" for to in way[1:])
                who = "this rule itself" if first == key else f"rule {_called(first)}"
                yield (
                    f"{spec.type}: alerts.{place}.actions.{number}.command: the alert would go on for ever:"
                    f" {action.command} sets {'.'.join(metric)}, at which {who} looks{by};"
                    " look at another metric, or leave the action out"
                )
                break


def _called(key: Node) -> str:
    return f"{key[1]} of {key[0]}"


def _way(begin: Node, end: Node, reached_by: Mapping[Node, Mapping[Node, Node]]) -> list[Node] | None:
    """The shortest way by actions from a rule to another, both included; None where there is none."""
    ways, seen = [[begin]], {begin}
    for way in ways:
        if way[-1] == end:
            return way
        for to in reached_by.get(way[-1], ()):
            if to not in seen:
                seen.add(to)
                ways.append([*way, to])
    return None
