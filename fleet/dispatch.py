"""Whom to tell of an alert, and what is held back from whom and why. No I/O: data and `now` in, decisions out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import msgspec

from fleet.hindrance import Circumstances, hindrance, is_before
from fleet.notification import Kind
from fleet.plan import Plan, plan_of, plans_of, steps_of
from fleet.receivers import Escalation, ReceiversFile
from fleet.standing import PASSING, AlertSoFar, Cause, Standing, departed, rank


@dataclass(frozen=True)
class Tell:
    receiver: str
    kind: Kind
    notification_id: str


@dataclass(frozen=True)
class Hold:
    receiver: str
    """Empty where the alert is for nobody."""
    kind: Kind
    cause: Cause
    note: str = ""
    """Which silence, which window, which alert."""


Decision = Tell | Hold


def telling_id(so_far: AlertSoFar, receiver: str) -> str:
    """Of the alert as it is now. One that left the file may have a dead letter by the id of before."""
    left = so_far.standing(receiver).left
    return f"{so_far.alert.transition_id}{f'-return-{left}' if left else ''}@{receiver}"


def decide(so_far: AlertSoFar, kind: Kind, stale: bool, given: Circumstances) -> list[Decision]:
    """On a transition; `so_far` is the alert after it. Who was told once hears of all that follows, whatever the routes
    say by now. One decision a receiver; at least one."""
    plans = plans_of(given.policy, so_far.alert)
    names = [*plans, *(n for n in so_far.standings if n not in plans and n in given.policy.receivers)]
    open_at = [n for n, s in so_far.standings.items() if n not in given.policy.receivers and (s.told or s.left)]
    ended: list[Decision] = [Hold(n, kind, "no_receiver") for n in open_at if kind == "resolved"]
    if not names:
        return ended or [Hold("", kind, "no_route")]
    return [*(_decided(so_far, kind, stale, name, plans.get(name), given) for name in names), *ended]


def _decided(
    so_far: AlertSoFar, kind: Kind, stale: bool, receiver: str, plan: Plan | None, given: Circumstances
) -> Decision:
    standing = so_far.standing(receiver)
    if kind == "resolved" or (kind == "settled" and not so_far.alert.active):
        return _ended(so_far, kind, receiver, plan, standing)
    if so_far.capped and so_far.inhibitable:
        return Hold(receiver, kind, "capped")
    if stale:
        return Hold(receiver, kind, "stale")
    if kind == "settled" and not standing.knows_flapping and standing.told is None:
        kind = "firing"
    return _unless_hindered(so_far, Tell(receiver, kind, f"{so_far.alert.transition_id}@{receiver}"), given)


def _unless_hindered(so_far: AlertSoFar, tell: Tell, given: Circumstances) -> Decision:
    found = hindrance(so_far, tell.kind, tell.receiver, given)
    return Hold(tell.receiver, tell.kind, *found) if found else tell


def _ended(so_far: AlertSoFar, kind: Kind, receiver: str, plan: Plan | None, standing: Standing) -> Decision:
    """An end, of an alert or of flapping while nothing fires, is told to whoever knows of the beginning, in silence
    too: it closes what they have open. Of a receiver that is switched off it becomes a dead letter, with which it is
    told when that is on again."""
    tell = Tell(receiver, kind, f"{so_far.alert.transition_id}@{receiver}")
    settles = standing.knows_flapping and not so_far.alert.flapping
    if kind == "settled":
        return tell if settles else Hold(receiver, kind, "never_told")
    ends = plan.send_resolved if plan else standing.send_resolved
    if (standing.told is not None or standing.left) and ends:
        return tell
    if settles:  # held back since; it takes the rule for one that flaps
        return replace(tell, kind="settled")
    return Hold(receiver, kind, "never_told" if standing.told is None else "no_resolved")


def reconsider(so_far: AlertSoFar, given: Circumstances) -> list[Decision]:
    """What was held back for a time: whatever has ended, and what holds it now. Nothing where nothing has changed, or
    where the receiver knows all that there is to know by now."""
    decisions: list[Decision] = []
    for receiver, standing in so_far.standings.items():
        if standing.held is None or not so_far.alert.active or receiver not in given.policy.receivers:
            continue
        kind = _news(so_far, standing)
        found = hindrance(so_far, kind, receiver, given)
        if found and found[0] != standing.held:
            decisions.append(Hold(receiver, kind, *found))
        elif found is None:
            decisions.append(Tell(receiver, kind, telling_id(so_far, receiver)))
    return [d for d in decisions if isinstance(d, Hold) or _is_news(so_far, so_far.standing(d.receiver))]


def forgotten(so_far: AlertSoFar, given: Circumstances) -> list[str]:
    """Receivers from which something was held that has since become no news."""
    return [
        receiver
        for receiver, standing in so_far.standings.items()
        if standing.held and not _is_news(so_far, standing) and hindrance(so_far, "firing", receiver, given) is None
    ]


def _news(so_far: AlertSoFar, standing: Standing) -> Kind:
    if so_far.alert.flapping != standing.knows_flapping:
        return "flapping" if so_far.alert.flapping else "settled"
    if standing.told is None:
        return "firing"
    return "escalated" if rank(so_far.alert.severity) > rank(standing.told) else "deescalated"


def _is_news(so_far: AlertSoFar, standing: Standing) -> bool:
    return standing.told != so_far.alert.severity or standing.knows_flapping != so_far.alert.flapping


def due(so_far: AlertSoFar, given: Circumstances) -> list[Decision]:
    """Reminders and escalations whose time has come."""
    alert = so_far.alert
    if not alert.active:
        return []
    decisions: list[Decision] = []
    for receiver, standing in so_far.standings.items():
        if standing.repeat_at and standing.repeat_at <= given.now and receiver in given.policy.receivers:
            number = f"{alert.transition_id}-reminder-{standing.reminders + 1}@{receiver}"
            decisions.append(_unless_hindered(so_far, Tell(receiver, "reminder", number), given))
    reminded = {d.receiver for d in decisions}
    for receiver in dict.fromkeys(name for step in overdue(so_far, given) for name in step.to):
        if receiver in reminded:
            continue
        told = so_far.standing(receiver).told is not None
        kind: Kind = "reminder" if told else "firing"
        step = f"{alert.transition_id}-escalation-{len(so_far.steps_taken) + 1}@{receiver}"
        number = step if told else telling_id(so_far, receiver)
        decisions.append(_unless_hindered(so_far, Tell(receiver, kind, number), given))
    return decisions


def replanned(so_far: AlertSoFar, given: Circumstances) -> AlertSoFar:
    """With the receivers and repeats of the file as it is now; these are counted from the last telling where that is
    known, else from now."""
    plans = plans_of(given.policy, so_far.alert)
    standings = dict(so_far.standings)
    for receiver, before in so_far.standings.items():
        if receiver not in given.policy.receivers:
            standings[receiver] = departed(before)
            continue
        plan = plans.get(receiver)
        repeat = plan.repeat.total_seconds() if plan and plan.repeat else None
        if plan is None or before.told is None or repeat == before.repeat_seconds or not so_far.alert.active:
            continue
        last = before.repeat_at - timedelta(seconds=before.repeat_seconds or 0) if before.repeat_at else given.now
        at = None if repeat is None else last + timedelta(seconds=repeat)
        standings[receiver] = msgspec.structs.replace(before, repeat_seconds=repeat, repeat_at=at)
    return so_far if standings == so_far.standings else msgspec.structs.replace(so_far, standings=standings)


def newly_planned(so_far: AlertSoFar, given: Circumstances) -> list[Decision]:
    """For receivers to which the file brings an active alert only since it changed: by its routes, or being in it
    again."""
    known = any(standing.told or standing.held or standing.away for standing in so_far.standings.values())
    is_old = so_far.stale or (so_far.inhibitable and is_before(so_far.alert.event_time, given))
    unrouted = not so_far.standings and not is_old
    if not (known or unrouted) or not so_far.alert.active or (so_far.capped and so_far.inhibitable):
        return []
    escalated_to = [name for _, to in so_far.steps_taken for name in to if name in given.policy.receivers]
    planned = plans_of(given.policy, so_far.alert)
    back = [name for name in (*planned, *escalated_to) if so_far.standing(name).away]
    decisions: list[Decision] = []
    for receiver in dict.fromkeys([*(name for name in planned if name not in so_far.standings), *back]):
        kind = _news(so_far, so_far.standing(receiver))
        decisions.append(_unless_hindered(so_far, Tell(receiver, kind, telling_id(so_far, receiver)), given))
    return decisions


def next_due(so_far: AlertSoFar, policy: ReceiversFile) -> datetime | None:
    """When `due` or `overdue` may have something next."""
    if not so_far.alert.active:
        return None
    times = [s.repeat_at for name, s in so_far.standings.items() if s.repeat_at and name in policy.receivers]
    if so_far.first_told_at is not None and so_far.acknowledged is None and policy.escalates:
        steps = (step for step, _ in steps_of(policy, so_far.alert) if step.key not in so_far.steps_taken)
        times += [so_far.first_told_at + step.after for step in steps]
    return min(times, default=None)


def overdue(so_far: AlertSoFar, given: Circumstances) -> list[Escalation]:
    """Steps to be taken since nobody has acknowledged the alert."""
    if so_far.first_told_at is None or so_far.acknowledged is not None or not given.policy.escalates:
        return []
    steps = [step for step, _ in steps_of(given.policy, so_far.alert) if step.key not in so_far.steps_taken]
    return [step for step in steps if so_far.first_told_at + step.after <= given.now]


def acknowledged(so_far: AlertSoFar, given: Circumstances) -> list[Decision]:
    """Who was told that it fires is told that somebody has taken it on; `so_far` is the alert after that."""
    decisions: list[Decision] = []
    for receiver, standing in so_far.standings.items():
        if standing.told is None or receiver not in given.policy.receivers:
            continue
        number = f"{so_far.alert.alert_id}-acknowledged-{so_far.acknowledgements}@{receiver}"
        decisions.append(_unless_hindered(so_far, Tell(receiver, "acknowledged", number), given))
    return decisions


def after(
    so_far: AlertSoFar, decisions: Sequence[Decision], given: Circumstances, steps: Sequence[Escalation] = ()
) -> AlertSoFar:
    """How the alert stands when the decisions, those of the steps of escalation among them, have been taken."""
    alert, now = so_far.alert, given.now
    standings = dict(so_far.standings)
    counts = worse = False
    plans: Mapping[str, Plan] = plans_of(given.policy, alert)
    escalating = {
        name: plan_of(given.policy, route, name)
        for step, route in steps_of(given.policy, alert) for name in step.to
    }  # fmt: skip
    for decision in decisions:
        if not decision.receiver:
            continue
        before = so_far.standing(decision.receiver)
        plan = plans.get(decision.receiver) or escalating.get(decision.receiver)
        repeat = plan.repeat.total_seconds() if plan and plan.repeat else None if plan else before.repeat_seconds
        unheard = isinstance(decision, Hold) and decision.cause in ("stale", "capped")
        off = isinstance(decision, Hold) and decision.cause == "switched_off"
        counts = counts or (alert.active and (off or isinstance(decision, Tell)))
        worse = worse or (decision.kind == "escalated" and (off or isinstance(decision, Tell)))
        changes: dict[str, object] = {"repeat_seconds": repeat, "away": before.away and unheard}
        if plan:
            changes["send_resolved"] = plan.send_resolved
        if isinstance(decision, Tell):
            changes["held"] = None
            if alert.active and decision.kind != "acknowledged":
                changes["told"] = alert.severity
            if decision.kind in ("flapping", "settled"):
                changes["knows_flapping"] = decision.kind == "flapping"
        elif decision.kind not in ("resolved", "reminder", "acknowledged"):
            # What is stale or capped is no news by itself, but what was held back before it still is.
            kept = None if decision.cause == "acknowledged" else before.held
            changes["held"] = decision.cause if decision.cause in PASSING else kept
        if decision.kind == "reminder":
            changes["reminders"] = before.reminders + 1
        told = changes.get("told", before.told)
        if not alert.active:
            changes |= {"held": None, "repeat_at": None}
        elif decision.kind != "acknowledged":
            changes["repeat_at"] = now + timedelta(seconds=repeat) if repeat and told is not None else None
        standings[decision.receiver] = msgspec.structs.replace(before, **changes)
    return msgspec.structs.replace(
        so_far,
        standings=standings,
        first_told_at=now if worse or (counts and so_far.first_told_at is None) else so_far.first_told_at,
        steps_taken=(*so_far.steps_taken, *(step.key for step in steps)),
    )
