"""Which routes an alert goes by, and so who is told of it, how often, and who next. No I/O."""

from dataclasses import dataclass
from datetime import timedelta

from fleet.notification import TellingAlert
from fleet.receivers import Escalation, ReceiversFile, Route


@dataclass(frozen=True)
class Plan:
    repeat: timedelta | None
    send_resolved: bool


def routes_of(policy: ReceiversFile, alert: TellingAlert) -> list[Route]:
    """Those that the alert goes by."""
    taken = []
    for route in policy.routes:
        if route.match.takes(alert):
            taken.append(route)
            if not route.continue_:
                return taken
    if not taken and policy.default:
        return [policy.default]
    if not policy.routes and not policy.default and policy.receivers:
        return [Route(to=tuple(policy.receivers))]
    return taken


def plans_of(policy: ReceiversFile, alert: TellingAlert) -> dict[str, Plan]:
    """Receiver → how it is told. Of two routes to one receiver the first counts."""
    plans: dict[str, Plan] = {}
    for route in routes_of(policy, alert):
        for name in route.to:
            plans.setdefault(name, plan_of(policy, route, name))
    return plans


def plan_of(policy: ReceiversFile, route: Route, name: str) -> Plan:
    own = policy.receivers[name].send_resolved
    return Plan(route.repeat, own if route.send_resolved is None else route.send_resolved)


def steps_of(policy: ReceiversFile, alert: TellingAlert) -> list[tuple[Escalation, Route]]:
    steps = [(step, route) for route in routes_of(policy, alert) for step in route.escalate]
    return sorted(steps, key=lambda step: step[0].after)
