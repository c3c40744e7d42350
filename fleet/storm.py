"""Storms: more than so many messages to one receiver about one rule at one site within a while are one digest."""

from datetime import datetime
from typing import NamedTuple

import msgspec

from fleet.notification import TellingAlert
from fleet.receivers import Storm
from fleet.standing import AlertSoFar


class GroupKey(NamedTuple):
    receiver: str
    kind: str
    system: str
    type: str
    rule: str
    site: str


def key_of(receiver: str, kind: str, alert: TellingAlert) -> GroupKey:
    return GroupKey(receiver, kind, alert.system, alert.type, alert.rule, alert.site)


def awaited(so_far: AlertSoFar) -> list[GroupKey]:
    """The digests in which the alert is to be told."""
    return [
        key_of(receiver, standing.digest, so_far.alert)._replace(site=standing.digest_site)
        for receiver, standing in so_far.standings.items()
        if standing.digest
    ]


def anchored(so_far: AlertSoFar) -> AlertSoFar:
    """Rows that are older than `digest_site` have none."""
    standings = {
        name: msgspec.structs.replace(s, digest_site=s.digest_site or so_far.alert.site) if s.digest else s
        for name, s in so_far.standings.items()
    }
    return msgspec.structs.replace(so_far, standings=standings)


class Group(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    recent: tuple[tuple[datetime, str], ...] = ()
    """When which alert was told of, the last `more_than` of them, in order."""
    due_at: datetime | None = None
    """When the digest is sent; None: no storm."""
    digest_id: str = ""
    before: tuple[str, ...] = ()
    """Alerts that were told one by one before it was a storm: the digest lists them too."""


def admitted(group: Group, alert_id: str, notification_id: str, storm: Storm, now: datetime) -> tuple[Group, bool]:
    """The group after one more, and whether that is told by itself. Its digest waits until the while is over that the
    first of the last `more_than` began, so that all of it is one message."""
    recent = tuple((at, of) for at, of in group.recent if now - at < storm.within)
    kept = (*recent, (now, alert_id))[-storm.more_than :]
    if group.due_at is not None:
        return msgspec.structs.replace(group, recent=kept), False
    if len(recent) < storm.more_than:
        return Group(recent=kept), True
    due_at = recent[0][0] + storm.within
    before = tuple(of for _, of in recent)
    return Group(recent=kept, due_at=due_at, digest_id=f"digest-{notification_id}", before=before), False


def certain(group: Group, so_far: AlertSoFar, receiver: str) -> Group:
    """With a digest to come, at once if there was none to be: of old, who moved while it waited was left out of it."""
    if group.due_at is not None:
        return group
    digest_id = f"digest-{so_far.alert.transition_id}@{receiver}"
    return msgspec.structs.replace(group, due_at=so_far.alert.starts_at, digest_id=digest_id)


def flushed(group: Group) -> Group:
    return Group(recent=group.recent)


def is_forgotten(group: Group, storm: Storm, now: datetime) -> bool:
    """Nothing of it matters any longer."""
    return group.due_at is None and all(now - at >= storm.within for at, _ in group.recent)
